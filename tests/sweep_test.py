"""Sweeps: independent jobs in one workdir, here and elsewhere."""

import json
import subprocess
import sys

import pytest

import tiny

CONFIG = """
import sys
sys.path.insert(0, {root!r} + '/tests')
import tiny


def get_config(arg=None):
  return tiny.config()


def sweep():
  for loss in ('xent', 'logconf'):
    yield {{'losses': (loss,)}}
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('sweep') / 'pair.py'
  path.write_text(CONFIG.format(root=str(tiny.ROOT)))
  return path


def sweep(config, workdir, *flags, program='sweep.py'):
  return subprocess.run(
    [
      sys.executable,
      str(tiny.ROOT / 'experiments' / program),
      f'--config={config}',
      f'--workdir={workdir}',
      *flags,
    ],
    env=tiny.environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_jobs_share_stages(config, tmp_path):
  """Started together, both need the supervisor, its labels and the ceiling."""
  done = sweep(config, tmp_path, '--jobs=2')
  assert done.returncode == 0, done.stderr
  assert '[2/2]' in done.stdout and 'Report:' in done.stdout
  names = sorted(tiny.stage_names(tmp_path))
  assert [name.split('-')[0] for name in names] == [
    'ceiling',
    'labels',
    'student',
    'student',
    'weak',
    'zero_shot',
  ]
  logs = [path.read_text() for path in tmp_path.glob('jobs/*.log')]
  for name in ('weak-tiny', 'ceiling-tiny'):  # one trained it, one did not
    built = [
      f'\u2713 {name}' in x and 'cached' not in line_of(x, name) for x in logs
    ]
    assert sorted(built) == [False, True]
  rows = (tmp_path / 'results.jsonl').read_text().splitlines()
  assert sorted(json.loads(row)['loss'] for row in rows) == ['logconf', 'xent']
  assert not list(tmp_path.rglob('*LOCK'))


def line_of(log, name):
  """The last line on a stage."""
  return [line for line in log.splitlines() if f'\u2713 {name}' in line][-1]


def test_a_failed_point_is_named(config, tmp_path):
  done = sweep(config, tmp_path, '--config.data.splits.test=100000')
  assert done.returncode == 1
  assert '2 of 2 points failed' in done.stderr and 'point-0.log' in done.stderr
  assert 'data.splits' in (tmp_path / 'jobs' / 'point-0.log').read_text()


def test_jobs_of_clusters_run_one_point_each(config):
  printed = sweep(
    config, 'gs://b/w', '--emit=slurm', '--config.seeds=0,'
  ).stdout
  assert '#SBATCH --array=0-1' in printed
  assert '--point=$SLURM_ARRAY_TASK_ID' in printed
  assert '--workdir=gs://b/w' in printed and '--config.seeds=0,' in printed
  assert '--emit' not in printed
  subprocess.run(['bash', '-n'], input=printed, text=True, check=True)
  printed = sweep(config, 'gs://b/w', '--emit=jobset', '--image=me/w2s').stdout
  assert 'completions: 2' in printed and 'image: me/w2s' in printed
  assert '$JOB_COMPLETION_INDEX' in printed


def test_a_point_that_is_not_there(config, tmp_path):
  done = sweep(config, tmp_path, '--sweep', '--point=2', program='main.py')
  assert done.returncode == 1
  assert done.stderr.strip().endswith('--point=2: there are 2 points.')
