"""Results by a field of the test rows."""

import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import by_field
from w2s_jax.report import report

import made_up


def counts(values):
  return {name: in_N.sum() for name, in_N in by_field.bins(values).items()}


def test_numbers_are_in_quantiles_also_from_texts():
  found = counts([str(i) for i in range(100)])
  assert found == {
    '0 to 19': 20,
    '20 to 39': 20,
    '40 to 59': 20,
    '60 to 79': 20,
    '80 to 99': 20,
  }
  assert counts([0] * 90 + list(range(1, 31)) + [None])['0'] == 90
  assert sum(counts([0] * 90 + list(range(1, 31)) + [None]).values()) == 120


def test_few_numbers_are_values():
  assert counts([2] * 20 + [10] * 30 + [None] * 5) == {'2': 20, '10': 30}


def test_lists_and_words_count_for_each_item():
  texts = ['mate short'] * 30 + ['fork long'] * 25 + ['pin short'] * 5
  texts += [f'word-{i}' for i in range(20)]
  assert counts(texts) == {'short': 35, 'mate': 30, 'fork': 25, 'long': 25}
  lists = [['a', 'b'], ['a']] * 20
  assert counts(lists) == {'a': 40, 'b': 20}


def test_few_texts_are_values_whatever_is_in_them():
  texts = ['New York'] * 40 + ['Rome'] * 20 + ['Oslo'] * 3
  assert counts(texts) == {'New York': 40, 'Rome': 20}


def test_too_few_rows_or_no_value():
  assert counts(list(range(19))) == {}
  assert counts([None, ''] * 30) == {}


def test_bins_hold_what_a_study_of_their_rows_would(tmp_path):
  made_up.make(tmp_path, losses=('xent',))
  easy_N = np.arange(600) < 200
  fields = [{'kind': 'easy' if easy else 'hard'} for easy in easy_N]
  order = np.random.default_rng(0).permutation(600)  # a file of any order
  made_up.write_fields(
    tmp_path, [fields[i] for i in order], ids=made_up.IDS[order]
  )
  (group,) = groups = report.aggregate(tmp_path, results.read(tmp_path))
  hard, easy = by_field.aggregate(tmp_path, groups, 'kind')
  assert (easy['bin'], easy['n_test']) == ('easy', 200)
  assert (hard['bin'], hard['n_test']) == ('hard', 400)
  correct = {role: x[:, easy_N] for role, x in group['correct'].items()}
  assert easy['student_accuracy'] == correct['student'].mean()
  pgr = metrics.pgr_interval(*(correct[r] for r in results.ROLES[:3]))
  assert (easy['pgr'], easy['pgr_low'], easy['pgr_high']) == pgr[:3]
  report.write(tmp_path, by=['kind'])
  text = (tmp_path / 'report.md').read_text()
  assert '## By kind' in text
  assert f'| xent | easy | 200 | {100 * easy["weak_accuracy"]:.1f} ±' in text


def test_a_field_that_rows_lack_is_named_with_those_they_have(tmp_path):
  made_up.make(tmp_path, losses=('xent',))
  made_up.write_fields(tmp_path, [{'Themes': 'a', 'Rating': 1}] * 600)
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  with pytest.raises(errors.UserError, match='--by=rating: .* Rating, Themes'):
    by_field.aggregate(tmp_path, groups, 'rating')
  made_up.write_fields(tmp_path, [{'id': str(i)} for i in made_up.IDS])
  with pytest.raises(errors.UserError, match='--by=id: no value'):
    by_field.aggregate(tmp_path, groups, 'id')


def test_rows_of_an_earlier_version_have_no_fields(tmp_path):
  made_up.make(tmp_path, losses=('xent',))
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  with pytest.raises(errors.UserError, match='delete .*rows and run again'):
    by_field.aggregate(tmp_path, groups, 'Rating')
