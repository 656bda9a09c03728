"""Compilation for several batch lengths in threads."""

from concurrent import futures
import threading
import time

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


def slow(function, seconds):
  """Returns the function, which takes some seconds to trace."""

  def traced(scale, batch):
    time.sleep(seconds)
    return function(scale, batch)

  return jax.jit(traced)


def total(scale, batch):
  return scale * jnp.sum(batch['tokens'])


@pytest.mark.parametrize('cores, ahead', [(1, {8}), (4, {4, 8, 16})])
def test_all_lengths_compile_at_once_given_several_cores(
  cores, ahead, monkeypatch
):
  monkeypatch.setattr(compile_ahead, '_cores', lambda: cores)
  mesh = tiny.one_device()
  function, traces = traced_by(total)
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(function, mesh, lengths=(4, 8, 16), place=1) as ask,
  ):
    assert ask.num_compiling() == 0
    ask(2, placed(mesh, 8))
    futures.wait(ask._started.values())
    assert ask.num_compiling() == 0
    assert {length for length, _ in traces} == ahead
    for length in (8, 4, 16, 8):
      assert ask(2, placed(mesh, length)) == 2 * sum(range(2 * length))
  assert sorted(length for length, _ in traces) == [4, 8, 16]
  assert threading.main_thread() not in {thread for _, thread in traces}
  assert ask.waits == {1: 3, 4: 1}[cores]


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


def test_stopwatch_counts_what_its_thread_waits_for(monkeypatch):
  monkeypatch.setattr(compile_ahead, '_cores', lambda: 4)
  mesh = tiny.one_device()
  with jax.set_mesh(mesh), compile_ahead.Stopwatch() as compiling:
    time.sleep(0.3)
    with compile_ahead.Programs(
      slow(total, 0.5), mesh, lengths=(4, 8), place=1
    ) as ask:
      ask(1, placed(mesh, 4))
      futures.wait(ask._started.values())
      before = compiling.seconds
      ask(1, placed(mesh, 8))
      ask(1, placed(mesh, 4))
  assert compiling.seconds < before + 0.1, 'another thread compiled'
  assert 0.5 <= before < 1.5, 'what compiles side by side counts once'


def test_stopwatch_counts_nested_functions_once_and_ends():
  inner, outer = slow(total, 0.3), slow(total, 0.1)
  with compile_ahead.Stopwatch() as compiling:
    both = jax.jit(lambda s, b: outer(s, b) + inner(s, b))
    started = time.monotonic()
    both(1, {'tokens': jnp.ones(3)})
    seconds = time.monotonic() - started
  assert 0.4 <= compiling.seconds <= seconds
  before = compiling.seconds
  jax.jit(lambda x: x + 2)(1)
  assert compiling.seconds == before


def test_flops_are_those_of_the_last_call():
  mesh = tiny.one_device()
  function = jax.jit(lambda w, batch: batch['tokens'].astype(w.dtype) @ w)
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(function, mesh, lengths=(4,), place=1) as ask,
  ):
    for length in (4, 8, 4):
      ask(jnp.ones((length, 5)), placed(mesh, length))
      assert ask.flops == 2 * 2 * length * 5
