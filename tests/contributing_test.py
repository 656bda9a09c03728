"""The diffs of CONTRIBUTING.md apply to the tree, and their commands run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import flax.traverse_util
import numpy as np
import pytest
import safetensors.numpy

from w2s_jax import results
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers

import tiny
import tiny_rows

if not shutil.which('git'):
  pytest.skip('there is no git to apply diffs', allow_module_level=True)


class Seam(NamedTuple):
  diff: str
  command: str


def _seams():
  """{title of a section: Seam} of CONTRIBUTING.md."""
  text = (tiny.ROOT / 'CONTRIBUTING.md').read_text()
  _, *sections = re.split(r'^## (.*)\n', text, flags=re.MULTILINE)
  found = {}
  for title, body in zip(sections[::2], sections[1::2], strict=True):
    blocks = dict(re.findall(r'```(diff|bash)\n(.*?)```', body, re.DOTALL))
    found[title] = Seam(blocks['diff'], blocks['bash'])
  return found


SEAMS = _seams()
KNOWN = """
import json
import numpy as np
from configs import self_training
from w2s_jax import losses, study, weak_labels
from w2s_jax.models import pretrained
from w2s_jax.tasks import registry

config = self_training.get_config('debug,loss=gce')
config.seeds = (0,)
config.task, config.weak_labels = 'tabloids', 'confident'
labels = weak_labels.Labels(
  np.array([1, 2, 3]), np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
)
loss = losses.gce(
  np.array([[0.0, 0.0], [-50.0, 50.0]]),
  np.array([[0.0, 1.0], [0.0, 1.0]]),
  weight_B=np.ones(2),
  step_fraction=0.0,
  q=1.0,
)
print(json.dumps({
  'rows': len(registry.load('tabloids', source='file:tabloids.jsonl')[0]),
  'layers': pretrained.load('models/electra')[0].num_layers,
  'names': [x.row['weak_labels'] for x in study.outline(config)[0]],
  'kept': weak_labels.confident(labels).ids_N[::-1].tolist(),
  'losses': [round(float(x), 6) for x in loss],
}))
"""
EACH = pytest.mark.parametrize('title', SEAMS)


@pytest.fixture
def tree(tmp_path):
  """A copy of what the diffs and the commands need."""
  kept = shutil.ignore_patterns('__pycache__', 'figures', 'results', 'board-*')
  for folder in ('configs', 'experiments', 'w2s_jax'):
    shutil.copytree(tiny.ROOT / folder, tmp_path / folder, ignore=kept)
  (tmp_path / 'tests').mkdir()
  shutil.copy(tiny.ROOT / 'tests' / 'tiny_rows.py', tmp_path / 'tests')
  return tmp_path


def _apply(tree, diff):
  done = subprocess.run(
    ['git', 'apply', '--verbose', '-'],
    input=diff,
    cwd=tree,
    capture_output=True,
    text=True,
    env=os.environ | {'GIT_CEILING_DIRECTORIES': str(tree)},
  )
  assert done.returncode == 0, done.stderr
  assert 'Skipped' not in done.stderr, done.stderr


def _save_electra(folder):
  """Writes a random model as ELECTRA stores one: BERT by other names."""
  config = presets.PRESETS['tiny-encoder']
  rng = np.random.default_rng(0)
  flat = {
    path: 0.1 * rng.standard_normal(shape, np.float32)
    for path, shape in pretrained.parameter_shapes(config).items()
  }
  params = flax.traverse_util.unflatten_dict(flat, sep='/')
  tokenizer = tokenizers.WordHash(config.vocab_size)
  pretrained.save(folder, config, params, tokenizer=tokenizer)
  weights = folder / 'model.safetensors'
  tensors = {
    name.replace('bert.', 'electra.'): tensor
    for name, tensor in safetensors.numpy.load_file(weights).items()
  }
  tensors['discriminator_predictions.dense.bias'] = np.zeros(2, np.float32)
  safetensors.numpy.save_file(tensors, weights)
  stored = json.loads((folder / 'config.json').read_text())
  stored |= {'model_type': 'electra', 'embedding_size': config.embed_dim}
  (folder / 'config.json').write_text(json.dumps(stored))


def _add_files(tree):
  """Writes the files that the commands name."""
  rows = [
    {'headline': row['sentence'], 'tabloid': row['label']}
    for row in tiny_rows.rows('sst2', 400)
  ]
  lines = (json.dumps(row) + '\n' for row in rows)
  (tree / 'tabloids.jsonl').write_text(''.join(lines))
  _save_electra(tree / 'models' / 'electra')


def _run(tree, command):
  """Runs a command for seconds, without a report; returns its results."""
  fields = {k: v for k, v in tiny.FIELDS.items() if k != 'losses'}
  _, *argv = shlex.split(command.replace('\\\n', ''))
  done = subprocess.run(
    [
      sys.executable,
      *argv,
      *(f'--config.{name}={value}' for name, value in fields.items()),
      '--workdir=workdir',
      '--point=0',
    ],
    cwd=tree,
    capture_output=True,
    text=True,
    env=tiny.environment() | {'PYTHONPATH': str(tree)},
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return results.read(tree / 'workdir')


def test_there_are_five_seams():
  assert [*SEAMS] == [
    'A data set',
    'A loss',
    'A label transform',
    'A model family',
    'A study',
  ]


@EACH
def test_a_diff_is_short_and_applies(tree, title):
  diff = SEAMS[title].diff
  changed = re.findall(r'^[+-](?!--|\+\+)', diff, re.MULTILINE)
  assert 0 < len(changed) < 15
  assert max(map(len, diff.splitlines())) <= 81
  _apply(tree, diff)


def test_a_diff_that_does_not_fit_is_found(tree):
  diff = SEAMS['A loss'].diff.replace("'logconf': logconf}", "'other': other}")
  with pytest.raises(AssertionError, match='w2s_jax/losses.py'):
    _apply(tree, diff)


def test_all_five_together_are_known(tree):
  """In seconds: reads rows and weights, traces the loss, describes stages."""
  for seam in SEAMS.values():
    _apply(tree, seam.diff)
  _add_files(tree)
  done = subprocess.run(
    [sys.executable, '-c', KNOWN],
    cwd=tree,
    capture_output=True,
    text=True,
    env=tiny.environment() | {'PYTHONPATH': str(tree)},
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout) == {
    'rows': 400,
    'layers': 2,
    'names': ['confident'] * 2,
    'kept': [3, 2],
    'losses': [0.5, 0.0],
  }


@pytest.mark.slow
def test_all_five_together_run(tree):
  for seam in SEAMS.values():
    _apply(tree, seam.diff)
  _add_files(tree)
  rows = _run(
    tree,
    'python experiments/main.py'
    ' --config=configs/self_training.py:debug,loss=gce'
    ' --config.task=tabloids --config.data.source=file:tabloids.jsonl'
    ' --config.weak_labels=confident'
    ' --config.models.strong.weights=models/electra',
  )
  assert [row['task'] for row in rows] == ['tabloids'] * 2
  assert {row['loss'] for row in rows} == {'gce'}
  assert {row['weak_labels'] for row in rows} == {'confident'}
  assert sorted(row['via'] for row in rows) == [(), ('electra-l2',)]


@pytest.mark.slow
@EACH
def test_a_seam_runs_by_its_command(tree, title):
  _apply(tree, SEAMS[title].diff)
  _add_files(tree)
  assert _run(tree, SEAMS[title].command)
