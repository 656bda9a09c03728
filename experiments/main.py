"""Runs a weak-to-strong study.

  python experiments/main.py --config=configs/nlp.py --workdir=runs/nlp

`--config=FILE.py:arg,...` passes arguments to the config file; any field is
set with `--config.a.b=value`. The same command again resumes or, where all is
done, only rewrites the report. At SIGTERM it saves a checkpoint and exits with
75: start it again.
"""

import faulthandler
import runpy
import sys

from absl import flags
from ml_collections import config_flags

import launch

SWEEP = flags.DEFINE_bool(
  'sweep', False, "Run every point of the config file's sweep() in one workdir."
)
POINT = flags.DEFINE_integer(
  'point', None, 'Run the point of this number only, and write no report.'
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One of several processes; a TPU pod needs no more.'
)
COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0, off TPU pods.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Off TPU pods.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Off TPU pods.')

# Without a sign of life for so many seconds a process counts as lost, and the
# others end.
_HEARTBEAT = 60


def main():
  from w2s_jax.runtime import preemption

  preemption.listen()
  import jax

  if DISTRIBUTED.value or COORDINATOR.value:
    jax.distributed.initialize(
      COORDINATOR.value,
      NUM_PROCESSES.value,
      PROCESS_ID.value,
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
    if not launch.TRACEBACK.value:
      faulthandler.disable()  # jax says why it ends with a lost process
  with preemption.exit_on_peer_failure():
    run()


def run():
  import jax
  import rich.console

  from w2s_jax import study
  from w2s_jax.runtime import preemption

  workdir = launch.WORKDIR.value
  primary = jax.process_index() == 0
  console = rich.console.Console(quiet=not primary)
  if not console.is_terminal:
    console.width = 100
  configs = points()
  if POINT.value is not None:
    configs = [chosen(configs, POINT.value)]
  try:
    for config in with_data(configs, console):
      study.run(config, workdir, console=console)
  except preemption.Preempted as e:
    console.print(f'{e}; the same command goes on from there.')
    sys.exit(preemption.exit_code())
  if primary and POINT.value is None:
    from w2s_jax.report import (
      report,
    )  # brings matplotlib, which training can spare

    console.print(report.console_table(report.write(workdir)))
    console.print(f'Report: {workdir}/report.html')


def points():
  """The config, or each point of its file's sweep(), for each of its tasks."""
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  file = runpy.run_path(path.partition(':')[0])
  sweep = file['sweep']() if SWEEP.value else [{}]
  tasks = file.get('tasks', lambda config: [{}])
  configs = [at(launch.CONFIG.value, point) for point in sweep]
  configs = [at(config, point) for config in configs for point in tasks(config)]
  if SWEEP.value:
    from w2s_jax import check_config

    check_config.check_points(configs)
  return configs


def chosen(configs, number):
  if not 0 <= number < len(configs):
    raise ValueError(f'--point={number}: there are {len(configs)} points.')
  return configs[number]


def at(config, point):
  """A copy of a config with the fields of a point."""
  config = config.copy_and_resolve_references()
  config.update(point)
  return config


def with_data(configs, console):
  """Those of several tasks whose data is there and enough.

  Of the others it says why they are left out, and how to get their data.
  """
  if len({c.task for c in configs}) == 1:
    return configs  # a mistake with the only task is the user's to see

  from w2s_jax import check_config
  from w2s_jax import study

  left_out = {}
  for config in configs:
    if config.task not in left_out:
      chains = check_config.parse_chains(config.students, config.models)
      try:
        study.load_splits(
          config.task,
          config.data,
          seeds=config.seeds,
          num_transfer=max(map(len, chains)) - 1,
        )
        left_out[config.task] = ''
      except (ValueError, FileNotFoundError, ImportError) as e:
        left_out[config.task] = str(e)
  for task, reason in left_out.items():
    if reason:
      console.print(
        f'Left out {task}: {reason}', highlight=False, soft_wrap=True
      )
  configs = [c for c in configs if not left_out[c.task]]
  if not configs:
    raise ValueError('data.source has the data of none of the tasks.')
  console.print(f'{len(configs)} studies to run.')
  return configs


if __name__ == '__main__':
  launch.run(main)
