"""What the figures of made-up results show, read off their axes."""

import itertools

import numpy as np
import pytest

from w2s_jax import figures

# In the order of their size, which is not that of their names.
MODELS = {'board-xs': 2e4, 'board-s': 1.5e5, 'board-m': 9e5, 'board-l': 5e6}


def _group(
  weak,
  strong,
  via=(),
  loss='xent',
  *,
  pgr=0.5,
  task='chess',
  generative=False,
):
  curve_K = np.array([0.6, 0.8]), np.array([0.5, 0.7]), np.array([200, 400])
  group = {
    'task': task,
    'weak_model': weak,
    'strong_model': strong,
    'weak_parameters': MODELS[weak],
    'strong_parameters': MODELS[strong],
    'via': tuple(via),
    'loss': loss,
    'weak_labels': 'soft',
    'early_stopping': 'none',
    'generative': generative,
    'n_classes': 2,
    'pgr': pgr,
    'pgr_low': None if pgr is None else -np.inf,
    'pgr_high': None if pgr is None else pgr + 0.2,
    'reliability': dict.fromkeys(('weak', 'student', 'ceiling'), curve_K),
  }
  group |= dict.fromkeys(figures.AGREEMENT, 0.7)
  names = list(MODELS)
  for role, accuracy in {
    'weak': 0.5 + 0.1 * names.index(weak),
    'student': 0.52
    + 0.1 * names.index(strong)
    + 0.01 * len(via)
    + 0.02 * generative,
    'ceiling': 0.55 + 0.1 * names.index(strong) + 0.03 * generative,
    'zero_shot': 0.5,
  }.items():
    group[f'{role}_accuracy'], group[f'{role}_accuracy_se'] = accuracy, 0.01
    group[f'{role}_ece'] = 0.1
  return group


def _ladder(losses=('xent',), generative=(False,)):
  """Every pair, naive and bootstrapped through all that is in between."""
  names = list(MODELS)
  return [
    _group(names[weak], names[strong], via, loss, generative=after)
    for weak, strong in itertools.combinations(range(4), 2)
    for via in dict.fromkeys([(), tuple(names[weak + 1 : strong])])
    for loss in losses
    for after in generative
  ]


def _lines(axes):
  """{label: values} of the lines which the legend names."""
  lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
  return {k: list(v) for k, v in lines.items() if not k.startswith('_')}


def test_one_pair_needs_no_figure_of_sizes():
  drawn = figures.draw([_group('board-xs', 'board-l')])
  assert not [name for name in drawn if 'by_size' in name]
  drawn = figures.draw(_ladder())
  assert len([name for name in drawn if 'by_size' in name]) == 2


def test_methods_and_sizes():
  assert figures.method(_group('board-xs', 'board-s')) == 'xent'
  group = _group('board-xs', 'board-l', ('board-s', 'board-m'), 'logconf')
  assert figures.method(group) == 'logconf via board-s, board-m'
  group.update(early_stopping='weak_labels', generative=True, via=())
  assert figures.method(group) == 'logconf stopped + generative'
  assert list(figures.sizes(_ladder()[::-1])) == list(MODELS)


def test_panels_for_each_pair_and_for_each_loss():
  drawn = figures.draw(_ladder(losses=('xent', 'logconf')))
  titles = {
    name: [axes.get_title(loc='left') for axes in figure.axes]
    for name, (figure, _) in drawn.items()
  }
  assert titles['accuracy_by_size.png'] == ['chess   xent', 'chess   logconf']
  assert titles['pgr_by_size.png'] == titles['accuracy_by_size.png']
  for name in ('accuracy_and_pgr.png', 'calibration.png'):
    assert len(titles[name]) == 6
    assert titles[name][0] == 'chess   board-xs → board-s'


def test_accuracy_by_size_has_a_line_for_each_supervisor_and_way():
  figure, _ = figures.draw(_ladder())['accuracy_by_size.png']
  (axes,) = figure.axes
  lines = _lines(axes)
  naive = lines['taught by board-xs']
  assert naive == pytest.approx([62, 72, 82])
  assert lines['bootstrapped\nfrom board-xs'] == pytest.approx([73, 84])
  assert lines['taught by board-m'] == pytest.approx([82])
  assert 'bootstrapped\nfrom board-m' not in lines
  styles = {line.get_label(): line for line in axes.get_lines()}
  solid = styles['taught by board-xs']
  dashed = styles['bootstrapped\nfrom board-xs']
  assert (solid.get_linestyle(), dashed.get_linestyle()) == ('-', '--')
  assert solid.get_color() == dashed.get_color()
  ticks = axes.get_xticklabels()
  assert [tick.get_text() for tick in ticks] == list(MODELS)
  assert axes.get_xscale() == 'log'
  dotted = [x for x in axes.get_lines() if x.get_linestyle() == ':']
  assert [x.get_xdata()[0] for x in dotted] == list(MODELS.values())[:3]
  assert [x.get_ydata()[0] for x in dotted] == pytest.approx([50, 60, 70])


def test_line_of_bootstrapping_goes_to_the_longest_chain():
  ends = 'board-xs', 'board-l'
  groups = [
    _group('board-xs', 'board-m', ['board-s']),
    _group(*ends, ['board-m']),
    _group(*ends, ['board-s', 'board-m']),
  ]
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  (line,) = [y for k, y in _lines(figure.axes[0]).items() if 'board-xs' in k]
  assert line == pytest.approx([73, 84])
  points = np.concatenate([x.get_ydata() for x in figure.axes[0].get_lines()])
  assert np.isclose(points, 83).any()  # the shorter one is a point


def test_undefined_pgr_is_left_out():
  groups = [
    _group('board-xs', 'board-s', pgr=None),
    _group('board-xs', 'board-m', pgr=0.25),
    _group('board-xs', 'board-l', pgr=3.0),
  ]
  figure, caption = figures.draw(groups)['pgr_by_size.png']
  (axes,) = figure.axes
  assert _lines(axes) == {'taught by board-xs': pytest.approx([0.25, 3.0])}
  assert 'undefined are left out' in caption
  low, high = axes.get_ylim()  # finite, though an interval is not
  assert -1 < low < 0 and 3 < high < 4
  figure, _ = figures.draw([g | {'pgr': None} for g in groups])[
    'pgr_by_size.png'
  ]
  assert figure.axes[0].get_title() == 'undefined for all'
  low, high = figure.axes[0].get_xlim()  # of the models all the same
  assert 1e4 < low < 2e4 and 5e6 < high < 1e7


def test_models_of_one_size_or_one_name_can_be_drawn():
  groups = [
    _group('board-xs', 'board-xs'),
    _group('board-xs', 'board-xs', ['board-xs']),
    _group('board-m', 'board-m', task='boolq'),
  ]
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  figure.draw_without_rendering()
  assert [len(axes.get_xticks()) for axes in figure.axes] == [1, 1]


def test_bars_and_curves_have_a_colour_of_their_own():
  ends = 'board-xs', 'board-l'
  ways = (), ('board-s',), ('board-m',), ('board-s', 'board-m')
  groups = [_group(*ends, w, x) for w in ways for x in ('xent', 'logconf')]
  drawn = figures.draw(groups)
  axes = drawn['accuracy_and_pgr.png'][0].axes[0]
  labels = _labels(axes)
  assert labels == [
    *('zero-shot', 'weak supervisor'),
    *map(figures.method, groups),
    'strong ceiling',
  ]
  assert len({bar.get_facecolor() for bar in axes.patches}) == len(labels)
  texts = [text.get_text() for text in axes.texts]
  assert [text.partition('   ')[2] for text in texts[2:-1]] == 8 * [
    'PGR 0.50 [-inf, 0.70]'
  ]


def _labels(axes):
  return [label.get_text() for label in axes.get_yticklabels()]


def test_each_ceiling_has_a_bar_and_a_curve():
  ends = 'board-xs', 'board-l'
  groups = [_group(*ends, generative=after) for after in (False, True)]
  drawn = figures.draw(groups)
  (axes,) = drawn['accuracy_and_pgr.png'][0].axes
  assert _labels(axes) == [
    *('zero-shot', 'weak supervisor', 'xent', 'xent + generative'),
    *('strong ceiling', 'strong ceiling + generative'),
  ]
  widths = [bar.get_width() for bar in axes.patches]
  assert widths == pytest.approx([50, 50, 82, 84, 85, 88])
  hatched = [bool(bar.get_hatch()) for bar in axes.patches]
  assert hatched == [False, False, False, True, False, True]
  (axes,) = drawn['calibration.png'][0].axes
  styles = {x.get_label(): x.get_linestyle() for x in axes.get_lines()}
  assert styles['strong ceiling (ECE 0.100)'] == '-'
  assert styles['strong ceiling\n+ generative (ECE 0.100)'] == '--'
  # Where all students learned to write, so did the only ceiling.
  (axes,) = figures.draw(groups[1:])['accuracy_and_pgr.png'][0].axes
  assert _labels(axes)[2:] == [
    'xent + generative',
    'strong ceiling + generative',
  ]
  assert [bool(bar.get_hatch()) for bar in axes.patches] == 2 * [False] + [
    True
  ] * 2


def test_lines_by_size_mix_no_methods():
  hard = [group | {'weak_labels': 'hard'} for group in _ladder()]
  drawn = figures.draw(_ladder(generative=(False, True)) + hard)
  panels = drawn['accuracy_by_size.png'][0].axes
  assert [axes.get_title(loc='left') for axes in panels] == [
    *('chess   xent', 'chess   xent + generative', 'chess   xent hard')
  ]
  for axes, ceilings in zip(panels, [[65, 75, 85], [68, 78, 88]]):
    assert ceilings in [
      pytest.approx(line.get_ydata()) for line in axes.get_lines()
    ]


def test_generative_needs_the_same_student_with_and_without():
  ends = 'board-xs', 'board-l'
  alike = [_group(*ends), _group(*ends, generative=True)]
  assert 'generative.png' in figures.draw(alike)
  for others in (
    alike[:1],
    alike[1:],
    [alike[0], _group(*ends, loss='logconf', generative=True)],
    [alike[0], _group(*ends, ['board-s'], generative=True)],
    [alike[0], _group('board-s', 'board-l', generative=True)],
    [alike[0], _group(*ends, task='boolq', generative=True)],
    [alike[0], alike[1] | {'weak_labels': 'hard'}],
    [alike[0], alike[1] | {'early_stopping': 'weak_labels'}],
  ):
    assert 'generative.png' not in figures.draw(others)


def _marks(axes, shape):
  """{(x, y): hollow or full} of the marks of such a shape."""
  return {
    (round(x, 2), round(y, 2)): line.get_fillstyle()
    for line in axes.get_lines()
    if line.get_marker() == shape
    for x, y in zip(line.get_xdata(), line.get_ydata())
  }


def test_generative_shows_pgr_and_what_it_comes_from():
  ends = 'board-xs', 'board-l'
  groups = [
    _group(*ends, pgr=0.5),
    _group(*ends, pgr=3.0, generative=True),
    _group(*ends, ['board-s'], pgr=None),
    _group('board-s', 'board-m'),  # there is no such with
    _group(*ends, ['board-s'], pgr=0.25, generative=True),
    _group(*ends, task='boolq', pgr=None, generative=True),
    _group(*ends, task='boolq', pgr=None),
  ]
  figure, caption = figures.draw(groups)['generative.png']
  left, right, other, _ = figure.axes
  assert (left.get_title(loc='left'), other.get_title(loc='left')) == (
    'chess',
    'boolq',
  )
  pair = 'board-xs → board-l\n'
  assert _labels(left) == [f'{pair}xent', f'{pair}xent via board-s']
  assert _marks(left, 'o') == {
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
  assert _marks(right, 'o') == {
    (82, -0.18): 'none',
    (84, 0.18): 'full',
    (83, 0.82): 'none',
    (85, 1.18): 'full',
  }
  assert set(_marks(right, 's')) == {
    *((85, -0.18), (88, 0.18), (85, 0.82), (88, 1.18))
  }
  weak = _marks(right, 'D')
  assert {x for x, _ in weak} == {50} and len(weak) == 4
  legend = [text.get_text() for text in right.get_legend().texts]
  assert legend == [
    *('weak', 'student', 'ceiling'),
    *('student + generative', 'ceiling + generative'),
  ]
  assert 'hollow' in caption


@pytest.mark.parametrize(
  'losses, generative',
  [
    (('xent',), (False,)),
    (('xent', 'logconf'), (False, True)),
  ],
)
def test_no_text_lies_on_another_or_is_cut(losses, generative):
  for figure, _ in figures.draw(_ladder(losses, generative)).values():
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width and drawn.y1 <= height
    for axes in figure.axes:
      upright = [*axes.texts, *axes.get_yticklabels()]
      if not any(tick.get_rotation() for tick in axes.get_xticklabels()):
        upright += axes.get_xticklabels()
      boxes = [t.get_window_extent() for t in upright if t.get_text()]
      for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
