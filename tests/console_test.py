"""The tables that end a study on the console."""

import io
import re

import pytest
import rich.console

from w2s_jax import results
from w2s_jax.report import by_field
from w2s_jax.report import console
from w2s_jax.report import differences
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


@pytest.mark.parametrize('width', [80, 100])
def test_paired_differences_follow_the_results(tmp_path, width):
  made_up.make(tmp_path, seeds=(0, 1, 2))
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  shown = made_up.console(groups, width)
  assert max(map(len, shown.splitlines())) <= width
  (found,) = differences.paired(groups)
  text = re.escape(differences.text(found['student']))
  assert re.search(rf'  logconf +xent +{text}', shown)
  assert 'paired by test row and seed' in ' '.join(shown.split())
  assert 'paired' not in made_up.console(groups[:1])


def test_marks_are_explained_and_keep_numbers_in_line(tmp_path):
  made_up.make(
    tmp_path, losses=('xent',), rates=dict(made_up.RATES, zero_shot=0.97)
  )
  shown = made_up.console(report.aggregate(tmp_path, results.read(tmp_path)))
  assert re.search(r'  xent .* ±\d\.\d ↓ ', shown), shown
  assert '↓: more than 2 standard errors below' in ' '.join(shown.split())


def test_many_tasks_have_the_median_difference_only(tmp_path):
  tasks = [f'task-{i:02}' for i in range(13)]
  made_up.make_tasks(tmp_path, ('boolq',), losses=('xent', 'logconf'))
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  shown = made_up.console([g | {'task': t} for t in tasks for g in groups])
  assert 'on 13 tasks' in shown and shown.count('compared with') == 1
  assert len(re.findall('  logconf +xent', shown)) == 1


@pytest.mark.parametrize('width', [80, 100])
def test_a_table_by_a_field(tmp_path, width):
  made_up.make(tmp_path)
  fields = [{'Rating': 1000 + i} for i in range(600)]
  made_up.write_fields(tmp_path, fields)
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  binned = by_field.aggregate(tmp_path, groups, 'Rating')
  stream = io.StringIO()
  out = rich.console.Console(file=stream, width=width)
  out.print(console.by_field('Rating', binned))
  shown = stream.getvalue()
  assert max(map(len, shown.splitlines())) <= width
  assert len(re.findall(r'    1000 to( 1119)? +120 +\d', shown)) == 2


@pytest.mark.parametrize('width', [40, 60, 80, 100])
def test_no_word_is_broken_at_any_width(tmp_path, width):
  made_up.make_tasks(
    tmp_path, ('rotten_tomatoes', 'dream'), losses=('xent', 'logconf')
  )
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  shown = made_up.console(groups, width)
  assert max(map(len, shown.splitlines())) <= width
  whole = made_up.console(groups, 200)
  words = set(shown.split())
  assert '…' not in shown
  for group in groups:
    assert {group['task'], group['weak_model'], group['loss']} <= words
    assert f'{100 * group["student_accuracy"]:.1f}' in words
    assert f'{group["pgr_high"]:.2f}]' in words or group['pgr'] is None
  assert {x for x in whole.split() if x[0] != '─'} <= words | {'method'} | {
    *('weak', '→', 'strong', 'student', 'ceiling')
  }
