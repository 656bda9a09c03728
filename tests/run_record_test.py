"""Records of runs: their fields, their ends, and what leaves none."""

import json
import os
import shutil
import subprocess

from etils import epath
import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax.runtime import preemption
from w2s_jax.runtime import run_record

import tiny

FIELDS = {
  *('command', 'point', 'configs', 'versions', 'git_commit', 'git_dirty'),
  *('devices', 'processes', 'host_cores', 'started', 'status', 'seconds'),
}


def records(workdir):
  """run.json, and all records, the oldest first."""
  latest = json.loads((workdir / 'run.json').read_text())
  paths = sorted((workdir / 'runs').iterdir())
  assert all(path.suffix == '.json' for path in paths)
  return latest, [json.loads(path.read_text()) for path in paths]


def test_fields_of_a_record():
  argv = [f'{tiny.ROOT}/experiments/main.py', '--workdir=a b']
  record = run_record.describe(argv, [tiny.config()], point=3)
  assert record.keys() == FIELDS
  assert record['command'] == "python experiments/main.py '--workdir=a b'"
  assert record['point'] == 3
  (config,) = json.loads(json.dumps(record['configs']))
  assert config['losses'] == ['logconf']
  assert config['models']['weak']['train']['batch_size'] == 8
  assert record['versions']['numpy'] == np.__version__
  assert (
    record['versions']['w2s_jax'] and record['versions']['orbax-checkpoint']
  )
  assert record['devices'] == {'kind': 'cpu', 'count': 8}
  assert record['processes'] == 1 and record['host_cores'] >= 1
  assert record['status'] == 'running' and record['seconds'] is None
  assert str(tiny.ROOT) not in json.dumps(record)


def test_the_command_of_an_installed_package(monkeypatch, tmp_path):
  monkeypatch.setattr(run_record, '_CHECKOUT', tmp_path)
  argv = [str(tmp_path / 'experiments' / 'main.py'), '--workdir=a']
  assert run_record.describe(argv, [])['command'] == 'w2s run --workdir=a'


@pytest.mark.parametrize(
  'error, status',
  [
    (None, 'ok'),
    (preemption.Preempted('a'), 'stopped'),
    (KeyboardInterrupt(), 'stopped'),
    (ValueError('a'), 'error'),
  ],
)
def test_status_at_the_end(error, status, tmp_path):
  try:
    with run_record.keep(tmp_path, {'a': 1, 'status': 'running'}):
      assert records(tmp_path)[0]['status'] == 'running'
      if error:
        raise error
  except type(error) as e:
    assert e is error
  latest, (only,) = records(tmp_path)
  assert latest == only and only['status'] == status
  assert only['a'] == 1 and 0 <= only['seconds'] < 60


def test_every_run_has_its_record_and_the_last_one_is_the_latest(tmp_path):
  for number in range(3):
    with run_record.keep(tmp_path, {'number': number}):
      pass
  latest, every = records(tmp_path)
  assert [record['number'] for record in every] == [0, 1, 2]
  assert latest['number'] == 2


@pytest.mark.parametrize('exists', [True, False])
def test_a_mistake_before_anything_is_done_leaves_no_record(exists, tmp_path):
  workdir = tmp_path / 'w'
  if exists:
    workdir.mkdir()
  with pytest.raises(errors.UserError):
    with run_record.keep(workdir, {}):
      raise errors.UserError('a')
  assert workdir.exists() == exists
  assert not exists or not list(workdir.iterdir())


def test_a_mistake_later_on_keeps_it(tmp_path):
  with pytest.raises(errors.UserError):
    with run_record.keep(tmp_path, {}):
      (tmp_path / 'stages').mkdir()
      raise errors.UserError('a')
  assert records(tmp_path)[0]['status'] == 'error'


def test_a_full_disk_does_not_hide_why_a_run_failed(tmp_path, monkeypatch):
  def full(path, record):
    raise OSError('full')

  with pytest.raises(ValueError, match='the reason'):
    with run_record.keep(tmp_path, {}):
      monkeypatch.setattr(run_record, 'write', full)
      raise ValueError('the reason')
  monkeypatch.undo()
  with pytest.raises(OSError, match='full'):
    with run_record.keep(tmp_path, {}):
      monkeypatch.setattr(run_record, 'write', full)


def test_state_of_a_checkout(tmp_path, monkeypatch):
  unknown = {'git_commit': None, 'git_dirty': None}
  assert run_record.git_state(tmp_path) == unknown
  identity = [
    f'{role}_{what}'
    for role in ('AUTHOR', 'COMMITTER')
    for what in ('NAME', 'EMAIL')
  ]
  environment = os.environ | {f'GIT_{name}': 'a' for name in identity}

  def git(*command):
    subprocess.run(
      ['git', '-C', tmp_path, *command], check=True, env=environment
    )

  git('init', '-q')
  assert run_record.git_state(tmp_path) == unknown  # no commit yet
  (tmp_path / 'a').touch()
  (tmp_path / 'inside').mkdir()
  git('add', '-A')
  git('commit', '-qm', 'a')
  state = run_record.git_state(tmp_path)
  assert len(state['git_commit']) == 40 and state['git_dirty'] is False
  assert run_record.git_state(tmp_path / 'inside') == unknown
  (tmp_path / 'b').touch()
  assert run_record.git_state(tmp_path) == state | {'git_dirty': True}
  monkeypatch.setenv('PATH', '')
  assert run_record.git_state(tmp_path) == unknown


def test_main_keeps_a_record_for_each_invocation(tmp_path):
  workdir = shutil.copytree(tiny.process_workdir(), tmp_path / 'again')
  tiny.finish(tiny.start(workdir, '--config.checkpoint_every=500'))
  latest, (first, second) = records(epath.Path(workdir))
  assert latest == second and first['status'] == second['status'] == 'ok'
  assert first['command'].startswith('python experiments/main.py --config=')
  assert first['configs'][0]['seeds'] == [0]
  assert first['devices']['count'] == 1 and first['seconds'] > 0
  assert first['started'] <= second['started']
