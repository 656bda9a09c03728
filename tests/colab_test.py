"""The Colab notebook on what a command left; predictions on typed text."""

import pathlib
import re

import nbclient
import nbformat
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import predict
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax.runtime import files

import tiny

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / 'experiments' / 'colab' / 'load_checkpoint.ipynb'


@pytest.fixture(scope='module')
def trained():
  """(workdir that a command left, its student, test texts, predictions)."""
  workdir = tiny.process_workdir()
  stage = results.read(workdir)[0]['stages']['student']
  evaluated, _ = tiny.splits()
  path = workdir / 'stages' / stage / 'predictions' / 'test.npz'
  stored = files.load_arrays(path)
  assert list(stored['ids']) == list(evaluated['test'].ids)
  return workdir, stage, evaluated['test'].inputs, stored['probs']


@pytest.mark.parametrize('mesh', [None, (2, 2, 2)])
def test_texts_get_the_probabilities_of_the_stage(trained, mesh):
  workdir, stage, texts, stored_NxC = trained
  if mesh:
    mesh = sharding.make_mesh(**dict(zip(sharding.AXES, mesh)))
  loaded = checkpoint.load_model(workdir, stage, mesh=mesh)

  probs_NxC = predict.predict_inputs(loaded, texts, batch_size=50)

  np.testing.assert_allclose(probs_NxC, stored_NxC, atol=1e-5)
  one_1xC = predict.predict_inputs(loaded, texts[:1])
  np.testing.assert_allclose(one_1xC, stored_NxC[:1], atol=1e-5)


def test_notebook_predicts_as_the_stage_did(trained, monkeypatch):
  workdir, stage, texts, stored_NxC = trained
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  chosen = np.argsort(stored_NxC[:, 0])[[0, len(texts) // 2, -1]]  # all apart
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  fill_in(notebook, 'WORKDIR', str(workdir))
  fill_in(notebook, 'TEXTS', [texts[i] for i in chosen])

  nbclient.NotebookClient(
    notebook,
    timeout=120,
    iopub_timeout=60,  # or output goes missing on a busy machine
    kernel_name='python3',
    resources={'metadata': {'path': str(ROOT)}},
  ).execute()

  printed = texts_of(notebook, 'predict').splitlines()[1:]
  probs_NxC = [[float(p) for p in line.split()[:2]] for line in printed]
  np.testing.assert_allclose(probs_NxC, stored_NxC[chosen], atol=6e-5)
  assert f'* {stage}' in texts_of(notebook, 'stages')
  assert 'parameters on cpu' in texts_of(notebook, 'load')
  assert 'synthetic' in texts_of(notebook, 'results')
  assert len(texts_of(notebook, 'labels').splitlines()) == 9
  for plot in ('bars', 'compare', 'loss'):
    outputs = cell(notebook, plot).outputs
    assert any('image/png' in o.get('data', {}) for o in outputs), outputs


def test_notebook_is_committed_clean():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  assert notebook.metadata.kernelspec.name == 'python3'
  for part in notebook.cells:
    assert not re.search(r'[\'"\s(`=]/\w', part.source), 'absolute path'
    if part.cell_type == 'code':
      assert not part.outputs
      assert part.execution_count is None


def cell(notebook, name):
  return next(part for part in notebook.cells if part.id == name)


def texts_of(notebook, name):
  """All that a cell printed or displayed, as plain text."""
  return ''.join(
    output.get('text') or output.data['text/plain']
    for output in cell(notebook, name).outputs
  )


def fill_in(notebook, field, value):
  """Assigns another value to the one `FIELD = ...` of a notebook, as a user."""
  assigned = re.compile(rf"^{field} = ('.*?'|\[.*?^\])", re.M | re.S)
  count = 0
  for part in notebook.cells:
    part.source, found = assigned.subn(
      lambda _: f'{field} = {value!r}', part.source
    )
    count += found
  assert count == 1, field
