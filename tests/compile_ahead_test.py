"""Compilation for several batch lengths in threads."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead

import tiny


def placed(mesh, length):
  tokens = np.arange(2 * length, dtype=np.int32).reshape(2, length)
  return sharding.place_batch(mesh, {'tokens': tokens})


def traced_by(function):
  """Returns a jitted function and a list of its traces (length, thread)."""
  traces = []

  def noted(scale, batch):
    traces.append((batch['tokens'].shape[-1], threading.current_thread()))
    return function(scale, batch)

  return jax.jit(noted), traces


def total(scale, batch):
  return scale * jnp.sum(batch['tokens'])


@pytest.mark.parametrize('cores, ahead', [(1, {8}), (4, {4, 8, 16})])
def test_all_lengths_compile_in_threads_given_several_cores(
  cores, ahead, monkeypatch
):
  monkeypatch.setattr(compile_ahead, '_cores', lambda: cores)
  mesh = tiny.one_device()
  function, traces = traced_by(total)
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(function, mesh, lengths=(4, 8, 16), place=1) as ask,
  ):
    for length in (8, 4, 16, 8):
      assert ask(2, placed(mesh, length)) == 2 * sum(range(2 * length))
  assert sorted(length for length, _ in traces) == [4, 8, 16]
  elsewhere = [n for n, thread in traces if thread != threading.main_thread()]
  assert set(elsewhere) == ahead


def test_other_lengths_compile_when_needed():
  mesh = tiny.one_device()
  function, traces = traced_by(total)
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(function, mesh, lengths=(4,), place=1) as ask,
  ):
    assert [ask(1, placed(mesh, n)) for n in (4, 6, 6)] == [28, 66, 66]
  assert [length for length, _ in traces] == [4, 6]


def test_compile_error_is_raised_by_the_call_that_needs_the_program():
  mesh = tiny.one_device()

  def short(scale, batch):
    if batch['tokens'].shape[-1] > 4:
      raise ValueError('too long')
    return total(scale, batch)

  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(
      jax.jit(short), mesh, lengths=(4, 8), place=1
    ) as ask,
  ):
    assert ask(1, placed(mesh, 4)) == 28
    with pytest.raises(ValueError, match='too long'):
      ask(1, placed(mesh, 8))
