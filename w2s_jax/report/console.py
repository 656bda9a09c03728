"""The tables that end a study on the console."""

from rich import console as rich_console

from w2s_jax import results
from w2s_jax.report import console_table
from w2s_jax.report import controls as controls_lib
from w2s_jax.report import differences as differences_lib
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import readings

_FIRST = 'weak → strong\n  method'
_RESULTS = 'weak', 'student', 'ceiling', 'zero-shot', 'PGR'


def tables(groups) -> rich_console.Group:
  """Returns accuracies and PGR, paired differences and controls, if any."""
  controls = controls_lib.read(groups)
  groups, _ = controls_lib.split(groups)
  shown = [_results(groups)]
  differences = differences_lib.paired(groups)
  medians = differences_lib.over_tasks(differences)
  if groups_lib.many_tasks(groups):
    differences = []  # they are in the report
  if differences or medians:
    shown.append(_differences([*differences, *medians]))
  if controls:
    shown.append(_controls(controls))
  return rich_console.Group(*shown)


def _add_rows(table, groups, cells):
  """Adds a row for each group, under its task and pair of models."""
  for (task,), of_task in groups_lib.by(groups, 'task').items():
    table.add(task)
    for students in groups_lib.by(of_task, *results.PANEL).values():
      table.add(groups_lib.pair(students[0]))
      for group in students:
        table.add(groups_lib.method(group), cells(group), indent=2)
      table.end_section()


def by_field(field, binned) -> console_table.Table:
  """Returns the table of the groups of by_field.aggregate."""
  captions = ['test rows with these values of the field alone']
  captions += readings.legend(binned)
  first = f'weak → strong\n  method\n    {field}'
  names = [name for name in _RESULTS if name != 'zero-shot']  # no room for it
  table = console_table.Table(first, ('rows', *names), captions)
  cells = _cells_of_results(binned)
  key = *results.PANEL, *results.METHOD
  for bins in groups_lib.by(binned, *key).values():
    task, pair = bins[0]['task'], groups_lib.pair(bins[0])
    table.add(task)
    table.add(pair)
    table.add(groups_lib.method(bins[0]), indent=2)
    for group in bins:
      *accuracies, _, pgr = cells(group)
      row = f'{group["n_test"]:,}', *accuracies, pgr
      table.add(group['bin'], row, indent=4)
    table.end_section()
  return table


def _results(groups):
  medians = groups_lib.over_tasks(groups)
  every = [*groups, *medians]
  captions = ['accuracy in % ± standard error; PGR with its 95 % interval']
  if medians:
    captions.append('over tasks: medians, of PGR where it is defined')
  captions += readings.legend(every) + readings.rows_truncated(groups)
  table = console_table.Table(_FIRST, _RESULTS, captions)
  _add_rows(table, every, _cells_of_results(every))
  return table


def _cells_of_results(groups):
  """group -> cells of _RESULTS, their numbers in line whether marked or not."""
  marked = bool(groups_lib.marks(groups))

  def cells(group):
    accuracies = groups_lib.accuracies(group)
    for i, role in enumerate(results.ROLES):
      plain = accuracies[i][-1].isdigit()
      if marked and role in groups_lib.GAINING and plain:
        accuracies[i] += '  '
    pgr = groups_lib.pgr_text(group)
    if 'n_defined' in group:
      pgr += f'\non {group["n_defined"]} of {group["n_tasks"]} tasks'
    return *accuracies, pgr

  return cells


def _differences(differences):
  captions = [
    'student accuracy in points, paired by test row and seed, with a 95 % '
    'interval over both'
  ]
  if any('n_tasks' in difference for difference in differences):
    captions.append('over tasks: median, with an interval over tasks')
  names = 'compared with', 'difference'
  table = console_table.Table(_FIRST, names, captions, left=names[:1])

  def cells(difference):
    text = differences_lib.text(difference['student'])
    if 'n_tasks' in difference:
      text += f'\non {difference["n_tasks"]} tasks'
    return difference['than'], text

  _add_rows(table, differences, cells)
  return table


def _controls(controls):
  captions = ['controls: student accuracy minus what it is compared with']
  captions += controls_lib.sentences(controls)
  names = 'compared with', 'difference', 'expected'
  table = console_table.Table(_FIRST, names, captions, left=names[:1])

  def cells(control):
    verdict = '' if control['holds'] else ': NOT SO'
    return (
      control['than'],
      differences_lib.text(control['difference']),
      control['expected'] + verdict,
    )

  _add_rows(table, controls, cells)
  return table
