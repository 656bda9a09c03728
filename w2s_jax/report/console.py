"""The tables that end a study on the console, at most 100 columns wide.

Names are text in all of them, whatever rich markup is in them.
"""

from rich import box
from rich import console as rich_console
from rich import padding
from rich import table as rich_table
from rich import text as rich_text

from w2s_jax import results
from w2s_jax.report import controls as controls_lib
from w2s_jax.report import differences as differences_lib
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import readings

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


def _table(first, others, captions):
  table = rich_table.Table(
    box=box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    caption=rich_text.Text('\n'.join(captions)),
  )
  table.add_column(first, overflow='fold')
  for name in others:
    table.add_column(name, justify='right', no_wrap=True)
  return table


def _add_rows(table, groups, cells):
  """Adds a row for each group, under its task and pair of models."""
  for (task,), of_task in groups_lib.by(groups, 'task').items():
    table.add_row(rich_text.Text(task))
    for students in groups_lib.by(of_task, *results.PANEL).values():
      table.add_row(rich_text.Text(groups_lib.pair(students[0])))
      for group in students:
        table.add_row(_indented(groups_lib.method(group), 2), *cells(group))
      table.add_section()


def _indented(text, columns):
  return padding.Padding(rich_text.Text(text), (0, 0, 0, columns))


def by_field(field, binned) -> rich_table.Table:
  """Returns the table of the groups of by_field.aggregate."""
  captions = ['test rows with these values of the field alone']
  captions += readings.legend(binned)
  first = f'weak → strong\n  method\n    {field}'
  names = [name for name in _RESULTS if name != 'zero-shot']  # no room for it
  table = _table(first, ('rows', *names), captions)
  cells = _cells_of_results(binned)
  key = *results.PANEL, *results.METHOD
  for bins in groups_lib.by(binned, *key).values():
    task, pair = bins[0]['task'], groups_lib.pair(bins[0])
    table.add_row(rich_text.Text(f'{task}\n{pair}'))
    table.add_row(_indented(groups_lib.method(bins[0]), 2))
    for group in bins:
      name = _indented(group['bin'], 4)
      *accuracies, _, pgr = cells(group)
      table.add_row(name, f'{group["n_test"]:,}', *accuracies, pgr)
    table.add_section()
  return table


def _results(groups):
  medians = groups_lib.over_tasks(groups)
  every = [*groups, *medians]
  captions = ['accuracy in % ± standard error; PGR with its 95 % interval']
  if medians:
    captions.append('over tasks: medians, of PGR where it is defined')
  captions += readings.legend(every) + readings.rows_truncated(groups)
  table = _table('weak → strong\n  method', _RESULTS, captions)
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
  table = _table('weak → strong\n  method', names, captions)
  table.columns[1].justify = 'left'

  def cells(difference):
    text = differences_lib.text(difference['student'])
    if 'n_tasks' in difference:
      text += f'\non {difference["n_tasks"]} tasks'
    return rich_text.Text(difference['than']), text

  _add_rows(table, differences, cells)
  return table


def _controls(controls):
  captions = ['controls: student accuracy minus what it is compared with']
  captions += controls_lib.sentences(controls)
  names = 'compared with', 'difference', 'expected'
  table = _table('weak → strong\n  method', names, captions)
  table.columns[1].justify = 'left'

  def cells(control):
    verdict = '' if control['holds'] else ': NOT SO'
    return (
      rich_text.Text(control['than']),
      differences_lib.text(control['difference']),
      control['expected'] + verdict,
    )

  _add_rows(table, controls, cells)
  return table
