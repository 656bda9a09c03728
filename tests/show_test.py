"""What `w2s show` says of stages."""

import json
import subprocess
import sys

import forked
import pytest

from experiments import folders
from experiments import show
from w2s_jax import errors
from w2s_jax.runtime import files

import tiny

CONFIG = {
  'kind': 'fine_tune',
  'weights': 'asset:minilm-l6',
  'model': {'head': 'Classifier'},
  'labels': {'arguments': ['0123']},
  'train': {'epochs': 3, 'learning_rate': 0.01, 'freeze': ''},
  'loss': {'name': 'logconf'},
  'loss_args': {'alpha_max': 0.5},
}
SUMMARY = {'seconds': 1.5, 'rows': 40, 'test_accuracy': 0.712}


def make_workdir(folder):
  stage = folder / 'stages' / 'student-a-seed0-4567'
  (folder / 'stages' / 'labels-0123').mkdir(parents=True)
  stage.mkdir()
  (stage / 'config.json').write_text(json.dumps(CONFIG))
  lines = [{'step': i, 'train/loss': 0.7 - i / 10} for i in range(3)]
  (stage / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  files.save_record(stage / 'DONE', {'summary': SUMMARY, 'files': {}})
  return stage


@pytest.mark.parametrize('path', ['student', 'stages/student-a-seed0-4567'])
def test_a_stage_by_the_beginning_of_its_name(path, tmp_path):
  make_workdir(tmp_path)
  done = forked.run('experiments/cli.py', *('show', f'{tmp_path}/{path}'))
  assert done.returncode == 0, done.stderr
  lines = [' '.join(line.split()) for line in done.stdout.splitlines()]
  assert lines[0] == 'student-a-seed0-4567'
  for line in (
    'model asset:minilm-l6',
    'recipe epochs 3, learning_rate 0.01',
    'loss logconf (alpha_max 0.5)',
    'reads labels-0123',
    'scores test_accuracy 0.712',
    'curve loss 0.7000 to 0.5000 in 3 steps',
  ):
    assert line in lines


def test_all_stages_with_accuracy_or_not_done(tmp_path):
  make_workdir(tmp_path)
  assert show.listing(tmp_path)[1:] == [
    '       not done  labels-0123',
    '  71.2      1.5  student-a-seed0-4567',
  ]


def test_a_stage_that_is_ambiguous_or_has_not_begun(tmp_path):
  stage = make_workdir(tmp_path)
  with pytest.raises(errors.UserError, match='2 stages .*labels-0123, student'):
    show.find(tmp_path, '')
  with pytest.raises(errors.UserError, match='has not begun'):
    show.description(stage.parent / 'labels-0123')


@pytest.mark.parametrize('path', ['runs/a/weak', 'runs/a/stages/weak/'])
def test_workdir_and_name_of_a_stage(path):
  assert folders.split_stage(path) == ('runs/a', 'weak')
  assert folders.split_stage('weak') == ('.', 'weak')


def test_a_reader_that_has_enough_is_no_error(tmp_path):
  """As in `w2s show runs/nlp | head -1`."""
  make_workdir(tmp_path)
  command = [sys.executable, 'experiments/cli.py', 'show', str(tmp_path)]
  process = subprocess.Popen(
    command,
    cwd=tiny.ROOT,
    env=tiny.environment() | {'PYTHONPATH': str(tiny.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  process.stdout.close()
  assert process.stderr.read() == ''
  assert process.wait(60) in (0, 1)  # 1 where rich was the first to notice
