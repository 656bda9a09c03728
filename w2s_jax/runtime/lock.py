"""Locks between jobs that share a workdir, on one machine or on many.

A lock is a file that one job alone can create, on a disk or in a bucket, and
that its holder rewrites every few seconds. One that has not changed for EXPIRY
seconds, by the clock of whoever waits, belongs to a job that died, and is taken
over; on the same machine that is seen at once.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid

from etils import epath
import fsspec

EXPIRY = 90.0
_BEAT = 10.0
_LOOK = 0.5
_SETTLE = 1.0


@contextlib.contextmanager
def hold(path, *, until=lambda: False, waiting=lambda: None):
  """Waits for the lock at `path`, holds it inside, and removes it.

  Args:
    until: asked while waiting; once true nothing is held.
    waiting: called once if another job holds the lock.

  Yields:
    Whether the lock is held, and not `until` true instead.
  """
  path = epath.Path(path)
  holder = json.dumps(
    {'host': socket.gethostname(), 'pid': os.getpid(), 'id': uuid.uuid4().hex}
  )
  held = _acquire(path, holder, until, waiting)
  if not held:
    yield False
    return
  stop = threading.Event()
  beat = threading.Thread(
    target=_keep, args=(path, holder, stop), daemon=True, name=f'lock {path}'
  )
  beat.start()
  try:
    yield True
  finally:
    stop.set()
    beat.join()
    if _is_of(holder, path):
      path.unlink(missing_ok=True)


def _acquire(path, holder, until, waiting):
  seen, since, told = None, time.monotonic(), False
  while True:
    if until():
      return False
    if _create(path, holder):
      return True
    try:
      content = path.read_text()
    except FileNotFoundError:
      continue  # given back just now
    if content != seen:
      seen, since = content, time.monotonic()
    if time.monotonic() - since > EXPIRY or _is_dead(content):
      path.write_text(_stamped(holder, 0))
      time.sleep(_SETTLE)  # of several who do so, the last one gets it
      if _is_of(holder, path):
        return True
      continue
    if not told:
      waiting()
      told = True
    time.sleep(_LOOK)


def _create(path, holder):
  """Whether the lock was free and is the holder's now."""
  try:
    with fsspec.open(str(path), 'xb') as file:
      file.write(_stamped(holder, 0).encode())
    return True
  except FileExistsError:
    return False


def _stamped(holder, beat):
  return f'{holder}\n{beat}\n'


def _is_of(holder, path):
  """Whether it is not another's, who took it for one left behind."""
  try:
    return path.read_text().startswith(holder)
  except FileNotFoundError:
    return False


def _keep(path, holder, stop):
  beat = 0
  while not stop.wait(_BEAT) and _is_of(holder, path):
    beat += 1
    path.write_text(_stamped(holder, beat))


def _is_dead(content):
  """Whether the holder was a process of this machine that is no more."""
  try:
    holder = json.loads(content.partition('\n')[0])
  except ValueError:
    return False  # being written
  if holder['host'] != socket.gethostname():
    return False
  try:
    os.kill(holder['pid'], 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    pass  # it lives, as somebody else
  return False
