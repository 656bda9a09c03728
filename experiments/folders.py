"""Arguments of the commands that are given folders in place of flags."""

import argparse
import os
import pathlib
import sys

from experiments import command_line
from w2s_jax import errors


class Parser(argparse.ArgumentParser):
  """A parser of positional arguments whose mistakes are one line."""

  def __init__(self, doc):
    super().__init__(
      prog='w2s',
      usage=argparse.SUPPRESS,
      description=doc,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )

  def error(self, message):
    sys.exit(f'error: {message}; --help has an example.')


def run(main, parser):
  """Calls main(arguments); a mistake ends the program with one line."""
  arguments = parser.parse_args()
  command_line.quiet_logs()
  from experiments import failures  # imports jax

  try:
    with failures.one_line(None):
      main(arguments)
      sys.stdout.flush()
  except BrokenPipeError:  # whoever reads has enough, as `w2s doctor | head`
    # Else Python would try to write the rest when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_stage(path):
  """('runs/a', 'weak') of runs/a/stages/weak or runs/a/weak."""
  workdir, _, stage = path.rstrip('/').rpartition('/')
  workdir = (workdir or '.').removesuffix('/stages')
  return workdir, stage


def check_is_workdir(workdir):
  """Raises errors.UserError unless a local folder holds stages."""
  if '://' in workdir:
    return
  path = pathlib.Path(workdir).expanduser()
  if not path.is_dir():
    raise errors.MissingFileError(f'{workdir}: there is no such folder.')
  if not (path / 'stages').is_dir():
    raise errors.UserError(
      f'{workdir} has no folder stages; is it the --workdir of a run?'
    )
