"""Figures of a report: aggregated results -> matplotlib figures.

Shapes: K bins, 3 = (confidence, accuracy, count).
"""

import itertools

from matplotlib import figure as mpl_figure
import numpy as np

ROLES = ('weak', 'student', 'ceiling', 'zero_shot')
PANEL = ('task', 'weak_model', 'strong_model')
METHOD = ('via', 'loss', 'weak_labels', 'early_stopping', 'generative')
AGREEMENT = (
  'agreement',
  'agreement_supervisor_right',
  'agreement_supervisor_wrong',
)

# Okabe and Ito's colours, told apart by colour-blind readers too, and two of
# Tol's: students in colour, what they are compared with in grey.
_WEAK, _CEILING, _ZERO_SHOT = '#8f8f8f', '#555555', '#bbbbbb'
_COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00'),
  *('#882255', '#999933'),
)


def pgr_text(group):
  if group['pgr'] is None:
    return 'undefined'
  return '{pgr:.2f} [{pgr_low:.2f}, {pgr_high:.2f}]'.format(**group)


def method(group):
  """How a student was taught: 'xent', or 'xent hard via board-s, board-m'."""
  words = [group['loss']]
  if group['weak_labels'] != 'soft':
    words.append(group['weak_labels'])
  if group['via']:
    words.append(f'via {", ".join(group["via"])}')
  stopped = {
    'weak_labels': 'stopped',
    'ground_truth': 'stopped by truth (cheating)',
  }
  if group['early_stopping'] in stopped:
    words.append(stopped[group['early_stopping']])
  return marked(' '.join(words), group)


def marked(name, group):
  """The name of a student or ceiling, and whether it first learned to write."""
  return f'{name} + generative' if group['generative'] else name


def sizes(groups):
  """{model: number of parameters}, the smallest first."""
  found = {
    group[f'{end}_model']: group[f'{end}_parameters']
    for group in groups
    for end in ('weak', 'strong')
  }
  return dict(sorted(found.items(), key=lambda item: item[1]))


def by(groups, *fields):
  """{values of the fields: groups}, in the order of the groups."""
  result = {}
  for group in groups:
    result.setdefault(tuple(group[f] for f in fields), []).append(group)
  return result


def draw(groups):
  """{file name: (figure, caption)}."""
  naive_first = sorted(groups, key=lambda group: len(group['via']))
  methods = _colours(map(_without_generative, naive_first))
  panels = by(groups, *PANEL)
  figures = {
    'accuracy_and_pgr.png': (
      _plot(panels, _draw_accuracy, methods),
      'Test accuracy, ±1 standard error; beside the students PGR with its 95 % '
      'interval. The axis need not start at 0.',
    )
  }
  if compared := _generative_pairs(groups):
    figures['generative.png'] = (
      _plot_generative(compared),
      'What generative fine-tuning changes, without it (hollow) and with it '
      '(full). Left PGR with its 95 % interval; a long interval leaves the '
      'frame. Right the accuracies it comes from, ±1 standard error: a line '
      'goes from the weak supervisor, the same for both, to the ceiling. PGR '
      'grows where the student moves right or the ceiling moves left.',
    )
  if len(by(groups, 'weak_model', 'strong_model')) > 1:
    figures |= _draw_ladders(groups)
  figures['student_supervisor_agreement.png'] = (
    _plot(panels, _draw_agreement, methods),
    'How often the student predicts what the weak model does. Low bars where '
    'the weak model is wrong: its errors are not imitated.',
  )
  figures['calibration.png'] = (
    _plot(panels, _draw_calibration, methods),
    'Accuracy against confidence, all seeds together, in 15 bins (those with '
    'at least 10 predictions; dots grow with their number). Below the diagonal '
    'the model is overconfident; ECE is the mean distance to it.',
  )
  return figures


def _draw_ladders(groups):
  """As `draw`, of what tells how students grow better with their size."""
  taught = [group | {'taught': method(group | {'via': ()})} for group in groups]
  panels = by(taught, 'task', 'taught')
  supervisors = _colours(group['weak_model'] for group in groups)
  return {
    'accuracy_by_size.png': (
      _plot(panels, _draw_accuracy_by_size, supervisors),
      'Test accuracy against size, ±1 standard error. A colour is a weak '
      'supervisor: dotted its own accuracy, from its own size on; solid its '
      'students, dashed those bootstrapped from it through models in between.',
    ),
    'pgr_by_size.png': (
      _plot(panels, _draw_pgr_by_size, supervisors),
      "PGR against the student's size, with its 95 % interval; lines as in the "
      'figure before. 0 is the supervisor, 1 the ceiling. Students whose PGR '
      'is undefined are left out; a long interval leaves the frame.',
    ),
  }


def _colours(names):
  return dict(zip(dict.fromkeys(names), itertools.cycle(_COLOURS)))


def _plot(panels, draw, colours):
  """One figure with a panel, `draw(axes, groups, colours)`, for each item."""
  columns = min(2, len(panels))  # with more, a page is too small to read them
  rows = -(-len(panels) // columns)
  figure = mpl_figure.Figure((5.6 * columns, 3.9 * rows), layout='constrained')
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
  for i, (names, groups) in enumerate(panels.items(), start=1):
    axes = figure.add_subplot(rows, columns, i)
    axes.spines[['top', 'right']].set_visible(False)
    title = f'{names[0]}   {" → ".join(names[1:])}'
    axes.set_title(title, loc='left', fontsize=10)
    draw(axes, groups, colours)
  legends = [axes.get_legend() for axes in figure.axes]
  tallest = max(_legend_height(legend) for legend in legends)
  figure.set_figheight(rows * max(3.9, tallest + 0.5))
  return figure


def _legend_height(legend):
  """In inches: 0.145 a line, and some space between entries."""
  texts = legend.texts if legend else []
  return sum(0.145 * (text.get_text().count('\n') + 1.4) for text in texts)


def _legend(axes):
  """Beside the panel, where it covers nothing."""
  axes.legend(
    frameon=False, fontsize=8.5, loc='upper left', bbox_to_anchor=(1, 1)
  )


def _on_lines(name):
  """A narrower name."""
  for start in ('via', '+'):
    name = name.replace(f' {start}', f'\n{start}')
  return name.replace(', ', ',\n')


def _without_generative(group):
  """`method`, of students with a colour in common."""
  return method(group | {'generative': False})


def _hatch(group):
  """How bars of generative fine-tuning differ; lines are dashed."""
  if group['generative']:
    return {'hatch': '///', 'edgecolor': 'white', 'linewidth': 0}
  return {}


def _trained(groups, colours):
  """(name, role, colour, group) of one pair's students, then its ceilings."""
  for group in groups:
    colour = colours[_without_generative(group)]
    yield method(group), 'student', colour, group
  for group, *_ in by(groups, 'generative').values():
    yield marked('strong ceiling', group), 'ceiling', _CEILING, group


def _draw_accuracy(axes, groups, colours):
  other = groups[0] | {'generative': False}  # they never learn to write
  bars = [
    ('zero-shot', 'zero_shot', _ZERO_SHOT, other),
    ('weak supervisor', 'weak', _WEAK, other),
    *_trained(groups, colours),
  ]
  ends = [100 / groups[0]['n_classes']]  # chance is shown too
  for y, (_, role, colour, group) in enumerate(bars):
    width = 100 * group[f'{role}_accuracy']
    error = 100 * group[f'{role}_accuracy_se']
    axes.barh(
      y, width, 0.7, xerr=error, color=colour, capsize=3, **_hatch(group)
    )
    pgr = f'   PGR {pgr_text(group)}' if role == 'student' else ''
    axes.annotate(
      f'{width:.1f}{pgr}',
      (width + error, y),
      (5, 0),
      textcoords='offset points',
      va='center',
      fontsize=8.5,
    )
    ends += [width - error, width + error]
  low, high = min(ends), max(ends)
  axes.set_xlim(max(0, low - (high - low) / 10), high + (high - low) / 20)
  axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
  axes.tick_params(axis='y', length=0)
  axes.invert_yaxis()
  axes.set_xlabel('test accuracy (%)')


def _draw_accuracy_by_size(axes, groups, colours):
  by_size = sorted(groups, key=lambda group: group['strong_parameters'])
  strong = {group['strong_parameters']: group for group in by_size}
  for role, colour, marker in (
    ('ceiling', _CEILING, 's'),
    ('zero_shot', _ZERO_SHOT, 'v'),
  ):
    axes.errorbar(
      list(strong),
      [100 * group[f'{role}_accuracy'] for group in strong.values()],
      [100 * group[f'{role}_accuracy_se'] for group in strong.values()],
      color=colour,
      marker=marker,
      capsize=3,
      label=role.replace('_', '-'),
    )
  for (weak,), students in by(groups, 'weak_model').items():
    span = [students[0]['weak_parameters'], max(strong)]
    own = [100 * students[0]['weak_accuracy']] * 2
    axes.plot(span, own, ':', color=colours[weak], marker='D', markevery=[0])

  def interval(group):
    mean, se = group['student_accuracy'], group['student_accuracy_se']
    return 100 * (mean - se), 100 * mean, 100 * (mean + se)

  _draw_students(axes, groups, colours, interval)
  _size_axis(axes, groups)
  axes.set_ylabel('test accuracy (%)')


def _draw_pgr_by_size(axes, groups, colours):
  defined = [group for group in groups if group['pgr'] is not None]
  bottom, top, interval = _pgr_frame(defined)
  for level in (0, 1):
    axes.axhline(level, color=_ZERO_SHOT, linewidth=1, zorder=0)
  if defined:
    _draw_students(axes, defined, colours, interval)
  else:
    axes.set_title('undefined for all', fontsize=8.5, y=0.5)
  _size_axis(axes, groups)
  axes.set_ylim(bottom, top)
  axes.set_ylabel('PGR')


def _pgr_frame(groups):
  """(low, high) of an axis of PGR, and a function for a group's interval."""
  values = [group['pgr'] for group in groups]
  low, high = min([-0.2, *values]) - 0.1, max([1.2, *values]) + 0.1

  def interval(group):
    ends = group['pgr_low'], group['pgr'], group['pgr_high']
    return np.clip(ends, low - 1, high + 1)  # an end may be infinite

  return low, high, interval


def _draw_students(axes, groups, colours, interval):
  """A line for each supervisor; `interval` is (low, value, high) of a group."""
  lines = {}
  for group in groups:
    line = group['weak_model'], bool(group['via'])
    lines.setdefault(line, []).append(group)
  parameters = list(sizes(groups).values())
  reach = parameters[-1] / parameters[0]
  for i, ((weak, bootstrapped), students) in enumerate(lines.items()):
    # Side by side, so that intervals of one size do not hide each other.
    shift = reach ** (0.02 * (i - (len(lines) - 1) / 2))
    x_G = [shift * group['strong_parameters'] for group in students]
    low_G, value_G, high_G = np.transpose([interval(g) for g in students])
    below_G, above_G = value_G - low_G, high_G - value_G
    look = dict(
      color=colours[weak],
      marker='o',
      markerfacecolor='white' if bootstrapped else colours[weak],
    )
    axes.errorbar(
      x_G,
      value_G,
      np.maximum(0, [below_G, above_G]),
      linestyle='none',
      capsize=3,
      **look,
    )
    how = 'bootstrapped\nfrom' if bootstrapped else 'taught by'
    # Of chains between the same two models, the line goes to the longest.
    longest = dict(zip(x_G, value_G))
    axes.plot(
      list(longest),
      list(longest.values()),
      linestyle='--' if bootstrapped else '-',
      label=f'{how} {weak}',
      **look,
    )
  _legend(axes)


def _size_axis(axes, groups):
  """From the smallest to the largest model, with some room at both ends."""
  models = sizes(groups)
  smallest, largest = min(models.values()), max(models.values())
  room = max(largest / smallest, 2) ** 0.08
  axes.set_xscale('log')
  axes.set_xlim(smallest / room, largest * room)
  axes.set_xticks(list(models.values()), models, rotation=30, ha='right')
  axes.minorticks_off()
  axes.set_xlabel('parameters (log scale)')


def _generative_pairs(groups):
  """{task: [(group without generative fine-tuning, the same with it), ...]}."""
  students = {}
  for group in groups:
    name = *(group[field] for field in PANEL), _without_generative(group)
    students.setdefault(name, {})[group['generative']] = group
  pairs = {}
  for (task, *_), found in students.items():
    if len(found) == 2:
      pairs.setdefault(task, []).append((found[False], found[True]))
  return pairs


def _plot_generative(pairs):
  """PGR and beside it the accuracies; a row of axes for each task."""
  heights = [0.62 * len(of_task) + 1.2 for of_task in pairs.values()]
  figure = mpl_figure.Figure((11.2, sum(heights)), layout='constrained')
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
  grid = figure.subplots(
    len(pairs),
    2,
    sharey='row',
    squeeze=False,
    height_ratios=heights,
    width_ratios=(2, 3),
  )
  for (left, right), (task, of_task) in zip(grid, pairs.items()):
    for axes in left, right:
      axes.spines[['top', 'right']].set_visible(False)
      axes.tick_params(axis='y', length=0)
    left.set_title(task, loc='left', fontsize=10)
    names = [
      f'{group["weak_model"]} → {group["strong_model"]}\n{method(group)}'
      for group, _ in of_task
    ]
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    _draw_generative_pgr(left, of_task)
    _draw_generative_accuracy(right, of_task)
  _legend(grid[0][1])
  return figure


def _variants(of_task):
  """(y of students, students, hollow or full), without above with."""
  looks = (-0.18, 'none'), (0.18, 'full')
  for students, (step, fill) in zip(zip(*of_task), looks):
    yield np.arange(len(students)) + step, students, fill


def _draw_generative_pgr(axes, of_task):
  defined = [g for pair in of_task for g in pair if g['pgr'] is not None]
  low, high, interval = _pgr_frame(defined)
  for level in (0, 1):
    axes.axvline(level, color=_ZERO_SHOT, linewidth=1, zorder=0)
  look = dict(fmt='o', color=_COLOURS[0], capsize=3)
  beside = axes.get_yaxis_transform()
  for y_G, students, fill in _variants(of_task):
    for y, group in zip(y_G, students):
      text = pgr_text(group)
      axes.text(1.03, y, text, transform=beside, va='center', fontsize=8.5)
      if group['pgr'] is not None:
        ends = interval(group)
        error = np.maximum(0, np.diff(ends))[:, None]
        axes.errorbar(ends[1], y, xerr=error, fillstyle=fill, **look)
  axes.set_xlim(low, high)
  axes.set_xlabel('PGR')


def _draw_generative_accuracy(axes, of_task):
  for y_G, students, fill in _variants(of_task):
    percent = {
      role: [100 * group[f'{role}_accuracy'] for group in students]
      for role in ROLES
    }
    axes.hlines(
      *(y_G, percent['weak'], percent['ceiling']),
      color=_ZERO_SHOT,
      linewidth=1,
      zorder=0,
    )
    for role, colour, marker in (
      ('weak', _WEAK, 'D'),
      ('student', _COLOURS[0], 'o'),
      ('ceiling', _CEILING, 's'),
    ):
      same = role == 'weak'  # for both variants
      axes.errorbar(
        percent[role],
        y_G,
        xerr=[100 * group[f'{role}_accuracy_se'] for group in students],
        fmt=marker,
        color=colour,
        fillstyle='full' if same else fill,
        capsize=3,
        label=None if same and fill == 'full' else marked(role, students[0]),
      )
  axes.set_xlabel('test accuracy (%)')


def _draw_agreement(axes, groups, colours):
  width = 0.8 / len(groups)
  size = min(8.5, 42 / len(groups))  # so that numbers stay apart
  for i, group in enumerate(groups):
    shares = [100 * (group[name] or 0) for name in AGREEMENT]
    x = np.arange(3) + (i - (len(groups) - 1) / 2) * width
    look = dict(color=colours[_without_generative(group)], **_hatch(group))
    bars = axes.bar(
      x, shares, 0.92 * width, label=_on_lines(method(group)), **look
    )
    axes.bar_label(bars, fmt='%.0f', fontsize=size, padding=2)
  axes.set_xticks(
    range(3), ['all\nexamples', 'weak model\nright', 'weak model\nwrong']
  )
  axes.tick_params(axis='x', length=0)
  axes.set_ylim(0, 105)
  axes.set_ylabel('student agrees with weak model (%)')
  _legend(axes)


def _draw_calibration(axes, groups, colours):
  chance = 1 / groups[0]['n_classes']
  axes.plot([chance, 1], [chance, 1], color='#cccccc', linewidth=1, zorder=0)
  other = groups[0] | {'generative': False}  # it never learns to write
  curves = [('weak supervisor', 'weak', _WEAK, other)]
  curves += _trained(groups, colours)
  for name, role, colour, group in curves:
    curve_3xK = np.stack(group['reliability'][role])
    confidence_K, accuracy_K, count_K = curve_3xK[:, curve_3xK[2] >= 10]
    label = f'{_on_lines(name)} (ECE {group[f"{role}_ece"]:.3f})'
    style = '--' if group['generative'] else '-'
    axes.plot(confidence_K, accuracy_K, style, color=colour, label=label)
    size_K = 8 + 120 * count_K / count_K.sum()
    axes.scatter(confidence_K, accuracy_K, size_K, color=colour)
  axes.set_xlabel('confidence (top probability)')
  axes.set_ylabel('accuracy')
  _legend(axes)
