"""Runs generator functions in their own processes, on one core each, by turns.

A process computes the next value on request, and reports its time.
"""

import multiprocessing
import os
import time
from typing import Any
from typing import NamedTuple

from w2s_jax import errors

# One thread, so that CPU seconds are seconds of a core.
_XLA_FLAGS = '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'


class Taken(NamedTuple):
  value: Any
  cpu: float  # seconds of the process
  wall: float


class Process:
  """A generator in a process that starts at the first `next`.

  If `pinned` it has one core and one thread.
  """

  def __init__(self, run, *, pinned=True, environment=None, **arguments):
    context = multiprocessing.get_context('spawn')
    self._pipe, self._theirs = context.Pipe()
    self._process = context.Process(
      target=_serve,
      args=(self._theirs, run, arguments, pinned, environment or {}),
      daemon=True,
    )

  def next(self):
    """Returns the next value as `Taken`; the first includes the start-up.

    Raises:
      errors.UserError: raised by the generator.
      RuntimeError: the process died; its stderr has the reason.
    """
    started = time.monotonic()
    if self._process.pid is None:
      self._process.start()
      self._theirs.close()  # else a death over there would not be noticed
    self._pipe.send(None)
    try:
      value, cpu = self._pipe.recv()
    except (EOFError, ConnectionError):
      raise RuntimeError('a process of the benchmark died; see above') from None
    if isinstance(value, Exception):
      raise value
    return Taken(value, cpu, time.monotonic() - started)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.stop()

  def stop(self):
    if self._process.pid is not None:
      self._process.kill()  # main.py would take SIGTERM for a preemption
      self._process.join()


def _serve(pipe, run, arguments, pinned, environment):
  os.environ.update(environment)
  if pinned:
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} {_XLA_FLAGS}'
    if hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
  values, spent = run(**arguments), 0.0
  while True:
    try:
      pipe.recv()
    except EOFError:
      return
    try:
      value = next(values)
    except errors.UserError as e:
      value = e
    now = time.process_time()
    pipe.send((value, now - spent))
    spent = now


def platform():
  """Yields the default backend; in a process that releases the device."""
  import jax

  yield jax.default_backend()


def on_cpu():
  with Process(platform) as asked:
    return asked.next().value == 'cpu'
