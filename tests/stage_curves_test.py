"""Curves of stages over training."""

import json
import re

from w2s_jax import results
from w2s_jax.report import stage_curves
from w2s_jax.runtime import files

import made_up


def write_metrics(workdir, stage, values, field='train/loss'):
  lines = [json.dumps({'step': i, field: x}) for i, x in enumerate(values)]
  path = workdir / 'stages' / stage / 'metrics.jsonl'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')
  return path


def points(page):
  return [
    [tuple(map(int, point.split(','))) for point in line.split()]
    for line in re.findall('polyline points="([^"]*)"', page)
  ]


def test_a_line_a_seed_of_bounded_length_from_0_up(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0, 1))
  for row, height in zip(rows, (2.0, 1.0)):
    write_metrics(tmp_path, row['stages']['student'], [height] * 5000)
  page = stage_curves.draw(tmp_path, results.read(tmp_path))
  high, low = points(page)
  assert len(high) == len(low) == 40
  assert {y for _, y in high} == {0} and {y for _, y in low} == {30}
  assert page.count('<figure>') == 1 and 'step 4,99' in page
  assert 'rotten_tomatoes (1)<' in page
  for row in rows:
    assert f'href="stages/{row["stages"]["student"]}/"' in page


def test_all_that_a_stage_measured_has_a_panel(tmp_path):
  (row,) = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  folder = tmp_path / 'stages' / row['stages']['student']
  path = write_metrics(tmp_path, folder.name, [1, 2])
  path.write_text(
    path.read_text()
    + '{"step": 2, "train/mfu": 0.5, "train/label_agreement": 0.9}\nbroken\n'
  )
  curve = [{'step': 5, 'accuracy': 0.6, 'agreement_all': 0.7}]
  (folder / 'curve.json').write_text(json.dumps(curve))
  stopping = {'10': 0.8, '20': 0.9, 'end': 0.85}
  (folder / 'early_stopping.json').write_text(json.dumps(stopping))
  files.save_record(folder / 'DONE', {'summary': {'validation_accuracy': 0.66}})
  page = stage_curves.draw(tmp_path, results.read(tmp_path))
  for words in (
    *(
      'loss, at the end 2<',
      'MFU, at the end 50 %',
      'its labels, at the end 90',
    ),
    *(
      'accuracy, test rows, at the end 60',
      'supervisor, test rows, at the end',
    ),
    *('validation, at the end 85 %', 'validation accuracy 66.0 %'),
  ):
    assert words in page


def test_stages_of_no_row_come_last_once_they_are_done(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  for seed in 0, 1:
    write_metrics(tmp_path, f'generative-a-seed{seed}-0123abc', [3, 2, 1])
  rows = results.read(tmp_path)
  assert stage_curves.draw(tmp_path, rows) == ''
  for seed in 0, 1:
    folder = tmp_path / 'stages' / f'generative-a-seed{seed}-0123abc'
    files.save_record(folder / 'DONE', {'summary': {}})
  page = stage_curves.draw(tmp_path, rows)
  assert 'other stages (1)<' in page
  assert '<p><span class="word">generative-a</span> <' in page
  assert '>seed0</a> <a' in page and len(points(page)) == 2
