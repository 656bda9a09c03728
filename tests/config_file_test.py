"""Config files on the command line, right and wrong."""

import re

import pytest

from experiments import config_file
from w2s_jax import errors

import tiny

NLP = f'{tiny.ROOT}/configs/nlp.py'


def test_value_with_equals_sign_or_space():
  assert config_file.value_of(['main.py', '--config=a.py:b=c', '--x']) == (
    'a.py:b=c'
  )
  assert config_file.value_of(['--config', 'a.py', '--config.b=1']) == 'a.py'
  assert config_file.value_of(['--config=a.py', '-config', 'b.py']) == 'b.py'
  assert config_file.value_of(['--config.a=1', '--config']) is None


def test_fields_of_overrides():
  argv = ['main.py', '--config=a.py', '--config.a.b=1', '--config.c', '2']
  assert config_file.overrides([*argv, '-config.d=1', '--noconfig.e']) == [
    *('a.b', 'c', 'd', 'e')
  ]


@pytest.mark.parametrize('config', [[f'--config={NLP}'], ['--config', NLP]])
@pytest.mark.parametrize(
  'flag', ['--config.seedz=1', '--noconfig.seedz', '-config.seedz=1']
)
def test_unknown_field_is_named(config, flag):
  config_file.check([*config, '--config.seeds=1', '--noconfig.controls'])
  with pytest.raises(errors.UserError, match="'seedz'; did you mean 'seeds'"):
    config_file.check([*config, flag])


RETURNS = """
from ml_collections import config_dict
def get_config({argument}):
  return config_dict.ConfigDict({{'a': {value}}})
"""


def test_argument_is_passed_where_there_is_one(tmp_path):
  path = tmp_path / 'a.py'
  path.write_text(RETURNS.format(argument='', value=1))
  assert config_file.get_config(str(path)).a == 1
  path = tmp_path / 'b.py'
  path.write_text(RETURNS.format(argument='arg=None', value='arg'))
  assert config_file.get_config(str(path)).a is None
  assert config_file.get_config(f'{path}:x:y').a == 'x:y'


@pytest.mark.parametrize(
  'text, says',
  [
    ('a = 1', '{path} has no function get_config()'),
    ('\ndef get_config(:\n', '{path}:2: SyntaxError: '),
    ('\n\nimport jacks\n', '{path}:3: ModuleNotFoundError: No module named'),
    (
      'def get_config(arg=None):\n  return 1 / 0\n',
      '{path}:2: ZeroDivisionError: division by zero',
    ),
    (
      'def helper():\n  raise ValueError("b")\n\n'
      'def get_config(arg=None):\n  helper()\n',
      '{path}:2: ValueError: b',
    ),
    ('def get_config():\n  pass\n', 'get_config() returns a NoneType'),
  ],
)
def test_mistakes_in_a_file_have_its_line(tmp_path, text, says):
  path = tmp_path / 'config.py'
  path.write_text(text)
  says = re.escape(says.format(path=path))
  with pytest.raises(errors.UserError, match=says):
    config_file.check([f'--config={path}'])


@pytest.mark.parametrize(
  'argv, says',
  [
    ([f'--config={tiny.ROOT}/configs'], 'configs is a folder; name a file'),
    (['--config='], '--config= is a folder; name a file'),
    (['--config', '--workdir=x'], '--config=--workdir=x: there is no such'),
    (['--config.seeds=1'], '--config.seeds needs --config=FILE'),
  ],
)
def test_what_is_no_file_is_named(argv, says):
  with pytest.raises(errors.UserError, match=re.escape(says)):
    config_file.check(argv)


def test_short_names_and_files_of_other_folders(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  for value in ('nlp', 'configs/nlp.py'):
    plain = config_file.file_of(f'{value}:debug')
    assert plain == f'{NLP}:debug'
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'nlp.py').touch()
  assert config_file.file_of('configs/nlp.py') == 'configs/nlp.py'
  for value in ('mine.py', 'nlp.py', 'nlq:debug', 'base', ''):
    assert config_file.file_of(value) == value


@pytest.mark.parametrize(
  'flags, expected',
  [
    (['--config.losses=xent,logconf'], "--config.losses=('xent', 'logconf')"),
    (['--config.losses', 'xent,logconf'], "('xent', 'logconf')"),
    (['--config.losses=xent'], "--config.losses=('xent',)"),
    (
      ['--config.students=weak>a,weak>b'],
      "--config.students=('weak>a', 'weak>b')",
    ),
    (
      ['--config.models.weak.head_tokens=no,yes'],
      "--config.models.weak.head_tokens=('no', 'yes')",
    ),
    (['--config.seeds=0,1'], '--config.seeds=0,1'),
    (["--config.losses=('xent',)"], "--config.losses=('xent',)"),
    (['--config.losses=("xent"'], '--config.losses=("xent"'),
    (['--config.task=a,b'], '--config.task=a,b'),
    (['--config.none=a,b'], '--config.none=a,b'),
  ],
)
def test_words_of_a_tuple_need_no_quotes(flags, expected):
  plain = config_file.plain(['main.py', f'--config={NLP}', *flags])
  assert plain[-1] == expected
