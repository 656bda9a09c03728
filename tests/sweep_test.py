"""Sweeps: independent jobs in one workdir, here and elsewhere."""

import json
import os
import subprocess
import sys

import pytest

from experiments import sweep as sweep_lib
from w2s_jax.runtime import preemption

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

ODD = '--config.models.strong.prompt={text}\n  it\'s "$5" or $$5, é:'


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


def test_each_job_has_an_environment_of_its_own(tmp_path):
  script = 'import os, sys, time; print(os.environ["PLACE"]); time.sleep(0.5)'
  places = [{'PLACE': '0'}, {'PLACE': '1'}]
  command = [sys.executable, '-c', script]
  assert not sweep_lib.run(command, 5, tmp_path, places)
  seen = [path.read_text().strip() for path in tmp_path.glob('point-*.log')]
  assert len(seen) == 5 and set(seen) == {'0', '1'}
  first = [(tmp_path / f'point-{i}.log').read_text().strip() for i in (0, 1)]
  assert first == ['0', '1']


@pytest.fixture
def recorder(tmp_path):
  """PATH of a `python` that only writes down how it was called, and where."""
  called = tmp_path / 'called.jsonl'
  programs = {
    'python': f"""\
#!{sys.executable}
import json, os, sys
with open({str(called)!r}, 'a') as file:
  print(json.dumps(sys.argv[1:]), file=file)
sys.exit(int(os.environ.get('EXIT', '0')))
""",
    'srun': '#!/bin/sh\nexec "$@"\n',
    'scontrol': f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n',
  }
  for name, text in programs.items():
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  return f'{tmp_path}:{os.environ["PATH"]}', called


def emitted(config, kind):
  """Jobs of such a kind, with a flag that is hard to quote."""
  flags = ['--emit', kind, '--image=me/w2s', '--jobs', '3', ODD]
  done = sweep(config, 'gs://b/w', *flags)
  assert done.returncode == 0, done.stderr
  return done.stdout


def call_of(config, point):
  """What `python` has to be called with."""
  return [
    *('experiments/main.py', '--sweep', f'--config={config}'),
    *('--workdir=gs://b/w', ODD, f'--point={point}'),
  ]


def calls(called):
  return [json.loads(line) for line in called.read_text().splitlines()]


def test_a_slurm_array_runs_one_point_each(config, recorder):
  path, called = recorder
  script = emitted(config, 'slurm')
  assert script.startswith('#!/bin/bash\n#SBATCH')
  assert '\n#SBATCH --array=0-1\n' in script
  job = {'PATH': path, 'SLURM_ARRAY_TASK_ID': '1', 'SLURM_JOB_ID': '7'}
  requeued = called.with_name('requeued')
  for status in (0, 1, preemption.EXIT_CODE):
    assert not requeued.exists()
    done = subprocess.run(
      ['bash'], input=script, env=job | {'EXIT': str(status)}, text=True
    )
    assert done.returncode == status
  assert requeued.read_text() == 'requeue 7\n'
  assert calls(called) == 3 * [call_of(config, 1)]


def test_a_jobset_runs_one_point_each(config, recorder):
  yaml = pytest.importorskip('yaml')
  path, called = recorder
  spec = yaml.safe_load(emitted(config, 'jobset'))['spec']
  job = spec['replicatedJobs'][0]['template']['spec']
  assert (job['completions'], job['completionMode']) == (2, 'Indexed')
  container = job['template']['spec']['containers'][0]
  assert container['image'] == 'me/w2s'
  subprocess.run(
    [part.replace('$$', '$') for part in container['command']],  # Kubernetes
    env={'PATH': path, 'JOB_COMPLETION_INDEX': '1'},
    check=True,
  )
  assert calls(called) == [call_of(config, 1)]


def test_xmanager_runs_one_point_each(config, recorder, tmp_path):
  path, called = recorder
  script = emitted(config, 'xmanager')
  compile(script, 'launch.py', 'exec')
  assert 'for point in range(2):' in script and "'me/w2s'" in script
  pytest.importorskip('xmanager')
  (tmp_path / 'launch.py').write_text(script)
  subprocess.run(
    [sys.executable, 'launch.py', '--executor=Local'],
    cwd=tmp_path,
    env={'PATH': path, 'HOME': str(tmp_path)},
    check=True,
    timeout=300,
  )
  assert sorted(calls(called)) == [call_of(config, point) for point in (0, 1)]


def test_a_point_that_is_not_there(config, tmp_path):
  done = sweep(config, tmp_path, '--sweep', '--point=2', program='main.py')
  assert done.returncode == 1
  assert done.stderr.strip().endswith('--point=2: there are 2 points.')
