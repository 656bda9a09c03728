"""Reads --config=FILE.py:ARGUMENT ahead of the flags, to explain mistakes.

absl and ml_collections alone would end in a traceback, or not name the field.
All functions raise errors.UserError where the user has to change something.
"""

import contextlib
import functools
import os
import pathlib
import runpy
import traceback

from ml_collections import config_dict

from configs import base
from w2s_jax import errors


def value_of(argv):
  """Returns the last value of --config=VALUE or --config VALUE, or None."""
  value = None
  for arg, following in zip(argv, [*argv[1:], None]):
    name, equals, text = arg.partition('=')
    if name in ('--config', '-config'):
      value = text if equals else following
  return value


def overrides(argv):
  """Returns the fields of all --config.FIELD=... and --noconfig.FIELD flags."""
  names = [arg.partition('=')[0].lstrip('-') for arg in argv if arg[:1] == '-']
  return [
    name.partition('.')[2]
    for name in names
    if name.startswith(('config.', 'noconfig.'))
  ]


@functools.cache
def load(path):
  """Returns the globals of a config file."""
  file = pathlib.Path(path)
  if file.is_dir():
    raise errors.UserError(f'--config={path} is a folder; name a file in it.')
  if not file.is_file():
    raise errors.UserError(f'--config={path}: there is no such file.')
  with located(path):
    module = runpy.run_path(path)
  if not callable(module.get('get_config')):
    raise errors.UserError(
      f'--config={path} has no function get_config(), which returns the config.'
    )
  return module


def get_config(value):
  """Returns the config of FILE or FILE:ARGUMENT, before any override."""
  path, *arg = value.split(':', 1)
  module = load(path)
  with located(path):
    config = module['get_config'](*arg)
  if not isinstance(config, config_dict.ConfigDict):
    raise errors.UserError(
      f'--config={path}: get_config() returns a {type(config).__name__}; it '
      'must return an ml_collections.ConfigDict.'
    )
  return config


def check(argv):
  """Checks the config of a command line and the names of all its overrides."""
  value = value_of(argv)
  if value is None:
    if fields := overrides(argv):
      raise errors.UserError(f'--config.{fields[0]} needs --config=FILE.')
    return
  config = get_config(value)
  for field in overrides(argv):
    check_field(config, field)


def check_field(config, path):
  """Checks that every part of a.b.c is a field of the config."""
  parents = ['config']
  for name in path.split('.'):
    names = list(config) if isinstance(config, config_dict.ConfigDict) else []
    if name not in names:
      raise errors.UserError(
        f'--config.{path}: {".".join(parents)} has no field {name!r}; '
        f'{base.nearest(name, names)}'
      )
    config = config[name]
    parents.append(name)


@contextlib.contextmanager
def located(path):
  """Turns errors of a config file into a UserError with file and line."""
  try:
    yield
  except errors.UserError:
    raise
  except SyntaxError as e:
    where = f'{e.filename}:{e.lineno}: {type(e).__name__}'
    raise errors.UserError(f'{where}: {e.msg}') from e
  except Exception as e:
    frames = traceback.extract_tb(e.__traceback__)
    lines = [f.lineno for f in frames if _is_same(f.filename, path)]
    where = f'{path}:{lines[-1]}' if lines else path
    raise errors.UserError(f'{where}: {type(e).__name__}: {e}') from e


def _is_same(left, right):
  return os.path.abspath(left) == os.path.abspath(right)
