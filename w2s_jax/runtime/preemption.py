"""Coordinated checkpoint-and-exit on SIGTERM and SIGINT.

The first signal requests a stop: training saves a checkpoint at its next step
and the program exits with `exit_code`. A second signal ends the process at
once, which is safe because all files are replaced atomically.

This module does not import jax before it is needed, so that `listen` can come
before every slow import.
"""

import contextlib
import itertools
import os
import signal
import sys
import threading
import time

# Exit status of a job that is to be started again (EX_TEMPFAIL of sysexits.h).
EXIT_CODE = 75

_AGAIN = {
  signal.SIGINT: 'press Ctrl-C again to end at once',
  signal.SIGTERM: 'a second SIGTERM ends it at once',
}
# Seconds in which further signals belong to the first: launchers such as
# timeout(1) and srun signal both a process and its group.
_SAME_REQUEST = 0.3
# Seconds that a failed process waits for its peers to end with it.
_PATIENCE = 5.0

_first_signal = None
_forwarded = False
_calls = itertools.count()


class Preempted(Exception):
  """Training stopped because a stop was requested; its checkpoint is saved."""


def listen():
  """Handles SIGINT and SIGTERM from now on.

  Call it once, in the main thread, before jax.distributed.initialize: of
  several processes the preemption service of jax takes SIGTERM over and must
  keep it. It ignores a second SIGTERM; a second SIGINT ends the process.

  Python runs its signal handlers between two bytecodes of the main thread,
  which may compile or wait for a device for minutes. Therefore a thread reads
  the numbers of the signals from a pipe, which the interpreter writes at once.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  for number in _AGAIN:
    signal.signal(number, lambda *_: None)  # else there is no write either
  threading.Thread(
    target=_watch, args=(reader,), daemon=True, name='signals'
  ).start()


def _watch(reader):
  global _first_signal
  while True:
    (number,) = os.read(reader, 1)
    if number not in _AGAIN:
      continue
    if _first_signal is None:
      _first_signal, since = number, time.monotonic()
      _print(f'Stopping after the next checkpoint; {_AGAIN[number]}.\n')
    elif time.monotonic() - since > _SAME_REQUEST:
      if os.isatty(2):
        _print('\x1b[?25h')  # a live progress bar hides the cursor
      os._exit(128 + number)


def _print(text):
  """Writes to stderr at once, whatever lock the main thread holds."""
  with contextlib.suppress(OSError):
    os.write(2, text.encode())


def stop_requested():
  """Returns whether to save a checkpoint and raise Preempted now.

  Call it at each training step, after each prediction batch and between stages.
  Several processes must call it equally often, and get True at the same call:
  after a signal to any of them jax agrees on a call that none has reached yet.
  No call waits for the other processes.
  """
  import jax

  if jax.process_count() == 1:
    return _first_signal is not None
  from jax.experimental import multihost_utils

  global _forwarded
  if _first_signal is not None and not _forwarded:
    _forwarded = True
    signal.raise_signal(signal.SIGTERM)  # jax handles no SIGINT
  return multihost_utils.reached_preemption_sync_point(next(_calls))


def exit_code():
  """Exit status after Preempted: 130 if SIGINT came first, else EXIT_CODE.

  Of several processes, those that got no signal exit with EXIT_CODE.
  """
  if _first_signal == signal.SIGINT:
    return 128 + signal.SIGINT
  return EXIT_CODE


@contextlib.contextmanager
def exit_on_peer_failure():
  """Ends a process that fails in the block soon, whatever its peers do.

  Otherwise it would wait minutes at exit for the peers, which wait for it in
  the middle of a step.
  """
  try:
    yield
  except Exception as error:
    import jax

    if jax.process_count() > 1:
      if isinstance(error, jax.errors.JaxRuntimeError):
        error.add_note(
          f'Process {jax.process_index()} of {jax.process_count()} ends. If '
          'another was lost, its output has the reason; run the same command '
          'again to resume from the last checkpoint.'
        )
      last_moment = threading.Timer(_PATIENCE, _leave)
      last_moment.daemon = True
      last_moment.start()
    raise


def _leave():
  sys.stdout.flush()
  os._exit(1)
