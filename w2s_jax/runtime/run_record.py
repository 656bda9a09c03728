"""Records of runs: what was run, by which code, on which machine, and its end.

Each run of experiments/main.py writes WORKDIR/runs/<UTC time>-<pid>.json when
it starts and again when it ends; WORKDIR/run.json is a copy of the record that
was written last. Their fields:

  command: str, the command as it was typed, quoted for a shell; programs below
    the checkout are relative to it; `w2s run ...` where there is no checkout.
  point: int or null, that of --point.
  configs: list of dicts, the resolved config of each study, in their order; one
    of a plain run, all points of a sweep, one a task of a suite.
  versions: {'python', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint',
    'numpy', 'w2s_jax': str}; null for a package that is not there.
  git_commit: str, or null where the code is no git checkout.
  git_dirty: bool, whether files differ from the commit or are not in it; null
    as above.
  devices: {'kind': str, such as 'TPU v4', 'count': int, of all processes}.
  processes: int.
  host_cores: int, CPU cores that process 0 may use.
  started: str, UTC, as '2025-01-31T12:00:00+00:00'.
  status: 'running', then 'ok', 'stopped' (it was asked to stop and saved a
    checkpoint, or interrupted from the keyboard) or 'error'. A run that was
    killed, or found no room on the disk, keeps 'running'.
  seconds: float, wall time from start to end; null while it runs.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import time

from etils import epath
import jax

import w2s_jax
from w2s_jax import errors
from w2s_jax.runtime import files
from w2s_jax.runtime import preemption

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_CHECKOUT = pathlib.Path(w2s_jax.__file__).resolve().parents[1]
_GIT_SECONDS = 30  # at most, on a slow network disk


def new_name():
  """Returns '<UTC time>-<pid>', a file name that sorts by time."""
  now = datetime.datetime.now(datetime.UTC)
  return f'{now:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}'


def describe(argv, configs, *, point=None):
  """Returns the record of a run that starts now.

  Args:
    argv: of the program, as sys.argv.
    configs: ml_collections.ConfigDict of each study.
    point: number of the one point of a sweep that is run.
  """
  now = datetime.datetime.now(datetime.UTC)
  return {
    'command': shlex.join([*_program(argv[0]), *argv[1:]]),
    'point': point,
    'configs': [config.to_dict() for config in configs],
    'versions': versions(),
    **git_state(_CHECKOUT),
    'devices': {
      'kind': jax.devices()[0].device_kind,
      'count': jax.device_count(),
    },
    'processes': jax.process_count(),
    'host_cores': _host_cores(),
    'started': now.isoformat(timespec='seconds'),
    'status': 'running',
    'seconds': None,
  }


@contextlib.contextmanager
def keep(workdir, record):
  """Writes the record at the start and the end of a `with` block.

  A mistake of the user that ends the block before anything else is in the
  workdir leaves the workdir as it was.
  """
  workdir = epath.Path(workdir).expanduser()
  was_there = workdir.exists()
  path = workdir / 'runs' / f'{new_name()}.json'
  started, status = time.monotonic(), 'error'
  write(path, record)
  try:
    yield
    status = 'ok'
  except (preemption.Preempted, KeyboardInterrupt):
    status = 'stopped'
    raise
  except errors.UserError:
    if {x.name for x in workdir.iterdir()} == {'runs', 'run.json'}:
      _remove(path, workdir, was_there)
      status = None
    raise
  finally:
    if status:
      seconds = round(time.monotonic() - started, 3)
      ended = record | {'status': status, 'seconds': seconds}
      try:
        write(path, ended)
      except OSError:
        if status == 'ok':  # else it would hide why the run ended
          raise


def write(path, record):
  """Writes WORKDIR/runs/NAME.json, then WORKDIR/run.json, each atomically."""
  text = json.dumps(record, indent=2, default=str) + '\n'
  for target in (path, path.parent.with_name('run.json')):
    files.write_atomically(target, text)


def versions():
  """Returns {package: version or None}, and that of Python."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = None
  return found | {'w2s_jax': w2s_jax.__version__}


def git_state(folder):
  """Returns the commit of a checkout, and whether files differ from it.

  Both are None outside a checkout, also for a folder somewhere inside another
  project's checkout, and without git.
  """
  unknown = {'git_commit': None, 'git_dirty': None}
  top = _git(folder, 'rev-parse', '--show-toplevel')
  if top is None or pathlib.Path(top).resolve() != folder.resolve():
    return unknown
  commit = _git(folder, 'rev-parse', 'HEAD')
  changes = _git(folder, 'status', '--porcelain')
  if commit is None or changes is None:
    return unknown
  return {'git_commit': commit, 'git_dirty': bool(changes)}


def _git(folder, *command):
  """Returns what git prints, or None where it fails."""
  try:
    done = subprocess.run(
      ['git', '-C', str(folder), *command],
      capture_output=True,
      text=True,
      timeout=_GIT_SECONDS,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return None if done.returncode else done.stdout.strip()


def _program(path):
  """Returns the words that start a program of the checkout, or as installed."""
  absolute = pathlib.Path(path).absolute()
  if not absolute.is_relative_to(_CHECKOUT):
    return 'python', path
  if not (_CHECKOUT / 'setup.py').exists():  # installed by pip
    return 'w2s', 'run'
  return 'python', str(absolute.relative_to(_CHECKOUT))


def _host_cores():
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def _remove(path, workdir, was_there):
  """Takes back the record of a run that did nothing."""
  path.unlink()
  others = sorted(path.parent.iterdir())
  if others:
    return  # another run has begun here; run.json may be its record
  (workdir / 'run.json').unlink(missing_ok=True)
  with contextlib.suppress(FileNotFoundError):  # a bucket has no folders
    path.parent.rmdir()
    if not was_there:
      workdir.rmdir()
