"""Stopping in time: a machine that will be taken away says so with SIGTERM."""

import itertools
import signal
import threading

import jax
from jax.experimental import multihost_utils

# What the program of a job that is to be started again exits with (EX_TEMPFAIL
# of sysexits.h).
EXIT_CODE = 75

_asked = threading.Event()
_calls = itertools.count()


class Preempted(Exception):
  """Training stopped where it was asked to; its checkpoint is saved."""


def listen():
  """From now on SIGTERM is answered by `is_asked` and ends nothing itself."""
  signal.signal(signal.SIGTERM, lambda *_: _asked.set())


def is_asked():
  """Whether to save and stop now; at the same call on all processes."""
  if jax.process_count() > 1:  # jax.distributed listens by itself
    return multihost_utils.reached_preemption_sync_point(next(_calls))
  return _asked.is_set()
