"""Runs a function several times at once, each in a Python process of its own.

Unlike multiprocessing this imports nothing of the calling program, which may be
a notebook or a script without a main guard, and no signal of a terminal reaches
the processes: they end with the one that started them.
"""

from collections.abc import Callable
import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading

_MOST = 8
_COMMAND = 'from w2s_jax.tasks import workers; workers.serve()'
# What cannot be sent, cannot be started, or ends before it is done.
_FAILURES = AttributeError, TypeError, pickle.PickleError, OSError, EOFError


def count() -> int:
  """Returns how many processes keep the cores of this one busy."""
  if hasattr(os, 'sched_getaffinity'):
    return min(len(os.sched_getaffinity(0)), _MOST)
  return min(os.cpu_count() or 1, _MOST)


def run(function: Callable, arguments: list[tuple]) -> list | None:
  """Returns function(*each) for each of `arguments`.

  Args:
    function: of a module that is quick to import.

  Returns:
    None where processes cannot be started or one failed or was killed; the
    caller then does the work itself, and sees what is wrong.
  """
  with contextlib.ExitStack() as stack:
    try:
      calls = [pickle.dumps((function, each)) for each in arguments]
      started = [stack.enter_context(_started(call)) for call in calls]
      return [pickle.load(process.stdout) for process in started]
    except _FAILURES as error:
      logging.warning('One process does the work of several: %r', error)
      return None


@contextlib.contextmanager
def _started(call: bytes):
  """Starts a process, and kills it in the end."""
  paths = [path or os.getcwd() for path in sys.path]
  process = subprocess.Popen(
    [sys.executable, '-c', _COMMAND],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    start_new_session=True,
  )
  try:
    process.stdin.write(call)
    process.stdin.flush()  # It stays open for as long as this process lives.
    yield process
  finally:
    process.kill()
    with contextlib.suppress(OSError), process:
      pass  # Closes the pipes and waits.


def serve() -> None:
  """Is what such a process does."""
  found, sys.stdout = sys.stdout.buffer, sys.stderr
  function, arguments = pickle.load(sys.stdin.buffer)
  threading.Thread(target=_end_with_caller, daemon=True).start()
  pickle.dump(function(*arguments), found)
  found.flush()


def _end_with_caller() -> None:
  os.read(0, 1)  # Returns once the pipe is closed.
  os._exit(1)
