"""How a command that failed ends: with one line, and a traceback in a file.

An errors.UserError is its message. A disk that is full or not writable is named
with what to do. Any other exception is a defect: the line has its type and
message and the file with its whole traceback.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
import traceback

from etils import epath

from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.runtime import run_record

_ADVICE = {
  errno.ENOSPC: 'Free some space',
  errno.EDQUOT: 'Free some space or raise the quota',
  errno.EROFS: 'Make it writable',
  errno.EACCES: 'Change its permissions',
}
_LONGEST = 500  # characters of a message; the file has all


@contextlib.contextmanager
def one_line(workdir):
  """Ends the program with one line on stderr and status 1 after an exception.

  Tracebacks are written to WORKDIR/errors/. Without a workdir an exception that
  nobody has to mend on a disk or in a command passes unchanged.
  """
  _silence_orbax()
  try:
    yield
  except errors.UserError as e:
    sys.exit(f'error: {flat(e)}')
  except Exception as e:
    if found := disk_failure(e):
      print(f'error: {disk_message(*found, workdir)}', file=sys.stderr)
      _exit_now()
    if not workdir:
      raise
    sys.exit(f'error: {defect_message(e, workdir)}')


def flat(error):
  """Returns the message of an exception and its notes in one line."""
  return ' '.join(' '.join([str(error), *notes_of(error)]).split())


def notes_of(error):
  """Returns the notes of an exception, but for JAX's on its hidden frames."""
  notes = getattr(error, '__notes__', ())
  return [' '.join(x.split()) for x in notes if not x.startswith('---')]


def defect_message(error, workdir):
  """Writes the traceback; returns type, message and path of the file."""
  message = ' '.join(str(error).split())
  if len(message) > _LONGEST:
    message = f'{message[:_LONGEST]} ...'
  line = ' '.join([f'{type(error).__name__}: {message}', *notes_of(error)])
  folder = epath.Path(workdir).expanduser() / 'errors'
  path = folder / f'{run_record.new_name()}.txt'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(traceback.format_exception(error)))
  except Exception:  # whatever the reason, the traceback must not be lost
    traceback.print_exception(error)
    return line
  return f'{line} (traceback: {path})'


def chain(error):
  """Yields an exception, those that caused it and the members of groups.

  As in a traceback, a context is followed where no cause is given and `from
  None` does not hide it.
  """
  waiting, seen = [error], set()
  while waiting:
    error = waiting.pop(0)
    if error is None or id(error) in seen:
      continue
    seen.add(id(error))
    yield error
    waiting += getattr(error, 'exceptions', ())
    if error.__cause__ or not error.__suppress_context__:
      waiting.append(error.__cause__ or error.__context__)


def disk_failure(error):
  """Returns (errno, path or None) if a disk stands behind it, else None.

  TensorStore and Orbax report a failed write as a ValueError whose text holds
  the reason and the path; RESOURCE_EXHAUSTED alone may be memory.
  """
  for link in chain(error):
    if isinstance(link, OSError) and link.errno in _ADVICE:
      named = isinstance(link.filename, (str, bytes))
      return link.errno, os.fsdecode(link.filename) if named else None
    if isinstance(link, errors.UserError):
      continue  # quotes a reason that its own message explains
    for code in _ADVICE:
      if os.strerror(code) in str(link):
        quoted = re.search(r'[\'"]((?:\w+:/)?/[^\'"]+)[\'"]', str(link))
        return code, quoted[1] if quoted else None
  return None


def disk_message(code, path, workdir):
  """Returns a line that names the folder and says what to do."""
  folder = _folder(code, path, workdir)
  line = f'{folder}: {os.strerror(code)}. {_ADVICE[code]}'
  if not workdir:
    return f'{line}.'
  return f'{line}; the same command goes on from the last checkpoint.'


def _folder(code, path, workdir):
  """Returns the folder that is full or not writable."""
  if code in (errno.ENOSPC, errno.EDQUOT):
    if path is None:
      return _fullest(workdir)
    if workdir and path.startswith(f'{_absolute(workdir)}/'):
      return workdir  # as it was typed
    return os.path.dirname(path)
  if path is None:
    return workdir or 'a folder'
  parent = os.path.dirname(path) or '.'
  return path if os.access(parent, os.W_OK) else parent


def _fullest(workdir):
  if workdir and '://' in workdir:
    return workdir
  folders = [workdir, str(assets.cache_dir()), tempfile.gettempdir()]
  return min(filter(None, folders), key=_free)  # the first of equals


def _absolute(workdir):
  if '://' in workdir:
    return workdir
  return str(pathlib.Path(workdir).expanduser().absolute())


def _free(folder):
  """Returns the free bytes of a local folder's disk."""
  folder = pathlib.Path(folder).expanduser().absolute()
  existing = next(p for p in (folder, *folder.parents) if p.exists())
  return shutil.disk_usage(existing).free


def _silence_orbax():
  """Drops tracebacks that Orbax logs in threads before it raises them, too."""
  logging.getLogger('absl').addFilter(
    lambda record: not (record.exc_info and 'orbax' in record.pathname)
  )


def _exit_now():
  """Leaves without waiting: threads that still write would print failures."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
