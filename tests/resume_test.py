"""Interrupted at any moment, a study ends with the bits it would have had."""

import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import rich.console

from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax.runtime import preemption

import tiny


def exists(pattern):
  """True once a path under the workdir matches."""
  return lambda workdir: any(workdir.glob(pattern))


def resumed(pattern, step):
  """True once a stage has a checkpoint of `step` or later."""

  def saved(workdir):
    found = workdir.glob(f'stages/{pattern}/checkpoints/*')
    return any(p.name.isdigit() and int(p.name) >= step for p in found)

  return saved


# The signal, what is awaited before it, and a stage that is not done by then.
INTERRUPTIONS = {
  'weak labels are written': (
    signal.SIGKILL,
    exists('stages/labels-*/weak_labels.npz'),
    'student-*',
  ),
  'the middle of a student': (
    signal.SIGTERM,
    resumed('student-*', 6),
    'student-*',
  ),
  'parameters appear, whole or not': (
    signal.SIGKILL,
    exists('stages/ceiling-*/params*'),
    'ceiling-*',
  ),
}


def interrupt_when(reached, number, workdir):
  """Starts the study, sends the signal at the moment; returns what it says."""
  process = tiny.start(workdir, stdout=subprocess.PIPE, checkpoint_every=3)
  deadline = time.monotonic() + 200
  while not reached(workdir):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.001)
  process.send_signal(number)
  printed, _ = process.communicate(timeout=100)
  expected = {signal.SIGKILL: -9, signal.SIGTERM: preemption.EXIT_CODE}
  assert process.returncode == expected[number]
  return printed


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """Workdir of one study that was interrupted at every point in turn."""
  workdir = tmp_path_factory.mktemp('killed')
  for number, reached, unfinished in INTERRUPTIONS.values():
    printed = interrupt_when(reached, number, workdir)
    assert not exists(f'stages/{unfinished}/DONE')(workdir)
    if number == signal.SIGTERM:  # it saves the step that it stops before
      step = re.search(r'stopped before step (\d+); the same', printed)[1]
      assert exists(f'stages/student-*/checkpoints/{step}')(workdir)
      assert not resumed('student-*', int(step) + 1)(workdir)
      assert int(step) >= 6 and not list(workdir.rglob('*LOCK'))
  tiny.finish(tiny.start(workdir))
  return workdir


def test_killed_study_ends_with_the_same_bits(killed):
  whole = tiny.process_workdir()
  assert tiny.stage_names(killed) == tiny.stage_names(whole)
  for name in tiny.stage_names(killed):
    ours, theirs = killed / 'stages' / name, whole / 'stages' / name
    tiny.assert_same_results(ours, theirs)
    assert names(ours) == names(theirs), 'something was left behind'
  assert results(killed) == results(whole)


def names(folder):
  return {path.name for path in folder.iterdir()}


def results(workdir):
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  timed = 'seconds', 'compile_seconds', 'checksum'
  return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
  """One bit in the middle of the file."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 16
  path.write_bytes(bytes(content))


def empty(path):
  path.write_bytes(b'')


DAMAGES = [
  ('labels-*/weak_labels.npz', truncate),
  ('student-*/predictions/test.npz', flip),
  ('ceiling-*/predictions/test.npz', empty),
  ('ceiling-*/predictions/validation.npz', pathlib.Path.unlink),
  ('zero_shot-*/DONE', truncate),
  ('weak-*/DONE', empty),
]


def repaired(workdir):
  """Runs the study again here; returns what it printed."""
  console = rich.console.Console(file=io.StringIO(), width=200)
  tiny.run(workdir, console=console)
  return console.file.getvalue()


def assert_close(left, right):
  """Two workdirs hold the same predictions, from other compiled programs."""
  for path in right.rglob('*.npz'):
    ours = tiny.arrays(left / path.relative_to(right))
    for name, theirs in tiny.arrays(path).items():
      if theirs.dtype.kind == 'f':
        np.testing.assert_allclose(ours[name], theirs, atol=1e-5)
      else:
        np.testing.assert_array_equal(ours[name], theirs)


def test_damage_is_named_and_repaired(killed, tmp_path):
  workdir = shutil.copytree(killed, tmp_path / 'study')
  paths = []
  for file, damage in DAMAGES:
    (path,) = workdir.glob(f'stages/{file}')
    damage(path)
    paths.append(path)
  printed = repaired(workdir)
  assert all(path.exists() for path in paths)
  assert printed.count('is damaged and made again') == 5  # stages
  assert_close(workdir, killed)


def test_exchanged_predictions_are_found(killed, tmp_path):
  """Each file is whole, but belongs to another stage."""
  workdir = shutil.copytree(killed, tmp_path / 'study')
  left, right = (
    tiny.stage(workdir, role) / 'predictions' / 'test.npz'
    for role in ('student', 'ceiling')
  )
  content = left.read_bytes()
  left.write_bytes(right.read_bytes())
  right.write_bytes(content)
  assert f'{left} is damaged and made again' in repaired(workdir)
  assert_close(workdir, killed)


@pytest.mark.parametrize('damage', [truncate, flip, pathlib.Path.unlink])
def test_damaged_parameters_are_found_and_trained_again(
  damage, killed, tmp_path
):
  workdir = shutil.copytree(killed, tmp_path / 'study')
  weak, labels = tiny.stage(workdir, 'weak'), tiny.stage(workdir, 'labels')
  files = [path for path in weak.rglob('params/**/*') if path.is_file()]
  damage(max(files, key=lambda path: path.stat().st_size))
  with pytest.raises(errors.UserError, match=f'{weak}/params is damaged'):
    checkpoint.load_model(workdir, 'weak')
  shutil.rmtree(labels)  # to be made again, from these parameters
  assert f'{weak}/params is damaged and made again' in repaired(workdir)
  assert_close(workdir, killed)


def test_damaged_parameters_before_done_are_trained_again(killed, tmp_path):
  workdir = shutil.copytree(killed, tmp_path / 'study')
  weak = tiny.stage(workdir, 'weak')
  (weak / 'DONE').unlink()
  files = [path for path in weak.rglob('params/**/*') if path.is_file()]
  flip(max(files, key=lambda path: path.stat().st_size))
  repaired(workdir)
  assert_close(workdir, killed)
