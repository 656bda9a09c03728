"""Signals to real processes: the first asks to stop, the second ends."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from w2s_jax.runtime import preemption

import tiny

LISTEN = """
import sys, time
from w2s_jax.runtime import preemption
preemption.listen()
assert 'jax' not in sys.modules
"""
LOOP = """
print('ready', flush=True)
while preemption._first_signal is None:
  time.sleep(0.01)
print('asked', flush=True)
time.sleep(0.5 if 'short' in sys.argv else 60)
sys.exit(preemption.exit_code())
"""
# The main thread compiles this for half a minute or more.
COMPILE = """
import jax, jax.numpy as jnp
def slow(x):
  for i in range(1000):
    x = jnp.sort(x * 1.1 + i, axis=i % 2)
  return x
lowered = jax.jit(slow).lower(jnp.ones((32, 32)))
print('ready', flush=True)
lowered.compile()
"""
# And here a thread does, as the main thread needs the outcome.
COMPILE_AHEAD = """
import jax, jax.numpy as jnp
from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead
compile_ahead._cores = lambda: 2
def slow(batch):
  print('ready', flush=True)
  x = batch['tokens'] * 1.0
  for i in range(1000):
    x = jnp.sort(x * 1.1 + i, axis=i % 2)
  return x
mesh = sharding.make_mesh(devices=jax.devices()[:1])
batch = sharding.place_batch(mesh, {'tokens': jnp.ones((32, 32), int)})
with jax.set_mesh(mesh), compile_ahead.Programs(
  jax.jit(slow), mesh, lengths=(32,), place=0
) as run:
  run(batch)
"""
NUMPY = """
import numpy as np
x = np.random.default_rng(0).random(20_000_000)
print('ready', flush=True)
while True:
  np.sort(x)
"""
LINES = {
  signal.SIGINT: (
    'Stopping after the next checkpoint; press Ctrl-C again to end at once.\n'
  ),
  signal.SIGTERM: (
    'Stopping after the next checkpoint; a second SIGTERM ends it at once.\n'
  ),
}
CODES = {signal.SIGINT: 130, signal.SIGTERM: preemption.EXIT_CODE}
BOTH = pytest.mark.parametrize('number', LINES)


def launch(code, *args):
  """A process that listens and runs `code`."""
  return subprocess.Popen(
    [sys.executable, '-c', LISTEN + code, *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=tiny.ROOT,
    env=tiny.environment() | {'PYTHONPATH': str(tiny.ROOT)},
  )


def start(code, *args):
  """A process of `launch` which has printed 'ready'."""
  process = launch(code, *args)
  wait_until_ready(process)
  return process


def wait_until_ready(process):
  assert process.stdout.readline() == 'ready\n', process.communicate()[1]


def end(process):
  """Waits; returns (exit code, stderr)."""
  _, errors = process.communicate(timeout=60)
  return process.returncode, errors


def second(process, number):
  time.sleep(2 * preemption._SAME_REQUEST)
  process.send_signal(number)
  started = time.monotonic()
  code, errors = end(process)
  assert time.monotonic() - started < 10
  return code, errors


@BOTH
def test_first_signal_asks_to_stop(number):
  process = start(LOOP, 'short')
  process.send_signal(number)
  assert end(process) == (CODES[number], LINES[number])


@BOTH
@pytest.mark.parametrize('last', LINES)
def test_second_signal_ends_at_once(number, last):
  process = start(LOOP)
  process.send_signal(number)
  assert process.stdout.readline() == 'asked\n'
  assert second(process, last) == (128 + last, LINES[number])


def test_signals_of_one_request_count_once():
  twice = """
import os, signal
for _ in range(2):
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.05)
"""
  process = launch(twice + LOOP, 'short')
  assert end(process) == (CODES[signal.SIGTERM], LINES[signal.SIGTERM])


def test_other_signals_ask_nothing():
  process = start(
    'import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print("other", '
    'flush=True))' + LOOP,
    'short',
  )
  process.send_signal(signal.SIGUSR1)
  assert process.stdout.readline() == 'other\n'
  process.send_signal(signal.SIGINT)
  assert end(process) == (130, LINES[signal.SIGINT])


@BOTH
@pytest.mark.parametrize('work', [COMPILE, COMPILE_AHEAD, NUMPY])
def test_signals_while_the_main_thread_is_busy(work, number):
  process = start(work)
  started = time.monotonic()
  process.send_signal(number)
  assert process.stderr.readline() == LINES[number]
  assert time.monotonic() - started < 10
  assert process.poll() is None
  assert second(process, number) == (128 + number, '')


def test_a_closed_stderr_does_not_end_the_listening():
  process = start('import os\nos.close(2)' + LOOP)
  process.send_signal(signal.SIGINT)
  assert process.stdout.readline() == 'asked\n'
  assert second(process, signal.SIGINT) == (130, '')


TOGETHER = """
import jax, os, signal
if 'early' in sys.argv:  # before jax handles SIGTERM
  os.kill(os.getpid(), signal.SIGTERM)
address, process = sys.argv[1:3]
jax.distributed.initialize(address, 2, int(process))
jax.devices()
print('ready', flush=True)
calls = 0
while not preemption.stop_requested():
  calls += 1
  time.sleep(0.02)
print(calls, flush=True)
jax.distributed.shutdown()
sys.exit(preemption.exit_code())
"""


@pytest.mark.parametrize('how', ['SIGINT', 'SIGTERM', 'early'])
def test_several_processes_stop_at_the_same_call(how):
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{s.getsockname()[1]}'
  arguments = [[address, '0'], [address, '1']]
  if how == 'early':
    arguments[1].append('early')
  processes = [launch(TOGETHER, *own) for own in arguments]
  try:
    for process in processes:
      wait_until_ready(process)
    if how != 'early':
      time.sleep(0.5)
      processes[1].send_signal(getattr(signal, how))
    printed = [process.communicate(timeout=60) for process in processes]
  finally:
    for process in processes:
      process.kill()
  calls = [int(stdout) for stdout, _ in printed]
  assert calls[0] == calls[1] > 0
  codes = [process.returncode for process in processes]
  assert codes == [75, 130 if how == 'SIGINT' else 75]
  if how == 'SIGINT':
    assert LINES[signal.SIGINT] in printed[1][1]
