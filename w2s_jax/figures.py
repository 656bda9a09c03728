"""Figures of a report: aggregated results -> matplotlib figures.

Shapes: K bins, 3 = (confidence, accuracy, count).
"""

import functools
import itertools

from matplotlib import figure as mpl_figure
import numpy as np

PANEL = ('task', 'weak_model', 'strong_model')
AGREEMENT = (
  'agreement',
  'agreement_supervisor_right',
  'agreement_supervisor_wrong',
)

# Okabe and Ito's colours, told apart by colour-blind readers too: students in
# colour, what they are compared with in grey.
_WEAK, _CEILING = '#8f8f8f', '#555555'
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')


def pgr_text(group):
  if group['pgr'] is None:
    return 'undefined'
  return '{pgr:.2f} [{pgr_low:.2f}, {pgr_high:.2f}]'.format(**group)


def losses_of(groups):
  return list(dict.fromkeys(group['loss'] for group in groups))


def by(groups, *fields):
  """{values of the fields: groups}, in the order of the groups."""
  result = {}
  for group in groups:
    result.setdefault(tuple(group[f] for f in fields), []).append(group)
  return result


def draw(groups):
  """{file name: (figure, caption)}."""
  colours = dict(zip(losses_of(groups), itertools.cycle(_COLOURS)))
  panels = by(groups, *PANEL)
  figures = {
    'accuracy_and_pgr.png': (
      _plot(panels, _draw_accuracy, colours),
      'Test accuracy, ±1 standard error; over the students PGR with its 95 % '
      'interval. Dashed: the strong model untrained. The axis does not start '
      'at 0.',
    )
  }
  if len(by(groups, 'weak_model', 'strong_model')) > 1:
    figures['accuracy_by_model.png'] = (
      _plot(by(groups, 'task', 'loss'), _draw_models, colours),
      'Test accuracy of the student, ±1 standard error, for each strong model '
      'and each weak supervisor. Dotted: the supervisor itself.',
    )
  figures['student_supervisor_agreement.png'] = (
    _plot(panels, _draw_agreement, colours),
    'How often the student predicts what its supervisor does. Low bars where '
    'the supervisor is wrong: its errors are not imitated.',
  )
  figures['calibration.png'] = (
    _plot(panels, _draw_calibration, colours),
    'Accuracy against confidence, all seeds together, in 15 bins (those with '
    'at least 10 predictions; dots grow with their number). Below the diagonal '
    'the model is overconfident; ECE is the mean distance to it.',
  )
  return figures


def _plot(panels, draw, colours):
  """One figure with a panel, `draw(axes, groups, colours)`, for each item."""
  columns = min(3, len(panels))
  rows = -(-len(panels) // columns)
  figure = mpl_figure.Figure((5.6 * columns, 3.9 * rows), layout='constrained')
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
  for i, (names, groups) in enumerate(panels.items(), start=1):
    axes = figure.add_subplot(rows, columns, i)
    axes.spines[['top', 'right']].set_visible(False)
    title = f'{names[0]}   {" → ".join(names[1:])}'
    axes.set_title(title, loc='left', fontsize=10)
    draw(axes, groups, colours)
  return figure


def _legend(axes):
  """Beside the panel, where it covers nothing."""
  axes.legend(
    frameon=False, fontsize=8.5, loc='upper left', bbox_to_anchor=(1, 1)
  )


def _draw_accuracy(axes, groups, colours):
  note = functools.partial(
    axes.annotate, textcoords='offset points', ha='center', fontsize=8.5
  )
  bars = [('weak\nsupervisor', 'weak', _WEAK, groups[0])]
  for group in groups:
    loss = group['loss']
    bars.append((f'student\n{loss}', 'student', colours[loss], group))
  bars.append(('strong\nceiling', 'ceiling', _CEILING, groups[0]))
  tops, zero_shot = [], 100 * groups[0]['zero_shot_accuracy']
  for x, (_, role, colour, group) in enumerate(bars):
    height = 100 * group[f'{role}_accuracy']
    error = 100 * group[f'{role}_accuracy_se']
    tops.append(height + error)
    axes.bar(x, height, 0.66, yerr=error, color=colour, capsize=3)
    note(f'{height:.1f}', (x, height - error), (0, -14), color='white')
    if role == 'student':
      pgr = f'PGR {pgr_text(group)}'.replace(' [', '\n[')
      note(pgr, (x, tops[-1]), (0, 4))
  axes.axhline(zero_shot, color='black', linestyle='--', linewidth=1, zorder=0)
  note(
    f'zero-shot\n{zero_shot:.1f}',
    (1, zero_shot),
    (25, -6),
    xycoords=axes.get_yaxis_transform(),
  )
  low = min(100 / groups[0]['n_classes'], zero_shot, *tops)
  space = (max(tops) - low) / 10
  axes.set_ylim(low - space, max(tops) + 2 * space)
  axes.set_xticks(range(len(bars)), [label for label, *_ in bars])
  axes.tick_params(axis='x', length=0)
  axes.set_ylabel('test accuracy (%)')


def _draw_models(axes, groups, colours):
  del colours  # of losses; here a colour is a supervisor
  strong = list(dict.fromkeys(group['strong_model'] for group in groups))
  ceilings = {g['strong_model']: 100 * g['ceiling_accuracy'] for g in groups}
  axes.plot(
    strong, ceilings.values(), color=_CEILING, marker='s', label='ceiling'
  )
  supervisors = by(groups, 'weak_model').items()
  for colour, ((weak,), students) in zip(
    itertools.cycle(_COLOURS), supervisors
  ):
    axes.errorbar(
      [g['strong_model'] for g in students],
      [100 * g['student_accuracy'] for g in students],
      [100 * g['student_accuracy_se'] for g in students],
      color=colour,
      marker='o',
      capsize=3,
      label=f'taught by {weak}',
    )
    own = 100 * students[0]['weak_accuracy']
    axes.axhline(own, color=colour, linestyle=':', linewidth=1.2)
  axes.margins(x=0.12)
  axes.set_xlabel('strong model')
  axes.set_ylabel('test accuracy (%)')
  _legend(axes)


def _draw_agreement(axes, groups, colours):
  width = 0.8 / len(groups)
  for i, group in enumerate(groups):
    shares = [100 * (group[name] or 0) for name in AGREEMENT]
    x = np.arange(3) + (i - (len(groups) - 1) / 2) * width
    loss = group['loss']
    bars = axes.bar(x, shares, 0.92 * width, color=colours[loss], label=loss)
    axes.bar_label(bars, fmt='%.0f', fontsize=8.5, padding=2)
  axes.set_xticks(
    range(3), ['all\nexamples', 'supervisor\nright', 'supervisor\nwrong']
  )
  axes.tick_params(axis='x', length=0)
  axes.set_ylim(0, 105)
  axes.set_ylabel('student agrees with supervisor (%)')
  _legend(axes)


def _draw_calibration(axes, groups, colours):
  chance = 1 / groups[0]['n_classes']
  axes.plot([chance, 1], [chance, 1], color='#cccccc', linewidth=1, zorder=0)
  curves = [('weak', 'weak', _WEAK, groups[0])]
  for group in groups:
    loss = group['loss']
    curves.append((f'student {loss}', 'student', colours[loss], group))
  curves.append(('ceiling', 'ceiling', _CEILING, groups[0]))
  for name, role, colour, group in curves:
    curve_3xK = np.stack(group['reliability'][role])
    confidence_K, accuracy_K, count_K = curve_3xK[:, curve_3xK[2] >= 10]
    label = f'{name}\nECE {group[f"{role}_ece"]:.3f}'
    axes.plot(confidence_K, accuracy_K, color=colour, label=label)
    size_K = 8 + 120 * count_K / count_K.sum()
    axes.scatter(confidence_K, accuracy_K, size_K, color=colour)
  axes.set_xlabel('confidence (top probability)')
  axes.set_ylabel('accuracy')
  _legend(axes)
