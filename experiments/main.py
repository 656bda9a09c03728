"""Runs a weak-to-strong study.

  python experiments/main.py --config=configs/nlp.py --workdir=runs/nlp

`--config=FILE.py:arg,...` passes arguments to the config file; any field is
set with `--config.a.b=value`. The same command again resumes or, where all is
done, only rewrites the report.
"""

import runpy

from absl import flags
from ml_collections import config_flags

import launch

SWEEP = flags.DEFINE_bool(
  'sweep', False, "Run every point of the config file's sweep() in one workdir."
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One of several processes; a TPU pod needs no more.'
)
COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0, off TPU pods.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Off TPU pods.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Off TPU pods.')


def main():
  import jax
  import rich.console

  from w2s_jax import report
  from w2s_jax import study

  if DISTRIBUTED.value or COORDINATOR.value:
    jax.distributed.initialize(
      COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    )
  workdir = launch.WORKDIR.value
  primary = jax.process_index() == 0
  console = rich.console.Console(quiet=not primary)
  if not console.is_terminal:
    console.width = 100
  for config in points():
    study.run(config, workdir, console=console)
  if primary:
    console.print(report.console_table(report.write(workdir)))
    console.print(f'Report: {workdir}/report.html')


def points():
  """The config, or each point of its file's sweep()."""
  config = launch.CONFIG.value
  if not SWEEP.value:
    return [config]
  configs = []
  file = config_flags.get_config_filename(flags.FLAGS['config'])
  path = file.partition(':')[0]
  for overrides in runpy.run_path(path)['sweep']():
    configs.append(config.copy_and_resolve_references())
    configs[-1].update(overrides)
  return configs


if __name__ == '__main__':
  launch.run(main)
