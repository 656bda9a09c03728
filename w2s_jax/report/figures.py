"""Draws the figures of a report from aggregated results."""

from matplotlib import figure as mpl_figure

from w2s_jax import results
from w2s_jax.report import curves
from w2s_jax.report import figures_by_task
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import panels

_LONGEST_MODEL, _LONGEST_VARIANT = 32, 40  # characters of a name


def draw(groups):
  """{file name: (figure, caption)}.

  Where there are too many tasks for a panel each, what is drawn of all of them
  are medians over tasks. Long names are shortened in the middle.
  """
  groups = _with_short_names(groups)
  medians = groups_lib.over_tasks(groups)
  figures = _draw_tasks(groups, medians) if medians else {}
  many, over = groups_lib.many_tasks(groups), ''
  if many:
    groups, over = medians, 'Medians over tasks. '
  naive_first = sorted(groups, key=lambda group: len(group['via']))
  methods = panels.assign_colours(map(panels.without_generative, naive_first))
  pairs = groups_lib.by(groups, *results.PANEL)
  if not many:  # else they are among those of tasks
    figures['accuracy_and_pgr.png'] = (
      _plot(pairs, panels.accuracy, methods),
      'Test accuracy, ±1 standard error; beside the students PGR with its 95 % '
      'interval.',
    )
  measured = [group for group in groups if 'student' in group.get('curves', {})]
  if measured:
    figures['learning_curves.png'] = (
      _plot(groups_lib.by(measured, *results.PANEL), curves.draw, methods),
      'Accuracy over training on test rows, mean over seeds; dotted, agreement '
      'with the supervisor. Where accuracy falls while agreement rises, the '
      'student overfits to weak labels (paper figure 7).',
    )
  if compared := figures_by_task.generative_pairs(groups):
    figures['generative.png'] = (
      figures_by_task.plot_generative(compared),
      f'{over}What generative fine-tuning changes, without it (hollow) and '
      'with it (full). Left PGR with its 95 % interval; a long interval leaves '
      'the frame. Right the accuracies it comes from, ±1 standard error: a '
      'line goes from the weak supervisor, the same for both, to the ceiling. '
      'PGR grows where the student moves right or the ceiling moves left.',
    )
  if len(groups_lib.by(groups, *results.PAIR)) > 1:
    figures |= _draw_ladders(groups, over)
    if many:
      del figures['pgr_by_size.png']  # it is median_pgr.png
  figures['student_supervisor_agreement.png'] = (
    _plot(pairs, panels.agreement, methods),
    f'{over}How often the student predicts what the weak model does, ±1 '
    'standard error. Low bars where the weak model is wrong: its errors are '
    'not imitated.',
  )
  together = 'The predictions on all tasks together. ' if many else ''
  figures['calibration.png'] = (
    _plot(pairs, panels.calibration, methods),
    f'{together}Accuracy against confidence, all seeds together, in 15 bins '
    '(those with at least 10 predictions; dots grow with their number). Below '
    'the diagonal the model is overconfident; ECE is the mean distance to it'
    f'{", here its median over tasks" if many else ""}.',
  )
  return figures


def _draw_tasks(groups, medians):
  """As `draw`: figures over several tasks."""
  median_caption = (
    'Median PGR over those tasks where it is defined, with its 95 % interval '
    'from resampling tasks (of fewer than six there is none)'
  )
  if len(groups_lib.by(medians, 'strong_model')) > 1:
    median_figure = _plot_median_pgr_by_size(medians)
    median_caption += (
      ", against the student's size. A colour is a weak supervisor, a line "
      'style a method; hollow are students bootstrapped from it through models '
      'in between.'
    )
  else:
    median_figure = figures_by_task.plot_median_pgr(groups, medians)
    median_caption += (
      '; below it the PGR of each of them, beyond the frame an arrow head at '
      'its edge.'
    )
  pairs = groups_lib.by(medians, *results.PAIR)
  widest = sorted(pairs, key=lambda pair: -figures_by_task.gap(pairs[pair][0]))[
    :2
  ]
  only = ' The two pairs with the widest median gap.' if len(pairs) > 2 else ''
  return {
    'median_pgr.png': (median_figure, median_caption),
    'tasks.png': (
      figures_by_task.plot_tasks(groups, widest),
      f'Every task, the widest gap between weak and ceiling on top.{only} Left '
      'test accuracy: a line goes from the weak supervisor to the ceiling. '
      'Right PGR, where it is defined, with its 95 % interval; values beyond '
      'the frame are arrow heads at its edge.',
    ),
  }


def _plot_median_pgr_by_size(medians):
  colours = panels.assign_colours(group['weak_model'] for group in medians)
  lines = {
    (group['weak_model'], bool(group['via']), panels.taught_as(group))
    for group in medians
  }
  height = max(4.6, 0.22 * len(lines) + 1)  # each line has its name
  figure = mpl_figure.Figure((9, height), layout='constrained')
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  panels.median_pgr_by_size(axes, medians, colours)
  return figure


def _with_short_names(groups):
  """The groups, with names that leave room for what is drawn."""
  models = [m for g in groups for m in (*map(g.get, results.PAIR), *g['via'])]
  short = _shortened(models, _LONGEST_MODEL)
  variants = _shortened([g['variant'] for g in groups], _LONGEST_VARIANT)
  return [
    group
    | {field: short[group[field]] for field in results.PAIR}
    | {'via': tuple(short[model] for model in group['via'])}
    | {'variant': variants[group['variant']]}
    for group in groups
  ]


def _shortened(names, longest):
  """{name: one of at most this many characters, of no other name}."""
  short, half = {}, longest // 2
  for name in dict.fromkeys(names):
    text = name
    if len(name) > longest:
      text = f'{name[:half]}…{name[1 - half :]}'
    if text in short.values():
      text = f'{name[: half - 1]}…{len(short)}…{name[4 - half :]}'
    short[name] = text
  return short


def _draw_ladders(groups, over):
  """As `draw`: accuracy and PGR against the size of the student."""
  shown = {}
  for of_task in groups_lib.by(groups, 'task').values():
    shown |= _ladder_panels(of_task)
  colours = panels.assign_colours(
    group['line'] for groups in shown.values() for group in groups
  )
  how = (
    'A colour is a method or, where there are several supervisors, one of them;'
    ' dashed are students bootstrapped from it through models in between.'
  )
  return {
    'accuracy_by_size.png': (
      _plot(shown, panels.accuracy_by_size, colours, width=6.4),
      f'{over}Test accuracy against size, ±1 standard error. {how} Dotted is '
      "a supervisor's own accuracy, from its own size on.",
    ),
    'pgr_by_size.png': (
      _plot(shown, panels.pgr_by_size, colours, width=6.4),
      "PGR against the student's size, with its 95 % interval; lines as in the "
      'figure before. 0 is the supervisor, 1 the ceiling. Students whose PGR '
      'is undefined are left out; a long interval leaves the frame.',
    ),
  }


def _ladder_panels(groups):
  """{(task, title): groups}, each group with the name of its `line`.

  Methods share a panel where a student's supervisor and ceiling are the same
  for all of them. Else each has its own, and lines are supervisors.
  """
  # Early stopping comes after what it is compared with.
  groups = sorted(groups, key=lambda group: group['early_stopping'] != 'none')
  fields = 'strong_model', 'weak_model', 'weak_accuracy', 'ceiling_accuracy'
  if len(groups_lib.by(groups, *fields)) == len(
    groups_lib.by(groups, 'strong_model')
  ):
    named = [group | {'line': panels.taught_as(group)} for group in groups]
    title = groups[0]['task'], f'taught by {groups[0]["weak_model"]}'
    return {title: named}
  named = [
    group
    | {
      'line': f'taught by {group["weak_model"]}',
      'method': panels.taught_as(group),
    }
    for group in groups
  ]
  return groups_lib.by(named, 'task', 'method')


def _plot(shown, draw, colours, width=5.6):
  """Returns a figure with a panel, draw(axes, groups, colours), an item."""
  columns = min(2, len(shown))  # with more, a page is too small to read them
  rows = -(-len(shown) // columns)
  figure = mpl_figure.Figure(
    (width * columns, 3.9 * rows), layout='constrained'
  )
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
  inches = []  # that panels ask for
  for i, (names, groups) in enumerate(shown.items(), start=1):
    axes = figure.add_subplot(rows, columns, i)
    axes.spines[['top', 'right']].set_visible(False)
    title = f'{names[0]}   {" → ".join(names[1:])}'
    axes.set_title(title, loc='left', fontsize=10)
    inches.append(draw(axes, groups, colours) or 0)
  legends = [axes.get_legend() for axes in figure.axes]
  tallest = max(_legend_height(legend) for legend in legends)
  figure.set_figheight(rows * max(3.9, tallest + 0.5, *inches))
  return figure


def _legend_height(legend):
  """Estimates the height in inches: 0.145 a line, and space between entries."""
  texts = legend.texts if legend else []
  return sum(0.145 * (text.get_text().count('\n') + 1.4) for text in texts)
