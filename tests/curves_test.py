"""Learning curves of a made-up study."""

import json

import pytest

from w2s_jax import results
from w2s_jax.report import curves
from w2s_jax.report import figures
from w2s_jax.report import report

import made_up


def write_curve(workdir, row, accuracies, *, steps=(10, 20, 40)):
  path = workdir / 'stages' / row['stages']['student'] / 'curve.json'
  points = [
    {'step': step, 'accuracy': x, 'agreement_all': 0.8}
    for step, x in zip(steps, accuracies, strict=True)
  ]
  path.write_text(json.dumps(points))


def test_curves_are_means_over_seeds_of_the_same_steps(tmp_path):
  made_up.make(tmp_path, losses=('xent',))
  rows = results.read(tmp_path)
  write_curve(tmp_path, rows[0], (0.5, 0.6, 0.7))
  assert curves.load(tmp_path, rows) == {}  # one seed has none
  write_curve(tmp_path, rows[1], (0.7, 0.8, 0.7))
  student = curves.load(tmp_path, rows)['student']
  assert student['accuracy'].tolist() == pytest.approx([0.6, 0.7, 0.7])
  assert student['share'].tolist() == [0.25, 0.5, 1.0]
  write_curve(tmp_path, rows[1], (0.7, 0.8, 0.7), steps=(10, 30, 40))
  assert curves.load(tmp_path, rows) == {}


def test_the_figure_has_a_line_for_each_method(tmp_path):
  made_up.make(tmp_path)
  rows = results.read(tmp_path)
  groups = report.aggregate(tmp_path, rows)
  assert 'learning_curves.png' not in figures.draw(groups)
  for row in rows:
    write_curve(tmp_path, row, (0.5, 0.6, 0.7))
  figure, caption = figures.draw(report.aggregate(tmp_path, rows))[
    'learning_curves.png'
  ]
  (axes,) = figure.axes
  labels = [text.get_text() for text in axes.get_legend().texts]
  assert labels[:2] == ['xent', 'logconf'] and 'weak' in labels
  assert 'overfits' in caption
