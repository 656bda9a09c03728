"""Locks between jobs that share a workdir, on one machine or on several.

A lock is a file that only one job can create, on a disk or in a bucket. Its
holder rewrites it every few seconds. A lock that has not changed for EXPIRY
seconds, by the clock of the job that waits for it, belongs to a dead job and is
taken over. The death of a holder on the same machine is noticed at once.

A job that was suspended, or that could not write for EXPIRY seconds, loses its
lock in the same way. Call `Lock.check` before each write that the lock guards.
"""

import contextlib
import itertools
import json
import os
import pathlib
import socket
import threading
import time
import uuid

from etils import epath
import fsspec

from w2s_jax import errors

# All in seconds.
EXPIRY = 90.0
_UNREADABLE_EXPIRY = 3.0  # of a file without a holder: its creation crashed
_BEAT = 10.0
_RETRY = 0.5  # after the first failed beat; doubles up to _BEAT
_POLL = 0.5
_SETTLE = 1.0


class Lost(errors.UserError):
  """Another job holds the lock, or may hold it by now."""


@contextlib.contextmanager
def hold(path, *, until=lambda: False, waiting=lambda: None):
  """Waits for the lock at `path`, holds it in the block, then removes it.

  Args:
    path: a file, local or in a bucket; its folder exists.
    until: polled while waiting; once true, waiting ends without the lock.
    waiting: called once if another job holds the lock.

  Yields:
    The `Lock`, or None if `until` became true first.

  Raises:
    UserError: `path` is a folder.
  """
  lock = Lock(path)
  if not lock._acquire(until, waiting):
    yield None
    return
  stop = threading.Event()
  beat = threading.Thread(
    target=lock._keep, args=(stop,), daemon=True, name=f'lock {path}'
  )
  beat.start()
  try:
    yield lock
  finally:
    stop.set()
    beat.join()
    lock._release()


class Lock:
  """A lock that `hold` acquired."""

  def __init__(self, path):
    self._path = epath.Path(path)
    owner = uuid.uuid4().hex
    self._partial = self._path.with_name(f'{self._path.name}.{owner}.partial')
    self._holder = json.dumps(_holder() | {'id': owner})
    self._renewed = None  # a time before the last write, so it errs early
    self._taken = False
    self._error = None  # of the last beat

  def check(self):
    """Raises Lost unless the lock is still held.

    It reads the file, as another job may have taken over between two beats.
    """
    if not self._taken:
      with contextlib.suppress(Exception):  # the beat retries, up to EXPIRY
        self._taken = not self._is_held()
    where = f'{self._path.parent}: '
    if self._taken:
      raise Lost(
        f'{where}another job took over {self._path.name}; this one stops.'
      )
    if time.monotonic() - self._renewed > EXPIRY:
      raise Lost(
        f'{where}{self._path.name} was not renewed for {EXPIRY:.0f} s '
        f'({self._error!r}) and another job may take over; this one stops.'
      )

  def _acquire(self, until, waiting):
    """Returns whether the lock is held, else `until` is true."""
    seen, since, told = None, time.monotonic(), False
    while not until():
      self._renewed = time.monotonic()
      self._create()
      content = _read(self._path)
      if content is None:
        continue  # released just now
      if content.startswith(self._holder):
        return True
      if content != seen:
        seen, since = content, time.monotonic()
      if _is_dead(content, time.monotonic() - since):
        if self._take_over(content):
          return True
        continue
      if not told:
        waiting()
        told = True
      time.sleep(_POLL)
    return False

  def _create(self):
    """Writes the file unless it exists."""
    with contextlib.suppress(FileExistsError):
      with fsspec.open(str(self._path), 'xb') as file:
        file.write(self._content(beat=0).encode())

  def _take_over(self, dead):
    """Replaces the content of a dead holder; returns whether it did.

    Jobs that wait for the same lock try one after the other. Else a slow write
    of one could replace the lock of another, which then works already.
    """
    with hold(self._path.with_name(f'{self._path.name}.takeover')):
      if _read(self._path) != dead:
        return False
      self._renewed = time.monotonic()
      self._write(beat=0)
      time.sleep(_SETTLE)  # a last write of the old holder may be on its way
      return self._is_held()

  def _keep(self, stop):
    """Renews the lock until `stop` is set or the lock is lost."""
    wait, failures = _BEAT, 0
    for beat in itertools.count(1):
      if stop.wait(wait):
        return
      now = time.monotonic()
      if now - self._renewed > EXPIRY:
        return
      try:
        if not self._is_held():
          self._taken = True
          return
        self._write(beat)
      except Exception as error:  # clients of buckets raise more than OSError
        self._error = error
        wait = min(_RETRY * 2**failures, _BEAT)
        failures += 1
      else:
        self._renewed, self._error = now, None
        wait, failures = _BEAT, 0

  def _release(self):
    if self._is_held():
      self._path.unlink(missing_ok=True)

  def _is_held(self):
    return (_read(self._path) or '').startswith(self._holder)

  def _write(self, beat):
    """Replaces the file as a whole: readers take a truncated one for dead."""
    if '://' in str(self._path):  # objects of a bucket always appear whole
      self._path.write_text(self._content(beat))
    else:
      self._partial.write_text(self._content(beat))
      self._partial.replace(self._path)

  def _content(self, beat):
    return f'{self._holder}\n{beat}\n'


def _read(path):
  """Returns the content of a lock, None if there is no file.

  A dangling symlink, which prevents creation like a file, is an empty lock.
  """
  try:
    return path.read_bytes().decode(errors='replace')
  except FileNotFoundError:
    return '' if os.path.islink(path) else None
  except IsADirectoryError as error:
    raise errors.UserError(
      f'{path} is a folder, but jobs lock a file of this name; delete it and '
      'run again.'
    ) from error


def _is_dead(content, seconds):
  """Whether the holder of a lock that did not change for `seconds` is dead."""
  line, newline, _ = content.partition('\n')
  try:
    holder = json.loads(line) if newline else None
  except ValueError:
    holder = None
  if not isinstance(holder, dict) or not isinstance(holder.get('pid'), int):
    return seconds > _UNREADABLE_EXPIRY
  return seconds > EXPIRY or _has_ended(holder)


def _has_ended(holder):
  """Whether the holder was a process of this machine that has ended."""
  pid, machine = holder['pid'], _machine()
  if {key: holder.get(key) for key in machine} != machine:
    return False
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    pass  # it runs as another user
  process = _process(pid)
  if process is None:
    return False
  state, started = process
  reused = holder.get('started') not in (None, started)
  return reused or state in 'ZX'


def _holder():
  process = _process(os.getpid())
  started = process and process[1]
  return {**_machine(), 'pid': os.getpid(), 'started': started}


def _machine():
  """Identifies what a PID refers to: the boot of a host and its namespace.

  Containers may share the name of the host, its boot, or both, but not the
  namespace of PIDs. Where there is no /proc (macOS) the host's name must do.
  """
  boot = namespace = None
  with contextlib.suppress(OSError):
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  with contextlib.suppress(OSError):
    namespace = os.readlink('/proc/self/ns/pid')
  return {'host': socket.gethostname(), 'boot': boot, 'pid_space': namespace}


def _process(pid):
  """Returns (state, start in clock ticks since boot), None without /proc."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_bytes().decode('latin-1')
  except OSError:
    return None
  fields = stat.rpartition(')')[2].split()  # the name before may hold ')'
  return fields[0], fields[19]
