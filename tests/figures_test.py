"""Which figures of made-up results there are, and their layout."""

import itertools

import pytest

from w2s_jax.report import figures

import made_up


def test_one_pair_needs_no_figure_of_sizes():
  drawn = figures.draw([made_up.group('board-xs', 'board-l')])
  assert not [name for name in drawn if 'by_size' in name]
  drawn = figures.draw(made_up.ladder())
  assert len([name for name in drawn if 'by_size' in name]) == 2


def test_panels_for_each_pair_and_for_each_loss():
  drawn = figures.draw(made_up.ladder(losses=('xent', 'logconf')))
  titles = {
    name: [axes.get_title(loc='left') for axes in figure.axes]
    for name, (figure, _) in drawn.items()
  }
  assert titles['accuracy_by_size.png'] == ['chess   xent', 'chess   logconf']
  assert titles['pgr_by_size.png'] == titles['accuracy_by_size.png']
  for name in ('accuracy_and_pgr.png', 'calibration.png'):
    assert len(titles[name]) == 6
    assert titles[name][0] == 'chess   board-xs → board-s'


def test_lines_by_size_mix_no_methods():
  hard = [group | {'weak_labels': 'hard'} for group in made_up.ladder()]
  drawn = figures.draw(made_up.ladder(generative=(False, True)) + hard)
  panels = drawn['accuracy_by_size.png'][0].axes
  assert [axes.get_title(loc='left') for axes in panels] == [
    *('chess   xent', 'chess   xent + generative', 'chess   xent hard')
  ]
  for axes, ceilings in zip(panels, [[65, 75, 85], [68, 78, 88]]):
    assert ceilings in [
      pytest.approx(line.get_ydata()) for line in axes.get_lines()
    ]


def test_few_tasks_have_their_panels_and_many_are_together():
  pair = made_up.ladder(losses=('xent', 'logconf'))[:2]
  few = figures.draw(made_up.of_tasks(pair, 4))
  many = figures.draw(made_up.of_tasks(pair, 40))
  assert list(few) == [
    *('median_pgr.png', 'tasks.png', 'accuracy_and_pgr.png'),
    *('student_supervisor_agreement.png', 'calibration.png'),
  ]
  assert list(many) == [name for name in few if name != 'accuracy_and_pgr.png']
  for name in ('student_supervisor_agreement.png', 'calibration.png'):
    assert len(few[name][0].axes) == 4
    (axes,) = many[name][0].axes
    assert axes.get_title(loc='left') == 'over tasks   board-xs → board-s'
  assert 'Medians over tasks' in many['student_supervisor_agreement.png'][1]
  assert 'on all tasks together' in many['calibration.png'][1]


def test_sizes_and_generative_of_many_tasks_are_of_medians():
  ladder = made_up.ladder(generative=(False, True))
  drawn = figures.draw(made_up.of_tasks(ladder, 40))
  assert 'pgr_by_size.png' not in drawn  # it is median_pgr.png
  titles = [
    axes.get_title(loc='left') for axes in drawn['generative.png'][0].axes
  ]
  assert titles == ['over tasks', '']
  figure, caption = drawn['accuracy_by_size.png']
  assert len(figure.axes) == 2 and caption.startswith('Medians over tasks')
  for figure, _ in drawn.values():
    assert max(figure.get_size_inches()) < 30


LADDER = made_up.ladder(('xent', 'logconf'), (False, True))


@pytest.mark.parametrize(
  'groups',
  [
    made_up.ladder(),
    LADDER,
    made_up.of_tasks(LADDER[:4], 40, undefined=5),
    made_up.of_tasks(LADDER, 3),
  ],
  ids=('ladder', 'methods', 'tasks', 'ladder-of-tasks'),
)
def test_no_text_lies_on_another_or_is_cut(groups):
  for figure, _ in figures.draw(groups).values():
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width and drawn.y1 <= height
    for axes in figure.axes:
      upright = [*axes.texts, *axes.get_yticklabels()]
      if not any(tick.get_rotation() for tick in axes.get_xticklabels()):
        upright += axes.get_xticklabels()
      boxes = [made_up.box(text) for text in upright if text.get_text()]
      for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.filterwarnings('error')
def test_long_names_leave_room_for_the_panels():
  names = {x: f'EleutherAI/{x}-{"x" * 240}{x}' for x in made_up.MODELS}
  groups = [
    group
    | {field: names[group[field]] for field in ('weak_model', 'strong_model')}
    | {'via': tuple(map(names.get, group['via'])), 'variant': 'y' * 200}
    for group in made_up.ladder()[1:5]
  ]
  for figure, _ in figures.draw(groups).values():
    figure.draw_without_rendering()  # warns where axes have no room


def test_shortened_names_stay_apart():
  names = ['short', *(f'{"a" * 50}{i}{"z" * 50}' for i in range(3))]
  short = figures._shortened(names, 32)
  assert short['short'] == 'short' and len(set(short.values())) == 4
  assert max(map(len, short.values())) <= 32
