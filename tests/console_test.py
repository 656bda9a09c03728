"""The tables that end a study on the console."""

import re

from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import report

import made_up


def test_console_table_fits_into_100_columns(tmp_path):
  made_up.make(tmp_path)
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  shown = made_up.console(groups)
  lines = shown.splitlines()
  assert max(map(len, lines)) <= 100
  assert 'minilm-l1 → minilm-l6' in shown and 'logconf' in shown
  for group in groups:
    pgr = (
      f'{group["pgr"]:.2f} [{group["pgr_low"]:.2f}, {group["pgr_high"]:.2f}]'
    )
    assert f'{100 * group["student_accuracy"]:.1f} ±' in shown and pgr in shown


def test_console_table_of_a_ladder_fits_and_folds_no_name(tmp_path):
  made_up.make_ladder(tmp_path)
  shown = made_up.console(report.aggregate(tmp_path, results.read(tmp_path)))
  assert max(map(len, shown.splitlines())) <= 100
  assert re.search(r'  xent via board-s, board-m +\d+\.\d ±.*\]', shown)
  assert shown.index('board-xs → board-s') < shown.index('board-xs → board-m')


def test_console_table_ends_with_a_line_over_tasks_for_each_method(tmp_path):
  tasks = 'boolq', 'cola', 'dream'
  losses = 'xent', 'logconf'
  made_up.make_tasks(tmp_path, tasks, undefined=('cola',), losses=losses)
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  shown = made_up.console(groups)
  assert max(map(len, shown.splitlines())) <= 100
  end = shown[shown.index('over tasks') :]
  for median in groups_lib.over_tasks(groups):
    accuracy = f'{100 * median["student_accuracy"]:.1f} ±'
    assert re.search(rf'  {median["loss"]} .* {accuracy}', end)
    assert f'{median["pgr"]:.2f}\n' in re.sub(' *\n', '\n', end)
  assert end.count('on 2 of 3 tasks') == 2
  assert 'medians, of PGR where it is defined' in end
  one_task = [group for group in groups if group['task'] == 'cola']
  assert 'over tasks' not in made_up.console(one_task)
