"""Figures with a row for each task or student.

Shapes: G groups, T tasks.
"""

from matplotlib import figure as mpl_figure
import numpy as np

from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import panels

_FRAME = -1, 2  # for the PGR of many tasks: some are far out


def gap(group):
  return group['ceiling_accuracy'] - group['weak_accuracy']


def plot_tasks(groups, shown):
  """Plots accuracies and PGR in a row for each task, the widest gap on top.

  The `shown` (weak model, strong model) are side by side, the first one is in
  order.
  """
  groups = sorted(groups, key=lambda group: len(group['via']))
  pairs = {pair: groups_lib.by(groups, *results.PAIR)[pair] for pair in shown}
  ordered = sorted(pairs[shown[0]], key=gap, reverse=True)
  ordered += pairs[shown[-1]]  # may be of more tasks
  tasks = list(dict.fromkeys(group['task'] for group in ordered))
  looks = _looks(groups)
  most = max(
    len(set(map(groups_lib.method, groups))) for groups in pairs.values()
  )
  height = max(0.24, 0.08 * most + 0.12) * len(tasks) + 1.4
  width = 1.6 + 6 * len(pairs)
  figure = mpl_figure.Figure((width, height), layout='constrained')
  grid = figure.subplots(
    1, 2 * len(pairs), sharey=True, width_ratios=[3, 2] * len(pairs)
  )
  for left, right, (pair, students) in zip(
    grid[::2], grid[1::2], pairs.items()
  ):
    left.set_title(' → '.join(pair), loc='left', fontsize=10)
    _draw_task_accuracy(left, students, tasks, looks)
    _draw_task_pgr(right, students, tasks, looks)
  for axes in grid:
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='y', color='#eeeeee')
    axes.set_axisbelow(True)
  grid[0].set_yticks(range(len(tasks)), tasks)
  grid[0].set_ylim(len(tasks) - 0.5, -0.5)
  _legend_above(figure, grid[::2])
  return figure


def _looks(groups):
  """{method: colour and filling}; hollow is without generative fine-tuning."""
  colours = panels.assign_colours(map(panels.without_generative, groups))
  compared = len(groups_lib.by(groups, 'generative')) > 1
  return {
    groups_lib.method(group): dict(
      color=colours[panels.without_generative(group)],
      fillstyle='none' if compared and not group['generative'] else 'full',
    )
    for group in groups
  }


def _legend_above(figure, grid):
  """Adds a legend with each name once."""
  marks = {}
  for axes in grid:
    for mark, name in zip(*axes.get_legend_handles_labels()):
      marks.setdefault(name, mark)
  widest = 0.6 + 0.09 * max(map(len, marks))
  figure.legend(
    *(marks.values(), marks),
    loc='outside upper left',
    ncols=min(len(marks), int(figure.get_figwidth() / widest)),
    frameon=False,
    handletextpad=0.2,
  )


def _rows(groups, tasks):
  """Yields (method, y of its students, students) within a row."""
  methods = {}
  for group in groups:
    methods.setdefault(groups_lib.method(group), []).append(group)
  for i, (name, students) in enumerate(methods.items()):
    step = 0.5 * ((i + 0.5) / len(methods) - 0.5)
    y_G = np.array([tasks.index(group['task']) + step for group in students])
    yield name, y_G, students


def _draw_task_accuracy(axes, groups, tasks, looks):
  """Draws a line from the weak model to the ceiling, and the students."""
  look = dict(linestyle='none', markersize=5)
  ceilings = []
  for variants in groups_lib.by(groups, 'generative').values():
    once = [of_task[0] for of_task in groups_lib.by(variants, 'task').values()]
    y_T = [tasks.index(group['task']) for group in once]
    weak_T, ceiling_T = (
      [100 * group[f'{role}_accuracy'] for group in once]
      for role in ('weak', 'ceiling')
    )
    axes.hlines(y_T, weak_T, ceiling_T, color=panels.ZERO_SHOT, linewidth=2)
    axes.plot(weak_T, y_T, marker='D', color=panels.WEAK, label='weak', **look)
    ceilings.append((ceiling_T, y_T, once[0]))
  for name, y_G, students in _rows(groups, tasks):
    x_G = [100 * group['student_accuracy'] for group in students]
    axes.plot(x_G, y_G, marker='o', label=name, **look, **looks[name])
  for ceiling_T, y_T, group in ceilings:
    same = dict(looks[groups_lib.method(group)], color=panels.CEILING)
    label = groups_lib.marked('ceiling', group)
    axes.plot(ceiling_T, y_T, marker='s', label=label, **look, **same)
  axes.set_xlabel(f'test accuracy (%){panels.start(axes.get_xlim())}')


def _draw_task_pgr(axes, groups, tasks, looks):
  for name, y_G, students in _rows(groups, tasks):
    for y, group in zip(y_G, students):
      if group['pgr'] is not None:
        _draw_pgr(axes, group, y, markersize=5, linewidth=1.2, **looks[name])
  _pgr_axis(axes)


def _draw_pgr(axes, group, y, *, linewidth, color, **look):
  """Draws interval and value; an arrow head marks those beyond the frame."""
  if group['pgr_low'] is not None:
    ends = np.clip([group['pgr_low'], group['pgr_high']], *_FRAME)
    axes.plot(ends, [y, y], color=color, alpha=0.6, linewidth=linewidth)
  _draw_points(axes, [group['pgr']], y, color=color, **look)


def _draw_points(axes, pgr_G, y, **look):
  low, high = _FRAME
  for pgr in pgr_G:
    marker = '<' if pgr < low else '>' if pgr > high else 'o'
    axes.plot(np.clip(pgr, low, high), y, marker, clip_on=False, **look)


def _pgr_axis(axes):
  for level in (0, 1):
    axes.axvline(level, color=panels.ZERO_SHOT, linewidth=1, zorder=0)
  axes.set_xlim(_FRAME)
  axes.set_xlabel('PGR')


def plot_median_pgr(groups, medians):
  """Plots a row for each pair and method: median PGR, then each task's."""
  looks = _looks(sorted(groups, key=lambda group: len(group['via'])))
  figure = mpl_figure.Figure(
    (9, 0.55 * len(medians) + 1.1), layout='constrained'
  )
  axes = figure.add_subplot()
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.tick_params(axis='y', length=0)
  beside = axes.get_yaxis_transform()
  key = *results.PAIR, *results.METHOD
  of_tasks = groups_lib.by(groups, *key)
  for y, median in enumerate(medians):
    look = looks[groups_lib.method(median)]
    if median['pgr'] is not None:
      _draw_pgr(axes, median, y - 0.14, markersize=9, linewidth=3, **look)
      tasks = of_tasks[tuple(median[field] for field in key)]
      pgr_T = [group['pgr'] for group in tasks if group['pgr'] is not None]
      _draw_points(axes, pgr_T, y + 0.16, markersize=5, alpha=0.5, **look)
    counts = f'{median["n_defined"]} of {median["n_tasks"]} tasks'
    text = f'{groups_lib.pgr_text(median)}\n{counts}'
    axes.text(1.05, y, text, transform=beside, va='center', fontsize=8.5)
  names = [
    f'{median["weak_model"]} → {median["strong_model"]}\n'
    f'{groups_lib.method(median)}'
    for median in medians
  ]
  axes.set_yticks(range(len(names)), names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  _pgr_axis(axes)
  return figure


def generative_pairs(groups):
  """{task: [(group without generative fine-tuning, the same with it), ...]}."""
  students = {}
  for group in groups:
    name = (
      *(group[field] for field in results.PANEL),
      panels.without_generative(group),
    )
    students.setdefault(name, {})[group['generative']] = group
  pairs = {}
  for (task, *_), found in students.items():
    if len(found) == 2:
      pairs.setdefault(task, []).append((found[False], found[True]))
  return pairs


def plot_generative(pairs):
  """Plots PGR and the accuracies beside it, a row of axes for each task."""
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
      f'{group["weak_model"]} → {group["strong_model"]}\n'
      f'{groups_lib.method(group)}'
      for group, _ in of_task
    ]
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    _draw_generative_pgr(left, of_task)
    _draw_generative_accuracy(right, of_task)
  panels.legend(grid[0][1])
  return figure


def _variants(of_task):
  """Yields (y of students, students, hollow or full); without comes above."""
  looks = (-0.18, 'none'), (0.18, 'full')
  for students, (step, fill) in zip(zip(*of_task), looks):
    yield np.arange(len(students)) + step, students, fill


def _draw_generative_pgr(axes, of_task):
  defined = [g for pair in of_task for g in pair if g['pgr'] is not None]
  low, high, interval = panels.pgr_frame(defined)
  for level in (0, 1):
    axes.axvline(level, color=panels.ZERO_SHOT, linewidth=1, zorder=0)
  look = dict(fmt='o', color=panels.COLOURS[0], capsize=3)
  beside = axes.get_yaxis_transform()
  for y_G, students, fill in _variants(of_task):
    for y, group in zip(y_G, students):
      text = groups_lib.pgr_text(group)
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
      for role in results.ROLES
    }
    axes.hlines(
      *(y_G, percent['weak'], percent['ceiling']),
      color=panels.ZERO_SHOT,
      linewidth=1,
      zorder=0,
    )
    for role, colour, marker in (
      ('weak', panels.WEAK, 'D'),
      ('student', panels.COLOURS[0], 'o'),
      ('ceiling', panels.CEILING, 's'),
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
        label=None
        if same and fill == 'full'
        else groups_lib.marked(role, students[0]),
      )
  axes.set_xlabel(f'test accuracy (%){panels.start(axes.get_xlim())}')
