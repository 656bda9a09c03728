"""Stopping in time, and together: of several processes none waits for the lost.

A machine that will be taken away says so with SIGTERM.
"""

import contextlib
import itertools
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

# What the program of a job that is to be started again exits with (EX_TEMPFAIL
# of sysexits.h).
EXIT_CODE = 75

# So long a process that failed waits for the others to end with it.
_PATIENCE = 5.0

_asked = threading.Event()
_calls = itertools.count()


class Preempted(Exception):
  """Training stopped where it was asked to; its checkpoint is saved."""


def listen():
  """From now on SIGTERM is answered by `is_asked` and ends nothing itself.

  Several processes have listened since jax.distributed.initialize, and tell
  each other; a handler of ours would take the signal from them.
  """
  if jax.process_count() == 1:
    signal.signal(signal.SIGTERM, lambda *_: _asked.set())


def is_asked():
  """Whether to save and stop now; at the same call on all processes."""
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(next(_calls))
  return _asked.is_set()


@contextlib.contextmanager
def failing_alone():
  """A process that fails in here ends soon, whatever the others do.

  By itself it would wait minutes at its exit for the others, and they for it
  in the middle of a step.
  """
  try:
    yield
  except Exception as error:
    if jax.process_count() > 1:
      if isinstance(error, jax.errors.JaxRuntimeError):
        error.add_note(
          f'Process {jax.process_index()} of {jax.process_count()} ends. If '
          'another was lost, its output says why; the same command goes on '
          'from the last checkpoint.'
        )
      last_moment = threading.Timer(_PATIENCE, _leave)
      last_moment.daemon = True
      last_moment.start()
    raise


def _leave():
  sys.stdout.flush()
  os._exit(1)
