"""Flags, readable errors and caches that the commands of this folder share."""

import contextlib
import ctypes
import functools
import gc
import os
import pathlib
import shlex
import sys

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from experiments import config_file
from experiments import usage
from w2s_jax import errors
from w2s_jax.runtime import preemption

ROOT = pathlib.Path(__file__).resolve().parents[1]

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of results, local or gs://; rerun to resume.'
)
TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show the traceback of any error.'
)


def run(main, required=('config', 'workdir')):
  """Runs a main() without arguments, after all flags are parsed."""

  def checked(argv):
    del argv  # all of it are flags
    keep_memory()
    keep_compiled_programs()
    if TRACEBACK.value:
      main_or_stop(main)
      return
    from experiments import failures  # imports jax

    with failures.one_line(WORKDIR.value):
      main_or_stop(main)

  flags.mark_flags_as_required(required)
  app.run(checked, flags_parser=functools.partial(parse_flags, required))


@contextlib.contextmanager
def many_imports():
  """Collects no garbage meanwhile, nor later among what was imported.

  To look for it takes a tenth of the time of the imports, and finds none.
  """
  gc.disable()
  try:
    yield
  finally:
    gc.freeze()
    gc.enable()


def quiet_logs():
  """Hides what absl and JAX log below a warning."""
  logging.set_verbosity(logging.WARNING)


def main_or_stop(main):
  """Calls main(); exits with the status for it if a signal stopped it."""
  try:
    main()
  except preemption.Preempted as e:
    print(f'{e}; the same command goes on from there.', flush=True)
    sys.exit(preemption.exit_code())


def console(*, quiet=False):
  """Returns a console that prints text as it is, `[red]` or `:smile:` too.

  Where there is no terminal it has 100 columns, or $COLUMNS.
  """
  import rich.console

  made = rich.console.Console(quiet=quiet, markup=False, emoji=False)
  if not made.is_terminal and 'COLUMNS' not in os.environ:
    made.width = 100
  return made


def config_value():
  """Returns FILE or FILE:ARGUMENT of --config."""
  return config_flags.get_config_filename(flags.FLAGS['config'])


def keep_memory():
  """Keeps freed memory in the process for the next training step.

  By default glibc returns large buffers and the kernel zeroes them again page
  by page: a seventh of the time of a step on a CPU. Must precede any thread.
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
  """Caches compiled programs on disk for later runs."""
  with many_imports():
    import jax  # not before the flags are known to be right

    from w2s_jax import assets

  jax.config.update(
    'jax_compilation_cache_dir', str(assets.cache_dir() / 'xla')
  )
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def parse_flags(required, argv):
  """Parses with absl; a mistake ends the program with one readable line."""
  try:
    usage.answer(argv)
    check_order(argv)
    for name in required:
      if not any(x.lstrip('-').partition('=')[0] == name for x in argv[1:]):
        raise errors.UserError(
          f'--{name} is missing; begin with --config=nlp --workdir=runs/nlp.'
        )
    argv = config_file.plain(argv)
    config_file.check(argv)
    argv = flags.FLAGS(argv)
    if len(argv) > 1:
      raise errors.UserError(f'{argv[1]!r} is not a flag; flags begin with --.')
    if flags.FLAGS['verbosity'].using_default_value:
      flags.FLAGS.verbosity = -1  # WARNING; app.run would choose INFO
    return argv
  except (flags.Error, ValueError, TypeError, OSError) as e:
    if '--traceback' in argv:
      raise
    sys.exit(f'error: {one_line(e)}')


def check_order(argv):
  """Raises errors.UserError for flags that absl would take for arguments."""
  if '--' in argv[:-1]:
    ignored = shlex.join(argv[argv.index('--') + 1 :])
    raise errors.UserError(
      f"flags after '--' are not read; leave '--' out before {ignored}"
    )


def one_line(error):
  notes = getattr(error, '__notes__', ())
  return ' '.join(' '.join([str(error), *notes]).split())
