"""Sentences on the numbers of a report."""

import numpy as np
import pytest

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import readings
from w2s_jax.report import report

import made_up


def only_group(workdir, rates, **optional):
  made_up.make(workdir, losses=('xent',), rates=rates, **optional)
  (group,) = report.aggregate(workdir, results.read(workdir))
  return group


def test_a_student_below_zero_shot_is_read_out(tmp_path):
  group = only_group(tmp_path, dict(made_up.RATES, zero_shot=0.97))
  gain, se = metrics.mean_and_se(
    group['correct']['student'].astype(int) - group['correct']['zero_shot']
  )
  assert group['student_gain'] == gain and gain < -2 * se
  text = readings.of_student(group)
  assert group['pgr_low'] > 0 and 'beyond the noise measured' in text
  assert (
    f'The student is {-100 * gain:.1f} ±{100 * se:.1f} points below its '
    'zero-shot accuracy'
  ) in text
  accuracies = groups_lib.accuracies(group)
  assert accuracies[1].endswith(' ↓') and accuracies[3][-1].isdigit()
  (legend,) = readings.legend([group])
  assert '↓: more than 2 standard errors below the zero-shot' in legend


def test_a_ceiling_near_zero_shot_elicited_nothing(tmp_path):
  group = only_group(tmp_path, dict(made_up.RATES, zero_shot=0.82))
  assert 'nothing was elicited' in readings.of_student(group)
  assert groups_lib.accuracies(group)[2].endswith(' ≈')
  assert 'of a ceiling it means that nothing' in readings.legend([group])[0]


def test_what_is_above_zero_shot_has_no_mark(tmp_path):
  group = only_group(tmp_path, made_up.RATES)
  assert not groups_lib.marks([group]) and not readings.legend([group])
  assert 'zero-shot' not in readings.of_student(group)


def test_a_head_that_starts_at_zero_is_compared_with_chance(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',))
  for row in rows:  # equal probabilities count as class 0, on 60 %
    labels_NxC = made_up.one_hot(np.arange(600) < 240)
    for role in ('zero_shot', 'ceiling'):
      probs_NxC = np.full((600, 2), 0.5, np.float32)
      if role == 'ceiling':  # right on half of each class
        wrong_N = np.arange(600) % 2 == 0
        probs_NxC = np.where(wrong_N[:, None], 1 - labels_NxC, labels_NxC)
      stage = row['stages'][role]
      made_up.save_stage(tmp_path, stage, probs_NxC, labels_NxC)
  (group,) = report.aggregate(tmp_path, results.read(tmp_path))
  assert group['zero_shot_is_chance']
  assert (group['zero_shot_accuracy'], group['zero_shot_accuracy_se']) == (
    0.5,
    0,
  )
  assert groups_lib.accuracies(group)[3] == '50.0'
  assert group['ceiling_gain'] == pytest.approx(0)  # on 0.5, not 0.6
  assert 'within 2 standard errors of chance' in readings.of_student(group)
  (legend,) = readings.legend([group])
  assert '≈: within 2 standard errors of chance' in legend
  assert legend.endswith(
    'Zero-shot is chance by construction: the head starts at zero.'
  )
  other = only_group(tmp_path, made_up.RATES)
  (legend,) = readings.legend([group, other])
  assert 'Zero-shot of minilm-l6 is chance' in legend


def test_medians_count_the_tasks_with_marks(tmp_path):
  made_up.make_tasks(tmp_path, ('boolq', 'cola', 'dream'), undefined=('cola',))
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  (median,) = groups_lib.over_tasks(groups)
  assert median['ceiling_marks'].count('≈') == 1
  assert (
    'On 0 of 3 tasks the ceiling is below its zero-shot accuracy, on 1 '
    in (readings.over_tasks(median))
  )


def test_rows_truncated_of_several_tasks_are_one_sentence(tmp_path):
  rows = made_up.make_tasks(tmp_path, ('boolq', 'cola', 'hh_rlhf', 'shp'))
  for row, cut in zip(rows, (7, 0, 5, 1)):
    row['rows_truncated'] = cut
  of_texts, of_pairs = readings.rows_truncated(rows)
  assert of_texts.startswith('boolq: 7 of 1,000 training rows')
  assert of_pairs.startswith('hh_rlhf: 5 of 1,000, shp: 1 of 1,000 training')
