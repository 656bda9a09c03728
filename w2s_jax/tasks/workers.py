"""Calls a function several times at once, each in a process of its own."""

from collections.abc import Callable
from concurrent import futures
import logging
import multiprocessing
import os
import pickle
import signal
import threading

_MOST = 8
# What cannot be sent, cannot be started, or ends before it is done.
_FAILURES = (
  AssertionError,  # A daemon may not start any.
  AttributeError,
  TypeError,
  pickle.PicklingError,
  OSError,
  futures.BrokenExecutor,
)


def count() -> int:
  """Returns how many processes keep the cores of this one busy."""
  if hasattr(os, 'sched_getaffinity'):
    return min(len(os.sched_getaffinity(0)), _MOST)
  return min(os.cpu_count() or 1, _MOST)


def run(function: Callable, arguments: list[tuple]) -> list | None:
  """Returns function(*each) for each of `arguments`.

  Returns:
    None where processes cannot be started or one was killed; the caller then
    does the work itself. This is so in a script without a main guard.
  """
  spawn = multiprocessing.get_context('spawn')  # JAX's threads forbid a fork.
  try:
    with futures.ProcessPoolExecutor(len(arguments), spawn, _begin) as pool:
      calls = [pool.submit(function, *each) for each in arguments]
      return [call.result() for call in calls]
  except _FAILURES as error:
    logging.warning('One process does the work of several: %r', error)
    return None


def _begin() -> None:
  """Leaves signals of a terminal to the parent, and ends with it."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)
