"""Killed at any moment, a study ends with the bits it would have had."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from w2s_jax import checkpoint
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


# What is awaited, and a stage that can not be done by then.
KILLS = {
  'the first checkpoint of the weak model': (
    resumed('weak-*', 3),
    'weak-*',
  ),
  'weak labels are written': (
    exists('stages/labels-*/weak_labels.npz'),
    'student-*',
  ),
  'the middle of a student': (
    resumed('student-*', 6),
    'student-*',
  ),
  'between params and DONE': (
    exists('stages/student-*/params'),
    'student-*',
  ),
  'parameters appear, whole or not': (
    exists('stages/ceiling-*/params*'),
    'ceiling-*',
  ),
}


def kill_when(reached, workdir):
  """Starts the study and kills it, without warning, at the moment."""
  process = tiny.start(workdir)
  deadline = time.monotonic() + 200
  while not reached(workdir):
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.001)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """Workdir of one study that was killed at every point in turn."""
  workdir = tmp_path_factory.mktemp('killed')
  for reached, unfinished in KILLS.values():
    kill_when(reached, workdir)
    assert not exists(f'stages/{unfinished}/DONE')(workdir)
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
  return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]


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
  ('labels-*/weak_labels.npz', flip),
  ('student-*/predictions/test.npz', truncate),
  ('student-*/predictions/test.npz', flip),
  ('ceiling-*/predictions/test.npz', empty),
  ('zero_shot-*/DONE', truncate),
  ('weak-*/DONE', empty),
]


@pytest.mark.parametrize('file, damage', DAMAGES)
def test_damage_is_found_and_named(file, damage, killed, tmp_path):
  workdir = shutil.copytree(killed, tmp_path / 'study')
  (path,) = workdir.glob(f'stages/{file}')
  damage(path)
  with pytest.raises(ValueError, match=f'{re.escape(str(path))} is damaged'):
    tiny.run(workdir)


@pytest.mark.parametrize('damage', [truncate, flip, pathlib.Path.unlink])
def test_damaged_parameters_are_found_and_named(damage, killed, tmp_path):
  workdir = shutil.copytree(killed, tmp_path / 'study')
  weak, labels = tiny.stage(workdir, 'weak'), tiny.stage(workdir, 'labels')
  files = [path for path in weak.rglob('params/**/*') if path.is_file()]
  damage(max(files, key=lambda path: path.stat().st_size))
  damaged = f'{re.escape(str(weak))}/params is damaged'
  with pytest.raises(ValueError, match=damaged):
    checkpoint.load_model(workdir, 'weak')
  shutil.rmtree(labels)  # to be made again, from these parameters
  with pytest.raises(ValueError, match=damaged):
    tiny.run(workdir)


def test_asked_to_stop_it_saves_and_goes_on_to_the_same_bits(tmp_path):
  fields = {'models.strong.train.epochs': 120, 'checkpoint_every': 200}
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  tiny.finish(tiny.start(whole, **fields))
  process = tiny.start(stopped, stdout=subprocess.PIPE, **fields)
  deadline = time.monotonic() + 200
  while not resumed('student-*', 200)(stopped):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.001)
  process.send_signal(signal.SIGTERM)
  printed, _ = process.communicate(timeout=100)
  assert process.returncode == preemption.EXIT_CODE
  step = int(re.search(r'stopped before step (\d+); the same', printed)[1])
  (saved,) = stopped.glob('stages/student-*/checkpoints/[0-9]*')
  assert int(saved.name) == step >= 200
  assert not list(stopped.rglob('*LOCK'))
  tiny.finish(tiny.start(stopped, **fields))
  assert tiny.stage_names(stopped) == tiny.stage_names(whole)
  for name in tiny.stage_names(whole):
    tiny.assert_same_results(whole / 'stages' / name, stopped / 'stages' / name)
