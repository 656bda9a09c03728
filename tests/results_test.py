"""What rows of results.jsonl tell of a stage."""

import pytest

from w2s_jax import errors
from w2s_jax import results

import made_up


def test_the_task_of_a_stage(tmp_path):
  assert results.task_of(tmp_path, 'weak') is None  # there are no results
  rows = made_up.make_tasks(tmp_path, ['sst2', 'cola'])
  for row in rows:
    for stage in row['stages'].values():
      assert results.task_of(tmp_path, stage) == row['task']
  assert results.task_of(tmp_path, 'features') is None  # of either task
  made_up.write_rows(tmp_path, rows[:1])
  assert results.task_of(tmp_path, 'features') == 'sst2'


def test_a_stage_of_damaged_results_has_no_task(tmp_path):
  (tmp_path / 'results.jsonl').write_text('{')
  with pytest.raises(errors.UserError, match='line 1: not JSON'):
    results.task_of(tmp_path, 'weak')


def test_a_student_that_is_stopped_comes_after_the_same_that_is_not(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent', 'b', 'c'), seeds=(0,))
  for row, stopped in zip(rows, ('none', 'ground_truth', 'weak_labels')):
    row |= {'loss': 'xent', 'early_stopping': stopped}
  made_up.write_rows(tmp_path, rows[::-1])
  order = [row['early_stopping'] for row in results.read(tmp_path)]
  assert order == ['none', 'ground_truth', 'weak_labels']
