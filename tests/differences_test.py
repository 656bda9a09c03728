"""Paired differences between methods of a made-up study."""

import numpy as np
import pytest

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import differences
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import report

import made_up


def aggregate(workdir):
  return report.aggregate(workdir, results.read(workdir))


def test_each_method_is_compared_with_the_plainer_one(tmp_path):
  made_up.make_ladder(tmp_path)
  found = differences.paired(aggregate(tmp_path))
  assert [
    (x['weak_model'][6:], x['strong_model'][6:], x['field'], x['than'])
    for x in found
  ] == [
    ('xs', 'm', 'via', 'naive'),
    ('xs', 'l', 'via', 'naive'),
    ('s', 'l', 'via', 'naive'),
  ]


def test_it_is_over_the_seeds_that_both_have(tmp_path):
  rows = made_up.make(tmp_path, seeds=(0, 1, 2))
  rows = [r for r in rows if (r['loss'], r['seed']) != ('logconf', 1)]
  made_up.write_rows(tmp_path, rows)
  xent, logconf = aggregate(tmp_path)
  (found,) = differences.paired([xent, logconf])
  assert groups_lib.method(found) == 'logconf' and found['than'] == 'xent'
  assert found['n_seeds'] == 2
  assert found['student'] == metrics.paired_difference(
    logconf['correct']['student'], xent['correct']['student'][[0, 2]]
  )
  assert found['ceiling'] is None  # it is the same
  rows = [r for r in rows if r['seed'] == (1 if r['loss'] == 'xent' else 2)]
  made_up.write_rows(tmp_path, rows)
  assert not differences.paired(aggregate(tmp_path))


def test_ceilings_are_compared_where_they_differ(tmp_path):
  made_up.make(tmp_path, losses=('xent',), generative=(False, True))
  (found,) = differences.paired(aggregate(tmp_path))
  assert (found['field'], found['than']) == ('generative', 'without generative')
  assert found['ceiling'] is not None


def test_methods_apart_in_two_fields_are_not_compared(tmp_path):
  rows = made_up.make(tmp_path)
  for row in rows:
    if row['loss'] == 'logconf':
      row['variant'] = 'lr 1e-4'
  made_up.write_rows(tmp_path, rows)
  assert not differences.paired(aggregate(tmp_path))


def test_median_over_tasks(tmp_path):
  tasks = 'boolq', 'cola', 'dream', 'imdb', 'paws', 'piqa'
  made_up.make_tasks(tmp_path, tasks, losses=('xent', 'logconf'))
  of_tasks = differences.paired(aggregate(tmp_path))
  # All tasks have the same made-up answers: tell them apart.
  for i, found in enumerate(of_tasks):
    found['student'] = metrics.Difference(0.01 * i, 0.01 * i - 0.015, 0.1)
  (median,) = differences.over_tasks(of_tasks)
  assert median['n_tasks'] == 6 and median['student'].value == 0.025
  assert median['student'].low < 0.025 < median['student'].high
  assert (median['above'], median['below']) == (4, 0)
  assert not differences.over_tasks(of_tasks[:1])


@pytest.mark.parametrize(
  'difference, text',
  [
    (metrics.Difference(0.014, -0.001, 0.0299), '+1.4 [-0.1, 3.0]'),
    (metrics.Difference(-0.014, None, None), '-1.4'),
    (metrics.Difference(-0.0002, -0.0003, 0.01), '+0.0 [0.0, 1.0]'),
    (None, '–'),
  ],
)
def test_text_is_in_points(difference, text):
  assert differences.text(difference) == text


def test_rows_are_paired_by_id_and_not_by_place(tmp_path):
  made_up.make(tmp_path, seeds=(0,))
  xent, logconf = aggregate(tmp_path)
  logconf = dict(logconf, test_ids=np.char.add(logconf['test_ids'], 'x'))
  assert not differences.paired([xent, logconf])
