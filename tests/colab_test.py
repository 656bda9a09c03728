"""The notebooks on what commands left; predictions on typed text."""

import re
import shutil

import nbclient
import nbformat
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import loading
from w2s_jax import predict
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax.runtime import files

import tiny

FOLDER = tiny.ROOT / 'experiments' / 'colab'
NOTEBOOKS = sorted(path.name for path in FOLDER.glob('*.ipynb'))


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


@pytest.fixture(scope='module')
def two_studies(trained, tmp_path_factory):
  """As the README's first command, which runs two studies in one workdir.

  Each has a transfer set of its own, labelled by the same supervisor.
  """
  workdir = tmp_path_factory.mktemp('two') / 'study'
  shutil.copytree(trained[0], workdir)
  few = {'variant': 'few', 'data.splits.transfer': 32}
  tiny.run(workdir, losses=('xent', 'logconf'), **few)
  assert len(list(workdir.glob('stages/labels-of-*'))) == 2
  return workdir


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


def test_a_checkpoint_is_loaded(two_studies, monkeypatch):
  first = loading.load_results(two_studies).iloc[0]
  stored = loading.load_predictions(two_studies, first['student_stage'])
  notebook = read('load_checkpoint.ipynb')
  fill_in(notebook, 'WORKDIR', str(two_studies))
  fill_in(notebook, 'TEXTS', stored['text'].tolist()[:5])
  add(notebook, 'probs', "print(*model.predict(TEXTS)['p(positive)'])")

  execute(notebook, monkeypatch)

  assert first['student_stage'] in texts_of(notebook, 'load')
  assert 'Classes: negative, positive' in texts_of(notebook, 'load')
  probs_N = [float(p) for p in texts_of(notebook, 'probs').split()]
  np.testing.assert_allclose(probs_N, stored['p(positive)'][:5], atol=1e-5)
  for column in ('student_accuracy', 'pgr'):
    assert column in texts_of(notebook, 'stages')
  assert 'weak wrong' in texts_of(notebook, 'right')
  assert len(texts_of(notebook, 'disagree').splitlines()) >= 11
  expected = f'{first["rows"]} weak labels, {first["weak_label_accuracy"]:.1%}'
  assert expected in texts_of(notebook, 'labels')
  for plot in ('compare', 'histogram', 'loss'):
    assert has_figure(notebook, plot)


def test_a_sweep_is_read(two_studies, monkeypatch):
  notebook = read('read_a_sweep.ipynb')
  fill_in(notebook, 'WORKDIR', str(two_studies))

  execute(notebook, monkeypatch)

  assert '3 students of 1 tasks; synthetic' in texts_of(notebook, 'results')
  assert 'logconf few' in texts_of(notebook, 'table')
  assert 'xent few' not in texts_of(notebook, 'differences')
  assert 'logconf few' in texts_of(notebook, 'differences')
  for plot in ('by_size', 'by_loss', 'forest'):
    assert has_figure(notebook, plot)


@pytest.mark.slow  # trains five models
def test_a_loss_of_ones_own_is_compared(tmp_path, monkeypatch):
  notebook = read('your_own_loss.ipynb')
  workdir = tmp_path / 'study'
  fill_in(notebook, 'WORKDIR', str(workdir))
  fill_in(notebook, 'ARGUMENTS', 'debug')
  small = {k: v for k, v in tiny.FIELDS.items() if k != 'losses'}
  small['data.source'] = tiny.source()
  cell(
    notebook, 'config'
  ).source += f'\nconfig.update_from_flattened_dict({small!r})'

  execute(notebook, monkeypatch)

  found = [row['loss'] for row in results.read(workdir)]
  assert found == ['xent', 'gce', 'logconf']
  printed = texts_of(notebook, 'study')
  assert 'student-gce-' in printed and '\x1b' not in printed
  for loss in found:
    assert loss in texts_of(notebook, 'results')
  for difference in ('logconf - xent', 'gce - xent'):
    assert difference in texts_of(notebook, 'differences')
  for plot in ('curves', 'plot'):
    assert has_figure(notebook, plot)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_notebook_is_committed_clean(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert notebook.metadata.kernelspec.name == 'python3'
  assert notebook.metadata.colab.name == name
  badge = notebook.cells[0].source
  assert f'/blob/main/experiments/colab/{name})' in badge
  assert 'colab-badge.svg' in badge
  for part in notebook.cells:
    assert not re.search(r'[\'"\s(`=]/\w', part.source), 'absolute path'
    if part.cell_type == 'code':
      assert not part.outputs
      assert part.execution_count is None
      assert all(len(line) <= 80 for line in part.source.splitlines())


def read(name):
  return nbformat.read(FOLDER / name, as_version=4)


def execute(notebook, monkeypatch):
  """Runs all cells, as in a clone of the repository."""
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  nbclient.NotebookClient(
    notebook,
    timeout=600,  # a cell
    iopub_timeout=60,  # or output goes missing on a busy machine
    kernel_name='python3',
    resources={'metadata': {'path': str(tiny.ROOT)}},
  ).execute()


def add(notebook, name, source):
  made = nbformat.v4.new_code_cell(source, id=name)
  notebook.cells.append(made)


def cell(notebook, name):
  return next(part for part in notebook.cells if part.id == name)


def texts_of(notebook, name):
  """All that a cell printed or displayed, as plain text."""
  return ''.join(
    output.get('text') or output.data['text/plain']
    for output in cell(notebook, name).outputs
  )


def has_figure(notebook, name):
  return any(
    'image/png' in output.get('data', {})
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
