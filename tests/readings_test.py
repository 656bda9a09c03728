"""Sentences on the numbers of a report."""

from w2s_jax.report import readings

import made_up


def test_rows_truncated_of_several_tasks_are_one_sentence(tmp_path):
  rows = made_up.make_tasks(tmp_path, ('boolq', 'cola', 'hh_rlhf', 'shp'))
  for row, cut in zip(rows, (7, 0, 5, 1)):
    row['rows_truncated'] = cut
  of_texts, of_pairs = readings.rows_truncated(rows)
  assert of_texts.startswith('boolq: 7 of 1,000 training rows')
  assert of_pairs.startswith('hh_rlhf: 5 of 1,000, shp: 1 of 1,000 training')
