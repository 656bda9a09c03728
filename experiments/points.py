"""The studies that a command line stands for: sweeps, suites, or one config."""

from experiments import command_line
from experiments import config_file


def expand(config, *, sweep):
  """Returns the config, or each point of its file's sweep(), for each task.

  Raises:
    errors.UserError: two points of the sweep would write the same results.
  """
  path = command_line.config_value().partition(':')[0]
  file = config_file.load(path)
  swept = file['sweep']() if sweep else [{}]
  tasks = file.get('tasks', lambda config: [{}])
  configs = [at(config, point) for point in swept]
  configs = [at(config, point) for config in configs for point in tasks(config)]
  if sweep:
    from w2s_jax import check_config

    check_config.check_points(configs)
  return configs


def choose(configs, number):
  """Returns the config of --point=`number`."""
  from w2s_jax import errors

  if not 0 <= number < len(configs):
    raise errors.UserError(
      f'--point={number}: there are {len(configs)} points.'
    )
  return configs[number]


def at(config, point):
  """Returns a copy of a config with the fields of a point."""
  config = config.copy_and_resolve_references()
  config.update(point)
  return config


def with_data(configs, console):
  """Returns the configs of those tasks that have enough data.

  Prints why the others are left out and how to get their data. A single task is
  not checked: it is the study that fails then.

  Raises:
    errors.UserError: no task has enough data.
  """
  if len({c.task for c in configs}) == 1:
    return configs

  from w2s_jax import errors

  reasons = {}
  for config in configs:
    if config.task not in reasons:
      reasons[config.task] = missing_data(config)
  for task, reason in reasons.items():
    if reason:
      console.print(
        f'Left out {task}: {reason}', highlight=False, soft_wrap=True
      )
  configs = [c for c in configs if not reasons[c.task]]
  if not configs:
    raise errors.UserError('data.source has the data of none of the tasks.')
  console.print(f'{len(configs)} studies to run.')
  return configs


def missing_data(config):
  """Returns why the rows of a config cannot be split, or ''."""
  from w2s_jax import check_config
  from w2s_jax import errors
  from w2s_jax import study

  chains = check_config.parse_chains(config.students, config.models)
  try:
    study.load_splits(
      config.task,
      config.data,
      seeds=config.seeds,
      num_transfer=max(map(len, chains)) - 1,
    )
  except errors.UserError as e:
    return str(e)
  return ''
