"""Config files: their fields, arguments, chains, sweeps and suites."""

import re
import runpy

from ml_collections import config_dict
import pytest

from configs import base
from experiments import points
from w2s_jax import assets
from w2s_jax import check_config
from w2s_jax import results
from w2s_jax import study
from w2s_jax.models import model as model_lib
from w2s_jax.models import presets
from w2s_jax.tasks import nlp
from w2s_jax.tasks import registry
from w2s_jax.tasks import sources

import tiny

FILES = sorted(
  path
  for path in (tiny.ROOT / 'configs').glob('*.py')
  # Pretraining is not a study.
  if path.stem not in ('__init__', 'base', 'pretrain_chess')
)
EACH_FILE = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
SHIPPED = {path.name for path in assets._SHIPPED.iterdir()}


def load(name, arg=None):
  path = tiny.ROOT / 'configs' / f'{name}.py'
  return runpy.run_path(str(path))['get_config'](arg)


def names(config):
  """Yields the names of all fields and groups of fields of a config."""
  for name, value in config.items():
    yield name
    if isinstance(value, config_dict.ConfigDict):
      yield from names(value)


def name_in_results(spec):
  return results.adapted_name(model_lib.name_of(spec), spec.adapt.method)


def full_base():
  config = base.get_config()
  config.models.weak = base.model('weak', weights='')
  return config


def test_a_study_is_checked_to_have_all_fields():
  assert sorted(check_config.FIELDS) == sorted(base.get_config())


def assert_has_the_fields_of_base(config):
  expected = full_base()
  assert sorted(config) == sorted(expected)
  for group in ('data', 'mesh'):
    assert set(expected[group]) <= set(config[group])
  for model in config.models.values():
    assert sorted(names(model)) == sorted(names(expected.models.weak))


@EACH_FILE
@pytest.mark.parametrize('arg', [None, '', 'debug'])
def test_config_has_the_fields_of_base(path, arg):
  config = load(path.stem, arg)
  assert (
    config.task and len({*map(model_lib.name_of, config.models.values())}) > 1
  )
  assert_has_the_fields_of_base(config)


@EACH_FILE
def test_debug_needs_no_download(path):
  config = load(path.stem, 'debug')
  source = config.data.source or registry.TASKS[config.task].source
  kind, _, name = source.partition(':')
  assert kind == 'synthetic' or name.partition('/')[0] in SHIPPED
  for key, model in config.models.items():
    assert model.weights.startswith('random:')
    check_config.build_model(
      model, key, config.task, config.data, tiny.one_device()
    )


@pytest.mark.parametrize(
  'name, arg, students, models, longest',
  [
    ('nlp', '', 2, 3, 2),
    ('nlp', 'adapt=full', 1, 2, 2),
    ('nlp', 'bootstrap', 5, 4, 4),
    ('reward_modeling', '', 1, 2, 2),
    ('reward_modeling', 'bootstrap', 5, 4, 4),
    ('chess', '', 7, 5, 5),
    ('chess', 'weak=xs', 5, 4, 4),
    ('chess', 'weak=xs,pairs', 8, 4, 4),
    ('chess', 'weak=m', 1, 2, 2),
    ('chess', 'debug', 3, 3, 3),
    ('chess', 'large,weak=xs,debug', 3, 3, 3),
  ],
)
def test_students_are_chains_of_existing_models(
  name, arg, students, models, longest
):
  config = load(name, arg)
  chains = check_config.parse_chains(config.students, config.models)
  assert len(chains) == students and len(config.models) == models
  assert len({*map(name_in_results, config.models.values())}) == models
  check_config.check_numbers(config)
  check_config.check_losses(config.losses, config.loss_args, config.task)
  assert max(map(len, chains)) == longest
  if arg == 'bootstrap':  # with the naive pair that each chain is compared to
    assert all((c[0], c[-1]) in chains for c in chains)
    assert len({c[0] for c in chains}) == 1


@EACH_FILE
def test_assets_of_each_config_exist(path):
  known = {
    'asset': SHIPPED | assets.ASSETS.keys(),
    'random': presets.PRESETS.keys(),
  }
  for model in load(path.stem).models.values():
    kind, _, name = model.weights.partition(':')
    assert name in known[kind]


def test_shipped_puzzles_suffice_for_the_longest_chain():
  config = load('chess')
  steps = max(len(students.split('>')) for students in config.students) - 1
  sizes = config.data.splits
  needed = sizes.test + sizes.validation + sizes.weak + steps * sizes.transfer
  rows = sources.read(registry.TASKS[config.task].source, 'train')
  assert needed <= sum(1 for _ in rows)


def test_chess_has_naive_students_with_early_stopping_beside_the_others():
  studies = runpy.run_path(str(tiny.ROOT / 'configs' / 'chess.py'))['studies']
  config = load('chess')
  first, *others = [points.at(config, point) for point in studies(config)]
  assert first.to_json() == config.to_json()
  assert [c.early_stopping for c in others] == ['weak_labels', 'ground_truth']
  for c in others:
    assert c.students == ('tiny>xs', 'tiny>s', 'tiny>m', 'tiny>l')
  check_points([first, *others])
  config.early_stopping = 'ground_truth'
  assert list(studies(config)) == [{}]
  config.early_stopping = 'none'
  config.students = ('tiny>xs>s',)
  assert list(studies(config)) == [{}]


def test_large_chess_study_has_more_rows_of_another_source():
  small, large = load('chess'), load('chess', 'large')
  sizes, more = small.data.splits, large.data.splits
  assert more.transfer > 5 * sizes.transfer and more.weak == sizes.weak
  assert large.data.source.startswith('file:') and not small.data.source
  with pytest.raises(ValueError, match="weak='l': .*Valid: m, s, tiny, xs"):
    load('chess', 'weak=l')


def test_pretraining_has_a_recipe_for_each_board_model():
  for key, model in load('chess', 'weak=xs').models.items():
    config = load('pretrain_chess', f'model=board-{key}')
    assert config.model.weights == f'random:board-{key}'
    assert model_lib.name_of(config.model) == model_lib.name_of(model)
    assert sorted(names(config.model)) == sorted(names(model))
    assert len(config.data.games) == len(config.data.positions)
  with pytest.raises(ValueError, match="model='boardxs'.*'board-xs'"):
    load('pretrain_chess', 'model=boardxs')


@EACH_FILE
def test_sweep_points_are_valid_and_distinct(path):
  file = runpy.run_path(str(path))
  if 'sweep' not in file:
    pytest.skip('no sweep() in this file')
  seen = {}
  for point in file['sweep']():
    config = file['get_config']('').lock()
    config.update(point)  # raises for an unknown field or another type
    assert_has_the_fields_of_base(config)
    assert config.to_json() not in seen
    seen[config.to_json()] = config
  assert len(seen) > 1
  check_points(seen.values())


def check_points(configs):
  results.check_names(
    result
    for config in configs
    for of_seed in study.outline(config).values()
    for result in of_seed
  )


def test_points_with_the_same_result_names_need_a_variant():
  def points(**fields):
    configs = [load('nlp', 'adapt=full') for _ in range(3)]
    for number, config in enumerate(configs):
      config.losses = ('logconf',)
      for field, value in fields.items():
        config.update_from_flattened_dict({field: value(number)})
    return configs

  changes = {
    'models.strong.train.learning_rate': (
      lambda n: 0.1**n,
      'train.learning_rate: 1.0 and 0.1',
    ),
    'loss_args.logconf.alpha_max': (
      lambda n: n / 4,
      'loss_args.alpha_max: 0.0 and 0.25',
    ),
    'data.max_length': (
      lambda n: 64 if n < 2 else 128,
      'evaluation.max_length: 64 and 128',
    ),
  }
  for field, (value, differing) in changes.items():
    with pytest.raises(
      ValueError, match=f'logconf would .*{differing}.*variant'
    ):
      check_points(points(**{field: value}))
    named = {field: value, 'variant': lambda n: f'number {n}'}
    check_points(points(**named))
  # Fields that do not change a row, or that its name shows.
  check_points(points(seeds=lambda n: (n,)))
  check_points(points(weak_labels=lambda n: ['soft', 'hard'][n % 2]))
  check_points(
    points(
      **{
        'models.strong.name': lambda n: f'm{n}',
        'population': lambda n: n + 1,
      }
    )
  )
  # xent does not read the arguments of logconf.
  of_others = points(**{'loss_args.logconf.alpha_max': lambda n: n / 4})
  for config in of_others:
    config.losses = ('xent',)
  check_points(of_others)


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
def test_unknown_model_error_names_the_nearest(field):
  with pytest.raises(ValueError, match=f"{field}='minilm6'.*'minilm-l6'"):
    load('nlp', f'{field}=minilm6')


@pytest.mark.parametrize(
  'name, task, nearest, table',
  [
    ('nlp', 'sst', 'sst2', 'w2s_jax/tasks/nlp.py'),
    ('reward_modeling', 'helpsteer', 'helpsteer3', 'w2s_jax/tasks/reward.py'),
  ],
)
def test_unknown_task_error_names_the_table_to_edit(name, task, nearest, table):
  with pytest.raises(
    ValueError, match=f"task='{task}'.*{nearest}.*entry of TASKS in {table}"
  ):
    load(name, f'task={task}')


def test_every_task_of_a_config_has_sizes_and_a_question():
  for name, task in registry.TASKS.items():
    assert task.asks.endswith('?'), name
    assert task.sizes or task.inputs == 'position', name
    assert not task.sizes or min(task.sizes.splits.values()) > 0


@pytest.mark.parametrize('suite', ['all', 'paper'])
def test_suite_points_match_the_configs_of_their_tasks(suite):
  file = runpy.run_path(str(tiny.ROOT / 'configs' / 'nlp.py'))
  known = nlp.PAPER if suite == 'paper' else nlp.TASKS
  config = file['get_config'](suite).lock()
  names = set()
  for point in file['studies'](config):
    at = config.copy_and_resolve_references()
    at.update(point)  # raises for an unknown field or another type
    alone = file['get_config'](f'task={at.task}')
    assert at.data.to_dict() == alone.data.to_dict()
    names.add(at.task)
  assert names == known.keys() - {'synthetic'}


def test_fine_tuning_of_nlp_is_a_study_of_its_own():
  file = runpy.run_path(str(tiny.ROOT / 'configs' / 'nlp.py'))
  config = file['get_config']().lock()
  probes, tuned = (config.copy_and_resolve_references() for _ in range(2))
  for study_config, point in zip((probes, tuned), file['studies'](config)):
    study_config.update(point)
  assert probes.students == ('weak>strong',) and probes.seeds == config.seeds
  assert tuned.students == ('weak>tuned',) and len(tuned.seeds) == 1
  assert tuned.losses == ('xent',) and probes.losses == config.losses
  assert tuned.data.splits.transfer < probes.data.splits.transfer
  assert tuned.data.splits.weak == probes.data.splits.weak
  check_points([probes, tuned])
  for arg in ('adapt=full', 'debug'):
    alone = file['get_config'](arg)
    assert list(file['studies'](alone)) == [{'students': alone.students}]


@pytest.mark.parametrize('name', ['nlp', 'reward_modeling'])
def test_rungs_stand_between_weak_and_strong(name):
  config = load(name, 'rungs=minilm-l1,minilm-l3,losses=xent')
  assert set(config.models) == {'weak', 'strong', 'minilm-l1', 'minilm-l3'}
  assert config.students == (
    'weak>minilm-l1',
    'weak>minilm-l3',
    'weak>strong',
    'weak>minilm-l1>minilm-l3',
    'weak>minilm-l1>minilm-l3>strong',
  )
  rung = config.models['minilm-l3']
  assert rung.num_layers == 3 and rung.adapt.method == 'probe'
  whole = load(name).data.splits.transfer
  assert config.data.splits.transfer == whole // 3
  for rungs in ('minilm-l6', 'minilm-l1,minilm-l1'):
    with pytest.raises(ValueError, match='named twice'):
      load(name, f'rungs={rungs}')


def test_losses_are_several_words_and_loss_is_short_for_them():
  for name in ('nlp', 'reward_modeling', 'chess'):
    for arg in ('losses=xent,logconf', 'debug,loss=xent,logconf'):
      assert load(name, arg).losses == ('xent', 'logconf')
    assert load(name, 'loss=logconf,debug').losses == ('logconf',)
  with pytest.raises(ValueError, match="'debugg': did you mean 'debug'"):
    load('nlp', 'task=cola,debugg')
