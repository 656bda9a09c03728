"""What figures with a row for each task or student show."""

import numpy as np
import pytest

from w2s_jax.report import figures

import made_up


def test_generative_needs_the_same_student_with_and_without():
  ends = 'board-xs', 'board-l'
  alike = [made_up.group(*ends), made_up.group(*ends, generative=True)]
  assert 'generative.png' in figures.draw(alike)
  for others in (
    alike[:1],
    alike[1:],
    [alike[0], made_up.group(*ends, loss='logconf', generative=True)],
    [alike[0], made_up.group(*ends, ['board-s'], generative=True)],
    [alike[0], made_up.group('board-s', 'board-l', generative=True)],
    [alike[0], made_up.group(*ends, task='boolq', generative=True)],
    [alike[0], alike[1] | {'weak_labels': 'hard'}],
    [alike[0], alike[1] | {'early_stopping': 'weak_labels'}],
  ):
    assert 'generative.png' not in figures.draw(others)


def test_generative_shows_pgr_and_what_it_comes_from():
  ends = 'board-xs', 'board-l'
  groups = [
    made_up.group(*ends, pgr=0.5),
    made_up.group(*ends, pgr=3.0, generative=True),
    made_up.group(*ends, ['board-s'], pgr=None),
    made_up.group('board-s', 'board-m'),  # there is no such with
    made_up.group(*ends, ['board-s'], pgr=0.25, generative=True),
    made_up.group(*ends, task='boolq', pgr=None, generative=True),
    made_up.group(*ends, task='boolq', pgr=None),
  ]
  figure, caption = figures.draw(groups)['generative.png']
  left, right, other, _ = figure.axes
  assert (left.get_title(loc='left'), other.get_title(loc='left')) == (
    'chess',
    'boolq',
  )
  pair = 'board-xs → board-l\n'
  assert made_up.labels(left) == [f'{pair}xent', f'{pair}xent via board-s']
  assert made_up.marks(left, 'o') == {
    (0.5, -0.18): 'none',
    (3.0, 0.18): 'full',
    (0.25, 1.18): 'full',
  }
  texts = {round(t.get_position()[1], 2): t.get_text() for t in left.texts}
  assert texts == {
    -0.18: '0.50 [-inf, 0.70]',
    0.18: '3.00 [-inf, 3.20]',
    0.82: 'undefined',
    1.18: '0.25 [-inf, 0.45]',
  }
  low, high = left.get_xlim()  # finite, though intervals are not
  assert -1 < low < 0 and 3 < high < 4
  assert {text.get_text() for text in other.texts} == {'undefined'}
  assert made_up.marks(right, 'o') == {
    (82, -0.18): 'none',
    (84, 0.18): 'full',
    (83, 0.82): 'none',
    (85, 1.18): 'full',
  }
  assert set(made_up.marks(right, 's')) == {
    *((85, -0.18), (88, 0.18), (85, 0.82), (88, 1.18))
  }
  weak = made_up.marks(right, 'D')
  assert {x for x, _ in weak} == {50} and len(weak) == 4
  legend = [text.get_text() for text in right.get_legend().texts]
  assert legend == [
    *('weak', 'student', 'ceiling'),
    *('student + generative', 'ceiling + generative'),
  ]
  assert 'hollow' in caption


def _of_losses(n_tasks, **key):
  pair = [
    made_up.group('board-xs', 'board-l', loss=x) for x in ('xent', 'logconf')
  ]
  return made_up.of_tasks(pair, n_tasks, **key)


def _points(axes, marker):
  """(label, x, y) of the lines drawn with it."""
  return [
    (line.get_label(), *line.get_data())
    for line in axes.get_lines()
    if line.get_marker() == marker
  ]


def test_tasks_are_rows_with_the_widest_gap_on_top():
  groups = _of_losses(8, undefined=2)
  figure, _ = figures.draw(groups[::-1])['tasks.png']
  left, right = figure.axes
  names = made_up.labels(left)
  assert names[:6] == [f'task-{i:02}' for i in range(7, 1, -1)]
  assert left.get_title(loc='left') == 'board-xs → board-l'
  ((_, weak_T, _),) = _points(left, 'D')
  ((_, ceiling_T, y_T),) = _points(left, 's')
  assert set(weak_T) == {50} and y_T[np.argmax(ceiling_T)] == 0
  xent, logconf = sorted(_points(left, 'o'), reverse=True)
  assert (xent[0], logconf[0]) == ('xent', 'logconf')
  assert set(np.abs(xent[2] - logconf[2])) == {0.25}  # side by side
  assert set(xent[1]) == {82}


def test_tasks_show_pgr_where_defined_and_arrow_heads_beyond_the_frame():
  groups = _of_losses(22, undefined=2)  # up to 2.2
  groups[4].update(pgr=-3.0, pgr_low=-np.inf)
  figure, _ = figures.draw(groups)['tasks.png']
  _, right = figure.axes
  inside = [x.item() for _, x, _ in _points(right, 'o')]
  assert len(inside) == 2 * 18 - 1 and max(inside) == pytest.approx(2)
  assert [x.item() for _, x, _ in _points(right, '<')] == [-1]
  assert [x.item() for _, x, _ in _points(right, '>')] == [2] * 4
  assert right.get_xlim() == (-1, 2)


def test_of_more_pairs_tasks_show_the_two_with_the_widest_gap():
  ladder = made_up.of_tasks(made_up.ladder(), 3)
  for group in ladder:
    group['ceiling_accuracy'] = 0.5 + group['strong_parameters'] / 1e7
  figure, caption = figures.draw(ladder)['tasks.png']
  titles = [axes.get_title(loc='left') for axes in figure.axes]
  assert titles == ['board-xs → board-l', '', 'board-s → board-l', '']
  assert 'two pairs' in caption
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.texts] == [
    *('weak', 'xent', 'xent via board-s, board-m', 'ceiling'),
    'xent via board-m',
  ]


def test_tasks_show_what_generative_fine_tuning_changes():
  pair = [
    made_up.group('board-xs', 'board-l', generative=after)
    for after in (False, True)
  ]
  figure, _ = figures.draw(made_up.of_tasks(pair, 3))['tasks.png']
  looks = {line.get_label(): line for line in figure.axes[0].get_lines()}
  for role in ('xent', 'ceiling'):
    without, after = looks[role], looks[f'{role} + generative']
    assert without.get_color() == after.get_color()
    assert (without.get_fillstyle(), after.get_fillstyle()) == ('none', 'full')


def test_median_pgr_of_one_student_has_a_row_for_each_method():
  groups = _of_losses(9, undefined=2)
  groups += made_up.of_tasks([made_up.group('board-m', 'board-l')], 9, 9)
  figure, _ = figures.draw(groups)['median_pgr.png']
  (axes,) = figure.axes
  assert made_up.labels(axes) == [
    'board-xs → board-l\nxent',
    'board-xs → board-l\nlogconf',
    'board-m → board-l\nxent',
  ]
  assert [text.get_text() for text in axes.texts] == [
    '0.60 [0.40, 0.80]\n7 of 9 tasks',
    '0.60 [0.40, 0.80]\n7 of 9 tasks',
    'undefined\n0 of 9 tasks',
  ]
  assert len(_points(axes, 'o')) == 2 * (1 + 7)
