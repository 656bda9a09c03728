"""What the panels of figures of made-up results show, read off axes."""

import itertools

from matplotlib.container import ErrorbarContainer
import numpy as np
import pytest

from w2s_jax.report import figures
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import panels

import made_up


def test_accuracy_by_size_has_a_line_for_each_supervisor_and_way():
  figure, _ = figures.draw(made_up.ladder())['accuracy_by_size.png']
  (axes,) = figure.axes
  lines = made_up.lines(axes)
  naive = lines['taught by board-xs']
  assert naive == pytest.approx([62, 72, 82])
  assert lines['taught by board-xs,\nbootstrapped'] == pytest.approx([73, 84])
  assert lines['taught by board-m'] == pytest.approx([82])
  assert 'taught by board-m,\nbootstrapped' not in lines
  styles = {line.get_label(): line for line in axes.get_lines()}
  solid = styles['taught by board-xs']
  dashed = styles['taught by board-xs,\nbootstrapped']
  assert (solid.get_linestyle(), dashed.get_linestyle()) == ('-', '--')
  assert solid.get_color() == dashed.get_color()
  ticks = axes.get_xticklabels()
  assert [tick.get_text() for tick in ticks] == list(made_up.MODELS)
  assert axes.get_xscale() == 'log'
  dotted = [x for x in axes.get_lines() if x.get_linestyle() == ':']
  assert [x.get_xdata()[0] for x in dotted] == list(made_up.MODELS.values())[:3]
  assert [x.get_ydata()[0] for x in dotted] == pytest.approx([50, 60, 70])


def test_methods_of_one_supervisor_are_lines_of_one_panel():
  sizes = ('board-s', ()), ('board-l', ()), ('board-l', ('board-s',))
  naive, *others = [
    [made_up.group('board-xs', strong, via, loss) for strong, via in sizes]
    for loss in ('xent', 'logconf')
  ]
  stopped = [g | {'early_stopping': 'ground_truth'} for g in naive[:2]]
  figure, _ = figures.draw([*stopped, *naive, *others[0]])[
    'accuracy_by_size.png'
  ]
  (axes,) = figure.axes
  assert axes.get_title(loc='left') == 'chess   taught by board-xs'
  lines = {x.get_label(): x for x in axes.get_lines()}
  stopped = 'xent\nstopped by truth (cheating)'
  names = ['xent', 'xent,\nbootstrapped', 'logconf', 'logconf,\nbootstrapped']
  assert set([*names, stopped, 'board-xs']) <= set(lines)
  colour = {name: line.get_color() for name, line in lines.items()}
  assert colour['xent'] == colour['xent,\nbootstrapped']
  assert len({colour[x] for x in ('xent', 'logconf', stopped)}) == 3
  assert colour['board-xs'] == panels.WEAK
  assert colour['xent'] == panels.COLOURS[0]  # stopped ones come after it


def test_methods_of_other_ceilings_have_panels_of_their_own():
  ends = [('board-xs', 'board-s'), ('board-xs', 'board-l')]
  groups = [made_up.group(*pair) for pair in ends]
  groups += [made_up.group(*pair, generative=True) for pair in ends]
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  assert [axes.get_title(loc='left') for axes in figure.axes] == [
    *('chess   xent', 'chess   xent + generative')
  ]


def test_line_of_bootstrapping_goes_to_the_longest_chain():
  ends = 'board-xs', 'board-l'
  groups = [
    made_up.group('board-xs', 'board-m', ['board-s']),
    made_up.group(*ends, ['board-m']),
    made_up.group(*ends, ['board-s', 'board-m']),
  ]
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  line = made_up.lines(figure.axes[0])['xent,\nbootstrapped']
  assert line == pytest.approx([73, 84])
  points = np.concatenate([x.get_ydata() for x in figure.axes[0].get_lines()])
  assert np.isclose(points, 83).any()  # the shorter one is a point


def test_undefined_pgr_is_left_out():
  groups = [
    made_up.group('board-xs', 'board-s', pgr=None),
    made_up.group('board-xs', 'board-m', pgr=0.25),
    made_up.group('board-xs', 'board-l', pgr=3.0),
  ]
  figure, caption = figures.draw(groups)['pgr_by_size.png']
  (axes,) = figure.axes
  assert made_up.lines(axes) == {'xent': pytest.approx([0.25, 3.0])}
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
    made_up.group('board-xs', 'board-xs'),
    made_up.group('board-xs', 'board-xs', ['board-xs']),
    made_up.group('board-m', 'board-m', task='boolq'),
  ]
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  figure.draw_without_rendering()
  assert [len(axes.get_xticks()) for axes in figure.axes] == [1, 1]


def test_models_nearly_as_large_share_a_tick():
  ends = [('board-xs', 'board-s'), ('board-xs', 'board-l')]
  groups = [made_up.group(*pair) for pair in ends]
  groups[0] |= {'strong_parameters': 1.03 * groups[0]['weak_parameters']}
  figure, _ = figures.draw(groups)['accuracy_by_size.png']
  ticks = [x.get_text() for x in figure.axes[0].get_xticklabels()]
  assert ticks == ['board-xs,\nboard-s', 'board-l']


def test_bars_and_curves_have_a_colour_of_their_own():
  ends = 'board-xs', 'board-l'
  ways = (), ('board-s',), ('board-m',), ('board-s', 'board-m')
  groups = [
    made_up.group(*ends, w, x) for w in ways for x in ('xent', 'logconf')
  ]
  drawn = figures.draw(groups)
  axes = drawn['accuracy_and_pgr.png'][0].axes[0]
  labels, numbers = made_up.names_of_bars(axes)
  assert labels == [
    *('zero-shot', 'weak supervisor'),
    *map(groups_lib.method, groups),
    'strong ceiling',
  ]
  assert len({bar.get_facecolor() for bar in axes.patches}) == len(labels)
  assert [text.partition('   ')[2] for text in numbers[2:-1]] == 8 * [
    'PGR 0.50 [-inf, 0.70]'
  ]


def test_each_ceiling_has_a_bar_and_a_curve():
  ends = 'board-xs', 'board-l'
  groups = [made_up.group(*ends, generative=after) for after in (False, True)]
  drawn = figures.draw(groups)
  (axes,) = drawn['accuracy_and_pgr.png'][0].axes
  assert made_up.names_of_bars(axes)[0] == [
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
  # With generative fine-tuning of all students, the only ceiling has it, too.
  (axes,) = figures.draw(groups[1:])['accuracy_and_pgr.png'][0].axes
  assert made_up.names_of_bars(axes)[0][2:] == [
    'xent + generative',
    'strong ceiling + generative',
  ]
  assert [bool(bar.get_hatch()) for bar in axes.patches] == 2 * [False] + [
    True
  ] * 2


def _median_pgr(groups, n_tasks=8):
  figure, _ = figures.draw(made_up.of_tasks(groups, n_tasks))['median_pgr.png']
  figure.draw_without_rendering()
  (axes,) = figure.axes
  return axes


def test_median_pgr_has_a_colour_for_supervisors_and_a_style_for_losses():
  axes = _median_pgr(made_up.ladder(losses=('xent', 'logconf')))
  lines = {x.get_label(): x for x in axes.get_lines()}
  xent, logconf, chains = (
    lines[f'board-xs, {name}']
    for name in ('xent', 'logconf', 'xent, bootstrapped')
  )
  assert (xent.get_linestyle(), logconf.get_linestyle()) == ('-', '--')
  assert chains.get_linestyle() == '-'
  assert xent.get_color() == logconf.get_color() == chains.get_color()
  assert lines['board-s, xent'].get_color() != xent.get_color()
  assert list(xent.get_ydata()) == pytest.approx([0.45] * 3)
  faces = [line.get_markerfacecolor() for line in (xent, chains)]
  assert faces == [xent.get_color(), 'white']
  assert axes.get_xscale() == 'log'


def test_lines_are_named_where_they_end_and_in_this_order():
  ladder = made_up.ladder(losses=('xent', 'logconf'))
  axes = _median_pgr(ladder)
  names = {text.get_text(): text for text in axes.texts}
  assert names.keys() == made_up.lines(axes).keys()
  low, *others = sorted(
    (made_up.box(text) for text in names.values()), key=lambda box: box.y0
  )
  for high in others:
    assert high.y0 > low.y1
    low = high
  lines = {x.get_label(): x for x in axes.get_lines()}
  ends = {name: lines[name].get_ydata()[-1] for name in names}
  heights = {name: text.get_position()[1] for name, text in names.items()}
  for one, other in itertools.permutations(names, 2):
    assert ends[one] <= ends[other] or heights[one] > heights[other]
  assert all(names[x].get_color() == lines[x].get_color() for x in names)
  # With one method its name tells nothing.
  names = [text.get_text() for text in _median_pgr(made_up.ladder()).texts]
  assert 'board-xs' in names and 'board-xs, bootstrapped' in names


def test_median_pgr_of_few_tasks_has_no_interval():
  axes = _median_pgr(made_up.ladder(), n_tasks=3)
  low, high = axes.get_ylim()
  assert np.isfinite([low, high]).all()
  for bars in axes.containers:
    for segment in bars.lines[2][0].get_segments():
      assert np.ptp(segment[:, 1]) == 0


def test_long_names_leave_bars_their_width_and_height():
  ends, loss = ('board-xs', 'board-l'), 'a loss with a long name ' * 8
  drawn = [
    figures.draw([made_up.group(*ends, loss=name)])['accuracy_and_pgr.png'][0]
    for name in ('xent', loss)
  ]
  widths, heights = [], []
  for figure in drawn:
    figure.draw_without_rendering()
    bar = figure.axes[0].patches[2].get_window_extent()
    widths.append(bar.width)
    heights.append(bar.height)
  assert widths[1] > 0.98 * widths[0] and heights[1] > 0.6 * heights[0]
  assert drawn[0].axes[0].get_xlim()[0] == 0


def test_every_bar_has_an_error_bar():
  groups = [made_up.group('board-xs', 'board-l', loss=x) for x in 'ab']
  drawn = figures.draw(groups)
  for name, bars, position in (
    ('accuracy_and_pgr.png', 5, 0),
    ('student_supervisor_agreement.png', 2 * 3, 1),
  ):
    (axes,) = drawn[name][0].axes
    segments = [
      segment
      for container in axes.containers
      if isinstance(container, ErrorbarContainer)
      for segment in container.lines[2][0].get_segments()
    ]
    assert len(segments) == len(axes.patches) == bars
    lengths = [np.ptp(segment[:, position]) for segment in segments]
    assert min(lengths) > 1


def test_axes_that_do_not_start_at_0_say_so_in_bold():
  assert panels.start((0, 90)) == panels.start((-0.2, 1)) == ''
  assert panels.start((54.4, 90)) == r', $\bf{axis\ from\ 54}$'
  drawn = figures.draw(made_up.ladder())
  (axes,) = drawn['accuracy_by_size.png'][0].axes
  assert f'from\\ {axes.get_ylim()[0]:.0f}' in axes.get_ylabel()
