"""Several processes on one study, over loopback: as the hosts of a pod."""

import contextlib
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import predict
from w2s_jax.runtime import preemption

import tiny

# Of each number of processes; `fsdp` crosses them all.
MESHES = {
  2: {'devices': 2, 'mesh.data': 1, 'mesh.fsdp': 2, 'mesh.tensor': 2},
  4: {'devices': 1, 'mesh.data': 1, 'mesh.fsdp': 4, 'mesh.tensor': 1},
}


@contextlib.contextmanager
def processes(workdir, count, **fields):
  """The processes of a study, which leave nothing behind."""
  started = tiny.start_together(workdir, count, **MESHES[count] | fields)
  try:
    yield started
  finally:
    for process in started:
      process.kill()
      process.wait()


@pytest.fixture(
  scope='module', params=[2, pytest.param(4, marks=pytest.mark.slow)]
)
def shared(request, tmp_path_factory):
  """(number of processes, workdir of the study that they ran)."""
  workdir = tmp_path_factory.mktemp('shared')
  with processes(workdir, request.param, checkpoint_every=6) as started:
    for process in started:
      assert 'nvoluntary' not in tiny.finish(process)
  return request.param, workdir


def assert_same_predictions(workdir, alone):
  assert tiny.stage_names(workdir) == tiny.stage_names(alone)
  paths = [path.relative_to(workdir) for path in workdir.rglob('*.npz')]
  assert len(paths) == 9  # two splits of four models, and weak labels
  for path in paths:
    ours, theirs = tiny.arrays(workdir / path), tiny.arrays(alone / path)
    np.testing.assert_array_equal(ours['ids'], theirs['ids'])
    np.testing.assert_allclose(ours['probs'], theirs['probs'], atol=1e-5)


def test_several_processes_predict_as_one(shared):
  assert_same_predictions(shared[1], tiny.process_workdir())


def test_only_the_first_process_writes_results(shared):
  _, workdir = shared
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  assert len(lines) == 1
  steps = [x['step'] for x in tiny.metrics(tiny.stage(workdir, 'ceiling'))]
  assert steps == list(range(16))


def test_parameters_crossed_the_processes(shared):
  count, workdir = shared
  folder = tiny.stage(workdir, 'ceiling') / 'params'
  written = {path.name for path in folder.glob('ocdbt.process_*')}
  assert written == {f'ocdbt.process_{i}' for i in range(count)}


def test_one_process_loads_their_checkpoint(shared):
  _, workdir = shared
  loaded = checkpoint.load_model(workdir, 'student')
  assert {len(x.devices()) for x in jax.tree.leaves(loaded.params)} == {1}
  test = tiny.arrays(tiny.stage(workdir, 'student') / 'predictions/test.npz')
  splits, _ = tiny.splits()
  assert splits['test'].ids.tolist() == test['ids'].tolist()
  probs_NxC = predict.predict_inputs(loaded, splits['test'].inputs)
  np.testing.assert_allclose(probs_NxC, test['probs'], atol=1e-5)


def wait_for(pattern, workdir, started):
  """Until a path under the workdir matches, while all processes run."""
  deadline = time.monotonic() + 200
  while not any(workdir.glob(pattern)):
    assert all(process.poll() is None for process in started)
    assert time.monotonic() < deadline
    time.sleep(0.01)


def stopped_by_signal(workdir, count, *, told):
  """SIGTERM to one process while all compile the student's first step."""
  with processes(workdir, count) as started:
    wait_for('stages/student-*/checkpoints', workdir, started)
    started[told].send_signal(signal.SIGTERM)
    printed = [process.communicate(timeout=200)[0] for process in started]
    codes = [process.returncode for process in started]
  assert codes == [preemption.EXIT_CODE] * count
  assert not list(workdir.rglob('*LOCK'))
  step = int(re.search(r'stopped before step (\d+); the same', printed[0])[1])
  saved = workdir.glob('stages/student-*/checkpoints/[0-9]*')
  assert max(int(path.name) for path in saved) == step > 0


def killed(workdir, count, *, victim):
  """SIGKILL for one process in the middle; the others end with an error."""
  with processes(workdir, count, checkpoint_every=8) as started:
    wait_for('stages/student-*/checkpoints/8', workdir, started)
    time.sleep(1)  # a process that waits for a save learns of it much later
    started[victim].kill()
    errors = [process.communicate(timeout=200)[1] for process in started]
    codes = [process.returncode for process in started]
  assert codes.pop(victim) == -signal.SIGKILL
  errors.pop(victim)
  assert 0 not in codes and preemption.EXIT_CODE not in codes
  for error in errors:
    assert 'another' in error, error  # process or task was lost


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_with_fewer_processes(tmp_path):
  alone = tiny.process_workdir()
  fewer = shutil.copytree(alone, tmp_path / 'fewer')
  (fewer / 'results.jsonl').unlink()
  for role in ('student', 'ceiling'):
    shutil.rmtree(tiny.stage(fewer, role))
  stopped_by_signal(fewer, 4, told=3)
  killed(fewer, 2, victim=1)
  tiny.finish(tiny.start(fewer))
  assert_same_predictions(fewer, alone)
  ours, theirs = (
    tiny.metrics(tiny.stage(workdir, 'student')) for workdir in (fewer, alone)
  )
  assert [x['step'] for x in ours] == list(range(16))
  for name in ('train/loss', 'train/grad_norm'):
    np.testing.assert_allclose(
      [x[name] for x in ours], [x[name] for x in theirs], atol=1e-5
    )
