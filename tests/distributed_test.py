"""Two processes on one study, over loopback: what a pod of hosts would do."""

import json
import socket

import jax
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import predict
import tiny

MESH = {'mesh.data': 1, 'mesh.fsdp': 2, 'mesh.tensor': 2}


def free_port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  """Workdir of two processes of two devices; fsdp crosses the processes."""
  workdir = tmp_path_factory.mktemp('shared')
  coordinator = f'--coordinator=127.0.0.1:{free_port()}'
  processes = [
    tiny.start(
      workdir,
      coordinator,
      '--num_processes=2',
      f'--process_id={i}',
      env={'JAX_NUM_CPU_DEVICES': '2'},
      **MESH,
    )
    for i in range(2)
  ]
  try:
    for process in processes:
      stderr = tiny.finish(process)
      assert 'nvoluntary' not in stderr
  finally:
    for process in processes:
      process.kill()
  return workdir


def test_two_processes_predict_as_one(shared):
  alone = tiny.process_workdir()
  assert tiny.stage_names(shared) == tiny.stage_names(alone)
  paths = [path.relative_to(shared) for path in shared.rglob('*.npz')]
  assert len(paths) == 9  # two splits of four models, and weak labels
  for path in paths:
    ours, theirs = tiny.arrays(shared / path), tiny.arrays(alone / path)
    np.testing.assert_array_equal(ours['ids'], theirs['ids'])
    np.testing.assert_allclose(ours['probs'], theirs['probs'], atol=1e-5)


def test_only_the_first_process_writes_results(shared):
  lines = (shared / 'results.jsonl').read_text().splitlines()
  assert len(lines) == 1
  metrics = tiny.stage(shared, 'ceiling') / 'metrics.jsonl'
  steps = [json.loads(x)['step'] for x in metrics.read_text().splitlines()]
  assert steps == list(range(16))


def test_parameters_crossed_the_processes(shared):
  folder = tiny.stage(shared, 'ceiling') / 'params'
  written = {path.name for path in folder.glob('ocdbt.process_*')}
  assert written == {'ocdbt.process_0', 'ocdbt.process_1'}


def test_one_process_loads_their_checkpoint(shared):
  loaded = checkpoint.load_model(shared, 'student')
  assert {len(x.devices()) for x in jax.tree.leaves(loaded.params)} == {1}
  test = tiny.arrays(tiny.stage(shared, 'student') / 'predictions' / 'test.npz')
  splits, _ = tiny.splits()
  assert splits['test'].ids.tolist() == test['ids'].tolist()
  probs_NxC = predict.predict_inputs(loaded, splits['test'].inputs)
  np.testing.assert_allclose(probs_NxC, test['probs'], atol=1e-5)
