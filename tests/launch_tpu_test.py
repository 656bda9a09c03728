"""experiments/launch_tpu.sh with a gcloud that only records its calls."""

import os
import subprocess

import pytest

from w2s_jax.runtime import preemption

import tiny

SCRIPT = tiny.ROOT / 'experiments' / 'launch_tpu.sh'
FLAGS = (
  *('--name=w2s', '--zone=z', '--type=v5p-16', '--workdir=gs://b/w'),
  *('--', '--config=configs/nlp.py:debug', '--config.seeds=0,1'),
)
# The study fails so often; describe answers with STATE.
GCLOUD = """#!/bin/bash
echo "$@" | tr '\\n' ' ' >> {folder}/calls; echo >> {folder}/calls
case "$*" in
  *describe*) echo $STATE ;;
  *main.py*)
    if [[ $(grep -c main.py {folder}/calls) -le $FAILURES ]]; then exit 1; fi
esac
"""


@pytest.fixture
def launch(tmp_path):
  """(flags, failures, state) -> (process, verbs of the calls of gcloud)."""
  (tmp_path / 'gcloud').write_text(GCLOUD.format(folder=tmp_path))
  (tmp_path / 'sleep').write_text('#!/bin/bash\n')
  for name in ('gcloud', 'sleep'):
    (tmp_path / name).chmod(0o755)

  def run(*flags, failures=0, state='READY'):
    environment = {
      'PATH': f'{tmp_path}:{os.environ["PATH"]}',
      'FAILURES': str(failures),
      'STATE': state,
    }
    done = subprocess.run(
      [SCRIPT, *flags],
      env=os.environ | environment,
      capture_output=True,
      text=True,
      timeout=60,
    )
    calls = tmp_path / 'calls'
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done, lines

  return run


def verbs(lines):
  return [
    'run' if 'main.py' in line else line.split()[3]
    for line in lines
    if 'tpu-vm' in line
  ]


def test_one_slice_from_its_making_to_its_end(launch, tmp_path):
  done, lines = launch(f'--fetch={tmp_path}/out', '--spot', *FLAGS)
  assert done.returncode == 0, done.stderr
  assert verbs(lines) == ['create', 'scp', 'ssh', 'run', 'delete']
  assert '--accelerator-type=v5p-16' in lines[0] and '--spot' in lines[0]
  (run,) = [line for line in lines if 'main.py' in line]
  assert '--worker=all' in run and '--distributed' in run
  assert '--workdir=gs://b/w --config=configs/nlp.py:debug' in run
  assert any('storage cp -r gs://b/w/report.html' in line for line in lines)


def test_a_slice_that_is_taken_away_is_made_again(launch):
  done, lines = launch(*FLAGS, failures=2, state='PREEMPTED')
  assert done.returncode == 0, done.stderr
  once = ['create', 'scp', 'ssh', 'run']
  again = [*once, 'describe', 'delete']
  assert verbs(lines) == [*again, *again, *once, 'delete']
  done, lines = launch('--attempts=1', *FLAGS, failures=9, state='PREEMPTED')
  assert done.returncode == 1 and 'lost 1 times' in done.stderr


def test_an_error_of_the_study_is_not_tried_again(launch):
  done, lines = launch(*FLAGS, failures=1)
  assert done.returncode == 1 and 'left running' in done.stderr
  assert verbs(lines) == ['create', 'scp', 'ssh', 'run', *['describe'] * 6]


@pytest.mark.parametrize('end', [0, 1, 134])
def test_workers_begin_again_when_asked_to_stop(launch, tmp_path, end):
  _, lines = launch(*FLAGS)
  (run,) = [line for line in lines if 'main.py' in line]
  command = run.partition('--command=')[2].partition('--zone')[0]
  python = tmp_path / 'w2s_jax' / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(
    f'#!/bin/bash\necho "$@" >> {tmp_path}/runs\n'
    f'(( $(wc -l < {tmp_path}/runs) < 3 )) && exit {preemption.EXIT_CODE}\n'
    f'exit {end}\n'
  )
  python.chmod(0o755)
  done = subprocess.run(['bash', '-c', command], cwd=tmp_path, timeout=60)
  assert done.returncode == end
  runs = (tmp_path / 'runs').read_text().splitlines()
  assert len(runs) == 3 and len(set(runs)) == 1
  assert runs[0].endswith('--config=configs/nlp.py:debug --config.seeds=0,1')


def test_a_dry_run_only_prints(launch):
  done, lines = launch('--dry-run', *FLAGS)
  assert done.returncode == 0 and not lines
  for part in ('tpu-vm create w2s', 'tpu-vm scp', 'main.py', 'delete w2s'):
    assert part in done.stdout


@pytest.mark.parametrize(
  'flags, message',
  [
    (FLAGS[1:], '--name= is missing'),
    (FLAGS[:4], '--config=... is missing'),
    (('--nme=x', *FLAGS), '--nme=x is not a flag'),
    (tuple(f.replace('gs://', '/') for f in FLAGS), 'must be gs://'),
  ],
)
def test_wrong_flags_are_named(launch, flags, message):
  done, lines = launch(*flags)
  assert done.returncode == 2 and message in done.stderr and not lines
