"""How groups of results are called and put together over tasks."""

import numpy as np
import pytest

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import groups as groups_lib

import made_up


def test_methods_and_sizes():
  assert groups_lib.method(made_up.group('board-xs', 'board-s')) == 'xent'
  group = made_up.group(
    'board-xs', 'board-l', ('board-s', 'board-m'), 'logconf'
  )
  assert groups_lib.method(group) == 'logconf via board-s, board-m'
  group.update(early_stopping='weak_labels', generative=True, via=())
  assert groups_lib.method(group) == 'logconf stopped + generative'
  group.update(variant='lr 1e-4')
  assert groups_lib.method(group) == 'logconf stopped lr 1e-4 + generative'
  assert list(groups_lib.sizes(made_up.ladder()[::-1])) == list(made_up.MODELS)


def test_medians_are_over_all_tasks_but_pgr_over_those_with_a_gap():
  pair = [made_up.group('board-xs', 'board-l')]
  groups = made_up.of_tasks(pair, 9, undefined=2)
  (median,) = groups_lib.over_tasks(groups)
  assert (median['n_tasks'], median['n_defined']) == (9, 7)
  pgr = metrics.median_interval([0.1 * i for i in range(3, 10)])
  assert median['pgr'] == pytest.approx(0.6)
  assert (median['pgr_low'], median['pgr_high']) == (pgr.low, pgr.high)
  assert groups_lib.pgr_text(median) == '0.60 [0.40, 0.80]'
  assert median['ceiling_accuracy'] == pytest.approx(0.53)
  assert median['student_accuracy'] == pytest.approx(0.82)
  assert median['ceiling_accuracy_se'] > 0.001
  assert median['student_accuracy_se'] == pytest.approx(0)  # all the same
  assert groups_lib.method(median) == 'xent'


def test_few_or_no_defined_tasks():
  pair = [made_up.group('board-xs', 'board-l')]
  (few,) = groups_lib.over_tasks(made_up.of_tasks(pair, 9, undefined=4))
  assert few['n_defined'] == 5 and groups_lib.pgr_text(few) == '0.70'
  (none,) = groups_lib.over_tasks(made_up.of_tasks(pair, 9, undefined=9))
  assert none['n_defined'] == 0 and groups_lib.pgr_text(none) == 'undefined'


def test_pairs_and_methods_are_not_mixed():
  ladder = made_up.ladder(losses=('xent', 'logconf'))
  assert groups_lib.over_tasks(ladder) == []
  medians = groups_lib.over_tasks(made_up.of_tasks(ladder, 3))
  key = *results.PAIR, *results.METHOD
  assert [*groups_lib.by(medians, *key)] == [*groups_lib.by(ladder, *key)]
  assert {median['n_tasks'] for median in medians} == {3}
  other = made_up.group('board-xs', 'board-l', loss='other')  # on one task
  assert len(groups_lib.over_tasks([other, *made_up.of_tasks(ladder, 2)])) == 18


def test_many_tasks_are_more_than_a_dozen_panels():
  pair = [made_up.group('board-xs', 'board-l')]
  assert not groups_lib.many_tasks(made_up.of_tasks(pair, 12))
  assert groups_lib.many_tasks(made_up.of_tasks(pair, 13))
  assert groups_lib.many_tasks(made_up.of_tasks(made_up.ladder(), 3))
  assert not groups_lib.many_tasks(made_up.ladder() * 3)  # of one task
  apart = made_up.of_tasks(pair, 20)
  for i, group in enumerate(apart):
    group['loss'] = f'loss-{i}'  # no student is on two tasks
  assert not groups_lib.many_tasks(apart)


def test_what_agreement_lacks_on_a_task_is_left_out():
  groups = made_up.of_tasks([made_up.group('board-xs', 'board-l')], 3)
  for group, share in zip(groups, (None, 0.2, 0.4)):
    group['agreement_supervisor_wrong'] = share
  (median,) = groups_lib.over_tasks(groups)
  assert median['agreement_supervisor_wrong'] == pytest.approx(0.3)
  for group in groups:
    group['agreement_supervisor_wrong'] = None
  (median,) = groups_lib.over_tasks(groups)
  assert median['agreement_supervisor_wrong'] is None


def test_calibration_over_tasks_is_that_of_all_predictions():
  rng = np.random.default_rng(0)
  groups = made_up.of_tasks([made_up.group('board-xs', 'board-l')], 3)
  probs, labels = [], []
  for group, n in zip(groups, (50, 400, 900)):
    top_N = rng.uniform(0.5, 1, n)
    probs.append(np.stack([top_N, 1 - top_N], -1))
    labels.append(made_up.one_hot(rng.random(n) < 0.3))
    curve = metrics.reliability(probs[-1], labels[-1])
    group['reliability'] = {'student': curve}
  (median,) = groups_lib.over_tasks(groups)
  expected = metrics.reliability(np.concatenate(probs), np.concatenate(labels))
  for found, value in zip(median['reliability']['student'], expected):
    np.testing.assert_allclose(found, value)
