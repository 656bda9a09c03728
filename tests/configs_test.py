import re
import runpy

from ml_collections import config_dict
import pytest

from configs import base
import tiny

FILES = sorted(
  path
  for path in (tiny.ROOT / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'base')
)
EACH_FILE = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)


def names(config):
  """All names in a config, of fields and of groups of them."""
  for name, value in config.items():
    yield name
    if isinstance(value, config_dict.ConfigDict):
      yield from names(value)


def full_base():
  config = base.get_config()
  config.models.weak = base.model('weak', weights='')
  return config


def assert_has_the_fields_of_base(config):
  expected = full_base()
  assert sorted(config) == sorted(expected)
  for group in ('data', 'mesh'):
    assert set(expected[group]) <= set(config[group])
  for model in config.models.values():
    assert sorted(names(model)) == sorted(names(expected.models.weak))


@EACH_FILE
@pytest.mark.parametrize('arg', [None, '', 'debug'])
def test_loads_and_has_the_fields_of_base(path, arg):
  config = runpy.run_path(str(path))['get_config'](arg)
  assert config.task and len({m.name for m in config.models.values()}) > 1
  assert_has_the_fields_of_base(config)


@EACH_FILE
def test_debug_needs_no_download(path):
  config = runpy.run_path(str(path))['get_config']('debug')
  assert config.task == 'synthetic' and not config.data.source
  for model in config.models.values():
    assert model.weights.startswith('random:')


@EACH_FILE
def test_sweep_points_fit_the_config(path):
  file = runpy.run_path(str(path))
  if 'sweep' not in file:
    pytest.skip('no sweep() in this file')
  seen = set()
  for point in file['sweep']():
    config = file['get_config']('').lock()
    config.update(point)  # raises for an unknown field or another type
    assert_has_the_fields_of_base(config)
    assert config.to_json() not in seen
    seen.add(config.to_json())
  assert len(seen) > 1


def test_every_field_of_base_is_read():
  code = '\n'.join(
    path.read_text()
    for folder in ('w2s_jax', 'experiments')
    for path in (tiny.ROOT / folder).rglob('*.py')
  )
  # A field is read as .name or 'name', or arrives as an argument `name`.
  dead = [
    name
    for name in names(full_base())
    if not re.search(rf"(\.|['\"]){name}\b|\b{name}\b\s*[,:=)]", code)
  ]
  assert not dead


DEFAULTS = dict(debug=False, task='sst2', layers=2)


def test_parse_arg_reads_names_and_types():
  parsed = base.parse_arg('debug,task=boolq,layers=3', **DEFAULTS)
  assert parsed.to_dict() == dict(debug=True, task='boolq', layers=3)
  assert base.parse_arg('debug=false', **DEFAULTS).to_dict() == DEFAULTS
  for nothing in (None, '', ','):
    assert base.parse_arg(nothing, **DEFAULTS).to_dict() == DEFAULTS


@pytest.mark.parametrize(
  'arg, says',
  [
    ('taks=boolq', "'taks': did you mean 'task'"),
    ('debugg', "'debugg': did you mean 'debug'"),
    ('zzz', "'zzz': Valid: debug, layers, task"),
    ('debug=yes', 'must be true or false'),
    ('debug=', 'must be true or false'),
    ('layers=two', 'needs layers=<int>'),
    ('layers=2.5', 'needs layers=<int>'),
    ('layers', 'needs layers=<int>'),
    ('task', 'needs task=<str>'),
    ('task=', 'needs task=<str>'),
  ],
)
def test_parse_arg_is_strict(arg, says):
  with pytest.raises(ValueError, match=re.escape(says)):
    base.parse_arg(arg, **DEFAULTS)


@pytest.mark.parametrize('field', ['weak', 'strong'])
def test_unknown_model_names_the_nearest(field):
  get_config = runpy.run_path(str(tiny.ROOT / 'configs/nlp.py'))['get_config']
  with pytest.raises(ValueError, match=f"{field}='minilm6'.*'minilm-l6'"):
    get_config(f'{field}=minilm6')
