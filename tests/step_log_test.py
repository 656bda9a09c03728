"""Metrics of steps, one step late, with the speed of each."""

import io
import json
import types

import jax
import numpy as np
import pytest
import rich.console

from w2s_jax import errors
from w2s_jax.runtime import chips
from w2s_jax.runtime import logger as logger_lib
from w2s_jax.runtime import step_log


class Programs:
  """Of a training step of 300 FLOPs."""

  flops, waits = 300, 1
  mesh = types.SimpleNamespace(devices=np.array(jax.devices()[:1]))

  def num_compiling(self):
    return 0


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def batch(lengths):
  weight = [float(n > 0) for n in lengths]
  return {'length': np.array(lengths), 'weight': np.array(weight, np.float32)}


BATCHES = [batch([3, 5, 0]), batch([4, 16, 0])]  # of two members


def log(folder, programs, clock):
  loggers = [
    logger_lib.Logger(
      folder / name,
      console=rich.console.Console(file=io.StringIO()),
      is_primary=True,
      clock=clock,
    )
    for name in ('a', 'b')
  ]
  return step_log.StepLog(loggers, ['a', 'b'], 'both', 9, 0, programs)


def lines(folder):
  """Lines of metrics.jsonl of each member."""
  texts = [(folder / name / 'metrics.jsonl').read_text() for name in ('a', 'b')]
  return [[json.loads(x) for x in text.splitlines()] for text in texts]


def test_members_have_tokens_of_their_own_and_share_utilization(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(chips, 'peak_flops', lambda _: 1000)
  programs, clock = Programs(), Clock()
  with log(tmp_path, programs, clock) as steps:
    for step in range(4):
      clock.now += 10 * step
      programs.waits += step == 3  # its program was not compiled yet
      steps.add(step, {'train/loss': np.array([1.0, 2.0])}, BATCHES)
    clock.now += 40
  ours, theirs = lines(tmp_path)
  assert ours == [
    {'step': 0, 'train/loss': 1.0},  # the first of a program
    {
      'step': 1,
      'train/loss': 1.0,
      'train/tokens_per_second': 8 / 20,
      'train/mfu': 0.3 / 20,
    },
    {'step': 2, 'train/loss': 1.0},  # the next one waited meanwhile
    {
      'step': 3,
      'train/loss': 1.0,
      'train/tokens_per_second': 8 / 40,
      'train/mfu': 0.3 / 40,
    },
  ]
  assert theirs[1] == {
    'step': 1,
    'train/loss': 2.0,
    'train/tokens_per_second': 20 / 20,
    'train/mfu': 0.3 / 20,
  }


def test_metrics_are_not_read_before_the_next_step_is_dispatched(tmp_path):
  class NotReady:
    def __array__(self, *_, **__):
      raise AssertionError('the host waits for the device')

  with log(tmp_path, Programs(), Clock()) as steps:
    steps.add(0, {'train/loss': NotReady()}, BATCHES)
    steps._waiting = None


def test_diverged_member_is_named_and_not_logged(tmp_path):
  with pytest.raises(errors.DivergedError, match='^b: the loss is nan at step'):
    with log(tmp_path, Programs(), Clock()) as steps:
      steps.add(0, {'train/loss': np.array([1.0, np.nan])}, BATCHES)
  assert not [*tmp_path.rglob('metrics.jsonl')]
