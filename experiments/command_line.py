"""Flags, readable errors and caches that the commands of this folder share."""

import contextlib
import ctypes
import pathlib
import runpy
import sys

from absl import app
from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

from configs import base

ROOT = pathlib.Path(__file__).resolve().parents[1]

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of results, local or gs://; rerun to resume.'
)
TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where an error of one line came from.'
)


def run(main, required=('config', 'workdir')):
  """app.run of a main that takes no arguments, and of required flags."""

  def checked(argv):
    if len(argv) > 1:
      raise app.UsageError(f'unexpected arguments: {argv[1:]}')
    keep_memory()
    keep_compiled_programs()
    with one_line_errors():
      main()

  flags.mark_flags_as_required(required)
  app.run(checked, flags_parser=parse_flags)


def console(*, quiet=False):
  """Returns a console; where there is no terminal it has 100 columns."""
  import rich.console

  made = rich.console.Console(quiet=quiet)
  if not made.is_terminal:
    made.width = 100
  return made


def config_module():
  """Returns the globals of the file that --config names."""
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  return runpy.run_path(path.partition(':')[0])


def keep_memory():
  """Memory that a training step frees stays with the process for the next one.

  By itself glibc gives large buffers back, and the kernel zeroes them anew page
  by page: a seventh of the time of a step on a CPU. Must come before threads.
  """
  libc = ctypes.CDLL(None)
  if hasattr(libc, 'mallopt'):  # not on macOS
    for option, value in (
      (-8, 1),  # M_ARENA_MAX: one heap for all threads; others are bounded
      (-4, 0),  # M_MMAP_MAX: nothing is mapped beside the heap
      (-1, -1),  # M_TRIM_THRESHOLD: the heap never shrinks
    ):
      libc.mallopt(option, value)


def keep_compiled_programs():
  """Steps that were compiled once are read from disk by later runs."""
  import jax  # not before the flags are known to be right

  from w2s_jax import assets

  jax.config.update(
    'jax_compilation_cache_dir', str(assets.cache_dir() / 'xla')
  )
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@contextlib.contextmanager
def one_line_errors():
  """A user's mistake ends the program in one line."""
  try:
    yield
  except (ValueError, FileNotFoundError, ImportError) as e:
    if TRACEBACK.value:
      raise
    sys.exit(f'error: {e}')


def parse_flags(argv):
  """absl's parser, but a wrong config field is one readable line."""
  try:
    files = [a for a in argv if a.startswith('--config=')]
    if files:
      path, _, arg = files[-1].removeprefix('--config=').partition(':')
      config = runpy.run_path(path)['get_config'](arg)
      for flag in (a for a in argv if a.startswith('--config.')):
        check_field(config, flag.partition('=')[0].removeprefix('--config.'))
    argv = flags.FLAGS(argv)
    if flags.FLAGS['verbosity'].using_default_value:
      flags.FLAGS.verbosity = -1  # WARNING; app.run would choose INFO
    return argv
  except (flags.Error, ValueError, TypeError, OSError) as e:
    sys.exit(f'error: {e}')


def check_field(config, path):
  """Raises ValueError unless every part of a.b.c is a field of the config."""
  parents = ['config']
  for name in path.split('.'):
    names = list(config) if isinstance(config, config_dict.ConfigDict) else []
    if name not in names:
      raise ValueError(
        f'--config.{path}: {".".join(parents)} has no field {name!r}; '
        f'{base.nearest(name, names)}'
      )
    config = config[name]
    parents.append(name)
