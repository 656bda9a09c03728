"""Runs a weak-to-strong study.

  python experiments/main.py --config=configs/nlp.py --workdir=runs/nlp

`--config=FILE.py:arg,...` passes arguments to the config file; any field is
set with `--config.a.b=value`. The same command again resumes or, where all is
done, only rewrites the report.
"""

import pathlib
import runpy
import sys

from absl import app
from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs/ and w2s_jax/ of this checkout

from configs import base  # noqa: E402

CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of results, local or gs://; rerun to resume.'
)
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
TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where an error of one line came from.'
)
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Off TPU pods.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  import jax
  import rich.console

  from w2s_jax import assets
  from w2s_jax import report
  from w2s_jax import study

  jax.config.update(
    'jax_compilation_cache_dir', str(assets.cache_dir() / 'xla')
  )
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  if DISTRIBUTED.value or COORDINATOR.value:
    jax.distributed.initialize(
      COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    )
  primary = jax.process_index() == 0
  console = rich.console.Console(quiet=not primary)
  if not console.is_terminal:
    console.width = 100
  try:
    for config in points():
      study.run(config, WORKDIR.value, console=console)
    if primary:
      console.print(report.console_table(report.write(WORKDIR.value)))
      console.print(f'Report: {WORKDIR.value}/report.html')
  except (ValueError, FileNotFoundError, ImportError) as e:
    if TRACEBACK.value:
      raise
    sys.exit(f'error: {e}')


def points():
  """The config, or each point of its file's sweep()."""
  if not SWEEP.value:
    return [CONFIG.value]
  configs = []
  file = config_flags.get_config_filename(flags.FLAGS['config'])
  path = file.partition(':')[0]
  for overrides in runpy.run_path(path)['sweep']():
    config = CONFIG.value.copy_and_resolve_references()
    config.update(overrides)
    configs.append(config)
  return configs


def parse_flags(argv):
  """absl's parser, but a wrong config field is one readable line."""
  try:
    files = [a for a in argv if a.startswith('--config=')]
    if files:
      path, _, arg = files[-1].removeprefix('--config=').partition(':')
      config = runpy.run_path(path)['get_config'](arg)
      for flag in (a for a in argv if a.startswith('--config.')):
        check_field(config, flag.partition('=')[0].removeprefix('--config.'))
    argv = flags.FLAGS(argv)
    if flags.FLAGS['verbosity'].using_default_value:
      flags.FLAGS.verbosity = -1  # WARNING; app.run would choose INFO
    return argv
  except (flags.Error, ValueError, TypeError, OSError) as e:
    sys.exit(f'error: {e}')


def check_field(config, path):
  """Raises ValueError unless every part of a.b.c is a field of the config."""
  parents = ['config']
  for name in path.split('.'):
    names = list(config) if isinstance(config, config_dict.ConfigDict) else []
    if name not in names:
      raise ValueError(
        f'--config.{path}: {".".join(parents)} has no field {name!r}; '
        f'{base.nearest(name, names)}'
      )
    config = config[name]
    parents.append(name)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_flags)
