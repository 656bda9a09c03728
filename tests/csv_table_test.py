"""The results as CSV."""

import csv

from w2s_jax.report import report

import made_up


def test_each_student_has_a_line_with_all_digits(tmp_path):
  made_up.make(tmp_path, variant='a, "b"')
  groups = report.write(tmp_path)
  lines = list(csv.DictReader((tmp_path / 'report.csv').open()))
  assert [line['loss'] for line in lines] == ['xent', 'logconf']
  for line, group in zip(lines, groups):
    assert float(line['pgr']) == group['pgr']
    assert float(line['student_accuracy_se']) == group['student_accuracy_se']
    assert (line['seeds'], line['via']) == ('0 1', '')
    assert line['variant'] == 'a, "b"'
