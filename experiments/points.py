"""The studies that a command line stands for: sweeps, suites, or one config."""

import json

from absl import flags
from ml_collections import config_flags

from experiments import command_line
from experiments import config_file
from w2s_jax import errors

# Fields of a model that a config sets for its weights, and what they are when
# they are not set.
_SET_FOR_WEIGHTS = {
  'num_layers': -1,
  'train.learning_rate': None,
  'train.freeze': '',
}


def expand(*, sweep, point=None):
  """Returns the configs of a command line, one for each study.

  Args:
    sweep: whether to expand sweep() of the config file. What its studies()
      yields for a config is always expanded: tasks of a suite, for example.
    point: number of the one config to return, or None for all.

  Raises:
    errors.UserError: the file has no sweep() or is no study, two points of the
      sweep would write the same results, or there is no such point.
  """
  path = command_line.config_value().partition(':')[0]
  file = config_file.load(path)
  if sweep and 'sweep' not in file:
    raise errors.UserError(f'--sweep: {path} has no function sweep().')
  config = command_line.CONFIG.value
  from w2s_jax import check_config  # imports jax

  try:
    check_config.check_is_study(config)
  except errors.UserError as e:
    raise errors.UserError(f'--config={path}: {e}') from e
  with config_file.located(path):
    configs = [at(config, x) for x in (file['sweep']() if sweep else [{}])]
    if 'studies' in file:
      configs = [
        at(c, fields) for c in configs for fields in file['studies'](c)
      ]
  if sweep:
    from w2s_jax import results
    from w2s_jax import study

    outlines = [study.outline(config) for config in configs]
    results.check_names(
      [x for each in outlines for s in each.values() for x in s]
    )
  if point is None:
    return configs
  if not 0 <= point < len(configs):
    raise errors.UserError(f'--point={point}: there are {len(configs)} points.')
  return [configs[point]]


def at(config, point):
  """Returns a copy of a config with the fields of a point."""
  config = config.copy_and_resolve_references()
  config.update(point)
  return config


def notes_on_weights(configs):
  """Returns a line for each model that has new weights and an old recipe.

  Overriding `weights` keeps the learning rate, frozen parameters and number of
  layers that the config file chose for other weights.
  """
  given = config_flags.get_override_values(flags.FLAGS['config'])
  original = config_file.get_config(command_line.config_value())
  lines = []
  for key, spec in original.models.items():
    weights = given.get(f'models.{key}.weights', spec.weights)
    specs = [c.models[key] for c in configs if key in c.models]
    if weights == spec.weights or weights not in {s.weights for s in specs}:
      continue
    values = {
      name: _field(spec, name)
      for name in _SET_FOR_WEIGHTS
      if f'models.{key}.{name}' not in given
    }
    kept = [
      f'models.{key}.{name}={value}'
      for name, value in values.items()
      if value != _SET_FOR_WEIGHTS[name]
    ]
    if kept:
      lines.append(
        f'{", ".join(kept)}: set for {spec.weights}, not for {weights}; '
        'override what does not fit.'
      )
  return lines


def _field(config, path):
  """Returns the field a.b.c of a config."""
  for name in path.split('.'):
    config = config[name]
  return config


def with_data(configs, console):
  """Returns [(config, its splits)] of those tasks that have enough data.

  Each task is read once for all its studies, also for those with other splits
  or seeds. Prints why tasks are left out and how to get their data. A single
  study is not read here: its splits are None.

  Raises:
    errors.UserError: no task has enough data, or the only one has not.
  """
  if len(configs) == 1:
    return [(configs[0], None)]

  from w2s_jax import study

  splits, reasons, pools = {}, {}, {}
  # A shorter chain uses the first slices of a longer one. Task by task: `pools`
  # holds the rows of one.
  tasks = list(dict.fromkeys(c.task for c in configs))
  for config in sorted(
    configs, key=lambda c: (tasks.index(c.task), -_num_transfer(c))
  ):
    key = _data_of(config)
    if key in splits or config.task in reasons:
      continue
    try:
      splits[key] = study.load_splits(config, pools)
    except errors.UserError as error:
      if len({c.task for c in configs}) == 1:
        raise
      reasons[config.task] = str(error)
  for task, reason in reasons.items():
    console.print(f'Left out {task}: {reason}', highlight=False, soft_wrap=True)
  configs = [c for c in configs if c.task not in reasons]
  if not configs:
    raise errors.UserError('data.source has the data of none of the tasks.')
  console.print(f'{len(configs)} studies to run.')
  return [(config, splits[_data_of(config)]) for config in configs]


def check_fields(fields, studies):
  """Returns `studies`, and splits with them that were read to check fields.

  Args:
    fields: of --by.
    studies: of `with_data`.

  Raises:
    errors.UserError: no study's test rows have one of the fields.
  """
  if not fields:
    return studies

  from w2s_jax import study
  from w2s_jax.report import by_field

  config, splits = studies[0]
  if splits is None:  # of one task, whose rows have the same fields everywhere
    studies = [(config, study.load_splits(config)), *studies[1:]]
  tests = [splits[0]['test'] for _, splits in studies if splits]
  found = {
    name for test in tests for row in test.fields for name in json.loads(row)
  }
  for field in fields:
    by_field.check(field, found)
  return studies


def _num_transfer(config):
  return max(chain.count('>') for chain in config.students)


def _data_of(config):
  """Fields that decide the splits of a study."""
  fields = config.task, config.data.to_dict(), config.seeds
  if -1 in config.data.splits.values():  # shared with the slices of a chain
    fields = *fields, _num_transfer(config)
  return json.dumps(fields, sort_keys=True, default=list)
