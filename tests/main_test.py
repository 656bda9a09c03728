"""What a user who made a mistake sees: one line, before anything is trained."""

from concurrent import futures
import subprocess
import sys

import pytest

import tiny

# Flags with a mistake, and what the one line says of it.
MISTAKES = {
  '--config=configs/nlp.py:debugg': ["'debugg'", "'debug'"],
  '--config=configs/nlp.py:strong=minilm7': ["strong='minilm7'", 'minilm-l6'],
  '--config=configs/none.py': ['configs/none.py'],
  '--config.models.strong.train.epochz=3': [
    'models.strong.train.epochz',
    "'epochs'",
  ],
  '--config.modles.strong.name=a': ['modles.strong.name', "'models'"],
  '--config.models.strong.train.epochs=two': ['models.strong.train.epochs=two'],
  '--config.models.strong.train=2': ['models.strong.train=2'],
  '--config.eval_batch_size=1.5': ['eval_batch_size=1.5'],
  '--workdirr=x': ["'workdirr'", 'workdir'],
  '--config.task=imbd': ["'imbd'", "'imdb'"],
  '--config.data.splits.weak=60000': ['data.splits.weak = 60000', 'smaller'],
  '--config.mesh.fsdp=3': ['mesh.fsdp=3', '2 devices'],
  '--config.models.strong.train.batch_size=9': [
    'models.strong.train.batch_size=9',
    'data',
  ],
  "--config.losses=('logconv',)": ["'logconv'", 'logconf'],
}


def run(flag, workdir):
  return subprocess.run(
    [
      sys.executable,
      'experiments/main.py',
      '--config=configs/nlp.py:debug',
      f'--workdir={workdir}',
      flag,
    ],
    cwd=tiny.ROOT,
    env=tiny.environment() | {'JAX_NUM_CPU_DEVICES': '2'},
    capture_output=True,
    text=True,
    timeout=120,
  )


@pytest.fixture(scope='module')
def attempts(tmp_path_factory):
  """A workdir and a finished process for each mistake."""
  workdirs = {flag: tmp_path_factory.mktemp('mistake') for flag in MISTAKES}
  with futures.ThreadPoolExecutor(max_workers=2) as pool:
    processes = pool.map(run, workdirs.keys(), workdirs.values())
    finished = zip(workdirs.values(), processes, strict=True)
    return dict(zip(MISTAKES, finished, strict=True))


@pytest.mark.parametrize('flag', MISTAKES)
def test_mistake_ends_with_one_line(flag, attempts):
  workdir, process = attempts[flag]
  assert process.returncode == 1
  (line,) = process.stderr.splitlines()
  assert line.startswith('error: ')
  assert all(words in line for words in MISTAKES[flag]), line
  assert 'Traceback' not in process.stdout
  assert not list(workdir.iterdir()), 'something was done before'


def test_sweep_takes_every_point_with_the_arguments_of_the_config():
  code = """
import sys, launch, main
launch.parse_flags(sys.argv)
for c in main.points():
  print(c.models.weak.name, c.models.strong.name, c.losses, c.seeds)
"""
  config = f'--config={tiny.ROOT}/configs/nlp.py:loss=xent'
  flags = [config, '--config.seeds=7', '--sweep', '--workdir=unused']
  printed = subprocess.run(
    [sys.executable, '-c', code, *flags],
    cwd=tiny.ROOT / 'experiments',
    check=True,
    capture_output=True,
    text=True,
  ).stdout.splitlines()
  assert len(printed) == 10
  assert printed[0] == "minilm-l0 minilm-l1 ('xent',) (7,)"
