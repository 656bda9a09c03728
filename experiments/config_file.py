"""Reads --config=FILE.py:ARGUMENT ahead of the flags, to explain mistakes.

absl and ml_collections alone would end in a traceback, or not name the field.
They know files and Python literals only; `plain` makes both of what is shorter
to type: --config=nlp:debug, --config.losses=xent,logconf.

All functions raise errors.UserError where the user has to change something.
"""

import ast
import contextlib
import functools
import os
import pathlib
import runpy
import traceback

from ml_collections import config_dict

from configs import base
from configs import nlp
from w2s_jax import errors

_FOLDER = pathlib.Path(base.__file__).parent


def names():
  """Returns the short names of configs: nlp for configs/nlp.py."""
  stems = (path.stem for path in _FOLDER.glob('*.py'))
  return sorted(x for x in stems if x not in ('__init__', 'base'))


def plain(argv):
  """Returns argv with configs as files, and lists of words as tuples."""
  argv, config = [*argv], None
  for i, name, prefix in _values(argv):
    if name == 'config':
      argv[i] = prefix + file_of(argv[i].removeprefix(prefix))
  if (value := value_of(argv)) is not None:
    config = get_config(value)
  for i, name, prefix in _values(argv):
    if config and name != 'config':
      argv[i] = prefix + _quoted(config, name, argv[i].removeprefix(prefix))
  return argv


def file_of(value):
  """Returns FILE:ARGUMENT of NAME:ARGUMENT or FILE:ARGUMENT.

  configs/nlp.py is that of this code wherever it is called from, unless the
  current folder has its own.
  """
  path, colon, arg = value.partition(':')
  named = _FOLDER / f'{path.removeprefix("configs/").removesuffix(".py")}.py'
  if not os.path.isfile(path) and named.stem in names():
    if path in (named.stem, f'configs/{named.name}'):
      path = os.path.relpath(named)
      path = str(named) if path.startswith('..') else path
  return path + colon + arg


def _values(argv):
  """Yields (index in argv, field, what precedes its value) of config flags."""
  for i, arg in enumerate(argv):
    name, equals, _ = arg.partition('=')
    field = name.lstrip('-')
    if arg[:1] == '-' and field.partition('.')[0] == 'config':
      if equals:
        yield i, field, f'{name}='
      elif i + 1 < len(argv):
        yield i + 1, field, ''


def _quoted(config, field, text):
  """Returns "('a', 'b')" for a,b where the field is a tuple."""
  for name in field.split('.')[1:]:
    if not isinstance(config, config_dict.ConfigDict) or name not in config:
      return text  # `check` explains it
    config = config[name]
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if isinstance(config, tuple) and not set(text) & set('()[]\'"'):
      return repr(tuple(filter(None, map(str.strip, text.split(',')))))
  return text


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
    hint = '.'
    if path == file.stem:
      hint = f' or config; {base.nearest(path, names())}'
    raise errors.UserError(f'--config={path}: there is no such file{hint}')
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
    try:
      check_field(config, field)
    except errors.UserError as e:
      group, _, rest = field.partition('.')
      key, path = rest.partition('.')[0], value.partition(':')[0]
      if group == 'models' and key not in config.models:
        e.add_note(_how_to_add(key, path))
      raise


def _how_to_add(key, path):
  """Returns how a config file comes to have a model; '' if it cannot."""
  file = load(path)
  if 'rungs' not in file.get('ARGUMENTS', ()):
    return ''
  known = file.get('MODELS', nlp.MODELS)
  name = key if key in known else 'NAME'
  names = '' if key in known else f', one of {", ".join(known)}'
  return f'To add a model: --config={path}:rungs={name}{names}.'


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
    if isinstance(e, ValueError) and _is_same(
      frames[-1].filename, base.__file__
    ):
      raise errors.UserError(f'--config={path}: {e}') from e  # an argument
    lines = [f.lineno for f in frames if _is_same(f.filename, path)]
    where = f'{path}:{lines[-1]}' if lines else path
    raise errors.UserError(f'{where}: {type(e).__name__}: {e}') from e


def _is_same(left, right):
  return os.path.abspath(left) == os.path.abspath(right)
