"""Draws single panels of the figures.

Shapes: K bins, 3 = (confidence, accuracy, count), G groups.
"""

import itertools
import textwrap

import numpy as np
from scipy import optimize

from w2s_jax import results
from w2s_jax.report import groups as groups_lib

# Okabe and Ito's colours, told apart by colour-blind readers too, and six of
# Tol's: students in colour, what they are compared with in grey.
WEAK, CEILING, ZERO_SHOT = '#8f8f8f', '#555555', '#bbbbbb'
COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00'),
  *('#882255', '#999933', '#332288', '#DDCC77', '#44AA99', '#661100'),
)

_NAME_INCHES, _BAR_INCHES = 0.15, 0.17  # of a line of text and of a bar
_LONGEST_NAME = 40  # characters of a line
_WORDS = {'break_long_words': False, 'break_on_hyphens': False}


def assign_colours(names):
  return dict(zip(dict.fromkeys(names), itertools.cycle(COLOURS)))


def legend(axes):
  """Puts the legend beside the panel, where it covers nothing."""
  axes.legend(
    frameon=False, fontsize=8.5, loc='upper left', bbox_to_anchor=(1, 1)
  )


def start(limits, digits=0):
  """What a label says, in bold, of an axis that does not start at 0."""
  low = f'{limits[0]:.{digits}f}'
  return '' if float(low) <= 0 else f', $\\bf{{axis\\ from\\ {low}}}$'


def _on_lines(name):
  """Breaks a name into lines."""
  for start in ('via', 'stopped', '+'):
    name = name.replace(f' {start}', f'\n{start}')
  lines = name.replace(', ', ',\n').splitlines()
  return '\n'.join(textwrap.fill(x, _LONGEST_NAME, **_WORDS) for x in lines)


def without_generative(group):
  """`method` without the generative mark: it shares its colour."""
  return groups_lib.method(group | {'generative': False})


def _hatch(group):
  """How bars of generative fine-tuning differ; lines are dashed."""
  if group['generative']:
    return {'hatch': '///', 'edgecolor': 'white', 'linewidth': 0}
  return {}


def _trained(groups, colours):
  """Yields (name, role, colour, group) of a pair's students, then ceilings."""
  for group in groups:
    colour = colours[without_generative(group)]
    yield groups_lib.method(group), 'student', colour, group
  for group, *_ in groups_lib.by(groups, 'generative').values():
    yield groups_lib.marked('strong ceiling', group), 'ceiling', CEILING, group


def accuracy(axes, groups, colours):
  """Draws bars from 0 on, each below its name; returns the inches it needs."""
  other = groups[0] | {'generative': False}  # without fine-tuning of any kind
  bars = [
    ('zero-shot', 'zero_shot', ZERO_SHOT, other),
    ('weak supervisor', 'weak', WEAK, other),
    *_trained(groups, colours),
  ]
  y, end = 0.0, 0.0
  for name, role, colour, group in bars:
    lines = textwrap.wrap(name, _LONGEST_NAME)
    y += len(lines) * _NAME_INCHES + _BAR_INCHES
    width = 100 * group[f'{role}_accuracy']
    error = 100 * group[f'{role}_accuracy_se']
    look = dict(color=colour, capsize=3, **_hatch(group))
    axes.barh(y, width, _BAR_INCHES, xerr=error, **look)
    pgr = f'   PGR {groups_lib.pgr_text(group)}' if role == 'student' else ''
    place = dict(xycoords=axes.get_yaxis_transform(), fontsize=8.5, va='bottom')
    above = dict(textcoords='offset points', **place)
    top = y - _BAR_INCHES / 2
    axes.annotate('\n'.join(lines), (0, top), (3, 2), **above)
    axes.annotate(f'{width:.1f}{pgr}', (1, top), (0, 2), ha='right', **above)
    end = max(end, width + error)
    y += _BAR_INCHES / 2
  axes.set_xlim(0, 1.02 * end)
  axes.set_ylim(y + _BAR_INCHES / 2, 0)
  axes.set_yticks([])
  axes.set_xlabel('test accuracy (%)')
  return y + 1.1  # with title and axis


def accuracy_by_size(axes, groups, colours):
  """Draws a colour for each `line` of the groups, see figures.py."""
  by_size = sorted(groups, key=lambda group: group['strong_parameters'])
  strong = {group['strong_parameters']: group for group in by_size}
  for role, colour, marker in (
    ('ceiling', CEILING, 's'),
    ('zero_shot', ZERO_SHOT, 'v'),
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
  for (weak,), taught in groups_lib.by(groups, 'weak_model').items():
    span = [taught[0]['weak_parameters'], max(strong)]
    own = [100 * taught[0]['weak_accuracy']] * 2
    look = {'color': colours[taught[0]['line']]}
    if len(groups_lib.by(taught, 'line')) > 1:  # colours are methods
      look = {'color': WEAK, 'label': weak}
    axes.plot(span, own, ':', marker='D', markevery=[0], **look)

  def interval(group):
    mean, se = group['student_accuracy'], group['student_accuracy_se']
    return 100 * (mean - se), 100 * mean, 100 * (mean + se)

  _draw_lines(axes, _by_line(groups, colours), interval)
  legend(axes)
  _size_axis(axes, groups)
  axes.set_ylabel(f'test accuracy (%){start(axes.get_ylim())}')


def pgr_by_size(axes, groups, colours):
  defined = [group for group in groups if group['pgr'] is not None]
  low, high, interval = pgr_frame(defined)
  if defined:
    _draw_lines(axes, _by_line(defined, colours), interval)
    legend(axes)
  _pgr_axis(axes, groups, low, high)


def _by_line(groups, colours):
  """Lines for `_draw_lines`: naive students solid, bootstrapped ones dashed."""
  lines = {}
  for group in groups:
    name, style, fill = group['line'], '-', 'full'
    if group['via']:
      name, style, fill = f'{name},\nbootstrapped', '--', 'none'
    line = _on_lines(name), colours[group['line']], style, fill
    lines.setdefault(line, []).append(group)
  return lines


def median_pgr_by_size(axes, groups, colours):
  """A colour for each supervisor, a line style for each method."""
  names = dict.fromkeys(map(taught_as, groups))
  styles = dict(zip(names, itertools.cycle(('-', '--', ':', '-.'))))
  lines = {}
  defined = [group for group in groups if group['pgr'] is not None]
  for group in defined:
    weak, taught = group['weak_model'], taught_as(group)
    words = [weak, *([taught] if len(names) > 1 else [])]
    words += ['bootstrapped'] if group['via'] else []
    fill = 'none' if group['via'] else 'full'
    line = ', '.join(words), colours[weak], styles[taught], fill
    lines.setdefault(line, []).append(group)
  low, high, interval = pgr_frame(defined)
  if defined:
    _draw_lines(axes, lines, interval)
  _pgr_axis(axes, groups, low, high)
  _label_ends(axes)


def taught_as(group):
  """`method` without the models in between: they share a line style."""
  return groups_lib.method(group | {'via': ()})


def _pgr_axis(axes, groups, low, high):
  for level in (0, 1):
    axes.axhline(level, color=ZERO_SHOT, linewidth=1, zorder=0)
  if all(group['pgr'] is None for group in groups):
    axes.set_title('undefined for all', fontsize=8.5, y=0.5)
  _size_axis(axes, groups)
  axes.set_ylim(low, high)
  axes.set_ylabel('PGR')


def pgr_frame(groups):
  """(low, high) of an axis of PGR, and a function for a group's interval."""
  values = [group['pgr'] for group in groups]
  low, high = min([-0.2, *values]) - 0.1, max([1.2, *values]) + 0.1

  def interval(group):
    value = group['pgr']
    ends = group['pgr_low'], value, group['pgr_high']
    ends = [value if end is None else end for end in ends]
    return np.clip(ends, low - 1, high + 1)  # an end may be infinite

  return low, high, interval


def _draw_lines(axes, lines, interval):
  """Draws {(label, colour, style, fill): groups} with intervals."""
  every = itertools.chain.from_iterable(lines.values())
  parameters = list(groups_lib.sizes(every).values())
  reach = parameters[-1] / parameters[0]
  step = min(0.02, 0.12 / len(lines))
  for i, ((label, colour, style, fill), students) in enumerate(lines.items()):
    # Side by side, so that intervals of one size do not hide each other.
    shift = reach ** (step * (i - (len(lines) - 1) / 2))
    x_G = [shift * group['strong_parameters'] for group in students]
    low_G, value_G, high_G = np.transpose([interval(g) for g in students])
    error_2xG = np.maximum(0, [value_G - low_G, high_G - value_G])
    face = 'white' if fill == 'none' else colour
    look = dict(color=colour, marker='o', markerfacecolor=face)
    axes.errorbar(x_G, value_G, error_2xG, linestyle='none', capsize=3, **look)
    # Of chains between the same two models, the line goes to the longest.
    longest = dict(zip(x_G, value_G))
    axes.plot(
      list(longest),
      list(longest.values()),
      linestyle=style,
      label=label,
      **look,
    )


def _label_ends(axes):
  """Labels lines at their ends, at least a line of text apart."""
  apart = 14 / (0.7 * 72 * axes.figure.get_figheight())
  low, high = axes.get_ylim()
  lines = [x for x in axes.get_lines() if not x.get_label().startswith('_')]
  lines.sort(key=lambda line: line.get_ydata()[-1])
  y_G = np.array([(x.get_ydata()[-1] - low) / (high - low) for x in lines])
  steps_G = apart * np.arange(len(lines))
  if lines:
    y_G = optimize.isotonic_regression(y_G - steps_G).x + steps_G
  for y, line in zip(y_G, lines):
    axes.annotate(
      line.get_label(),
      (line.get_xdata()[-1], line.get_ydata()[-1]),
      (1.04, y),
      textcoords='axes fraction',
      va='center',
      fontsize=8.5,
      color=line.get_color(),
      arrowprops=dict(
        arrowstyle='-',
        color=line.get_color(),
        alpha=0.4,
        linewidth=0.7,
        relpos=(0, 0.5),
      ),
    )


def _size_axis(axes, groups):
  """Scales the size axis from the smallest to the largest model."""
  models = groups_lib.sizes(groups)
  smallest, largest = min(models.values()), max(models.values())
  room = max(largest / smallest, 2) ** 0.08
  names = {}
  for model, size in models.items():
    near = [x for x in names if size <= x * room**0.5]
    # Names of models nearly as large would lie on each other.
    names.setdefault(near[-1] if near else size, []).append(model)
  axes.set_xscale('log')
  axes.set_xlim(smallest / room, largest * room)
  axes.set_xticks(
    list(names), map(',\n'.join, names.values()), rotation=30, ha='right'
  )
  axes.minorticks_off()
  axes.set_xlabel('parameters (log scale)')


def agreement(axes, groups, colours):
  width = 0.8 / len(groups)
  # So that numbers of neighbours stay apart.
  number = dict(fontsize=8.5, padding=2)
  if len(groups) > 4:
    number = dict(fontsize=7.5, padding=4, rotation=90)
  for i, group in enumerate(groups):
    shares = [100 * (group[name] or 0) for name in results.AGREEMENT]
    x = np.arange(3) + (i - (len(groups) - 1) / 2) * width
    look = dict(color=colours[without_generative(group)], **_hatch(group))
    errors = [100 * (group[f'{name}_se'] or 0) for name in results.AGREEMENT]
    label = _on_lines(groups_lib.method(group))
    whiskers = dict(yerr=errors, error_kw={'elinewidth': 1}, capsize=2)
    bars = axes.bar(x, shares, 0.92 * width, label=label, **whiskers, **look)
    axes.bar_label(bars, fmt='%.0f', **number)
  axes.set_xticks(
    range(3), ['all\nexamples', 'weak model\nright', 'weak model\nwrong']
  )
  axes.tick_params(axis='x', length=0)
  axes.set_ylim(0, 112)
  axes.set_yticks(range(0, 101, 20))
  axes.set_ylabel('student agrees with weak model (%)')
  legend(axes)


def calibration(axes, groups, colours):
  chance = 1 / groups[0]['n_classes']
  axes.plot([chance, 1], [chance, 1], color='#cccccc', linewidth=1, zorder=0)
  other = groups[0] | {'generative': False}  # without fine-tuning of any kind
  curves = [('weak supervisor', 'weak', WEAK, other)]
  curves += _trained(groups, colours)
  for name, role, colour, group in curves:
    curve_3xK = np.stack(group['reliability'][role])
    confidence_K, accuracy_K, count_K = curve_3xK[:, curve_3xK[2] >= 10]
    label = f'{_on_lines(name)} (ECE {group[f"{role}_ece"]:.3f})'
    style = '--' if group['generative'] else '-'
    axes.plot(confidence_K, accuracy_K, style, color=colour, label=label)
    size_K = 8 + 120 * count_K / count_K.sum()
    axes.scatter(confidence_K, accuracy_K, size_K, color=colour)
  for name, limits, label in (
    ('x', axes.get_xlim(), 'confidence (top probability)'),
    ('y', axes.get_ylim(), 'accuracy'),
  ):
    axes.set(**{f'{name}label': f'{label}{start(limits, digits=2)}'})
  legend(axes)
