"""Plans for devices that are not there, and counts of what a study does."""

import subprocess
import sys

import pytest

from configs import chess
from configs import nlp
from w2s_jax import checks
import tiny


def plan(*flags, config='nlp.py:debug'):
  """(exit status, what it printed) of experiments/plan.py."""
  done = subprocess.run(
    [
      sys.executable,
      str(tiny.ROOT / 'experiments' / 'plan.py'),
      f'--config={tiny.ROOT}/configs/{config}',
      *flags,
    ],
    env=tiny.environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope='module')
def module():
  """experiments/plan.py, whose functions need no flags."""
  folder = str(tiny.ROOT / 'experiments')
  sys.path.insert(0, folder)
  try:
    import plan as found
  finally:
    sys.path.remove(folder)
  return found


def test_a_plan_says_what_a_device_does():
  status, text = plan('--chip=h100', '--devices=8', '--mesh=fsdp=4,tensor=2')
  assert status == 0, text
  assert '54,144 parameters on data=1, fsdp=4, tensor=2' in text
  for row in ('peak memory', 'all-reduce', 'time a step, at least', 'hours'):
    assert row in text


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--chip=v7'], '--chip=v7 is not one of v4'),
    (['--chip=h100', '--mesh=fsdp'], "--mesh: 'fsdp' is not"),
    (['--chip=h100', '--devices=6', '--mesh=fsdp=4'], 'divide the 6 devices'),
    (
      ['--chip=h100', '--devices=8', '--mesh=tensor=8'],
      'mesh.tensor=8 does not divide the 4 attention heads',
    ),
    (
      ['--chip=h100', '--devices=3', '--mesh=fsdp=3'],
      'models.weak.train.batch_size=32 does not divide',
    ),
  ],
)
def test_what_does_not_divide_is_named(flags, message):
  status, text = plan(*flags)
  assert status == 1 and message in text.replace('\n', ' '), text


def test_sides_of_a_pod(module):
  assert module.pod(256, 2) == (16, 16)
  assert module.pod(8, 2) == (2, 4)
  assert module.pod(256, 3) == (4, 8, 8)
  assert module.pod(64, 3) == (4, 4, 4)


def test_arrays_of_a_program(module):
  assert module.array_bytes('(bf16[8,128]{1,0}, f32[4])') == [2048, 16]
  assert module.array_bytes('s32[]') == [4]


def test_work_of_a_study(module):
  c = nlp.get_config('debug')  # 256 and 1,024 rows, batches of 32, 4 epochs
  chains = checks.parse_chains(c.students, c.models)
  weak = module.work(c, chains, 'weak')
  assert weak['training'] == 2 * 4 * 8
  assert weak['prediction'] == 2 * -(-(64 + 512 + 1024) // 64)
  strong = module.work(c, chains, 'strong')
  assert strong['training'] == 2 * (2 + 1) * 4 * 32
  assert strong['prediction'] == 2 * (2 + 1) * 9


def test_a_model_in_the_middle_of_a_chain_labels_too(module):
  c = chess.get_config('debug')
  c.students = ('xs>s>m',)
  c.data.splits.update(weak=64, transfer=64, validation=64, test=64)
  c.eval_batch_size = 64
  chains = checks.parse_chains(c.students, c.models)
  counts = {key: module.work(c, chains, key) for key in c.models}
  seeds = len(c.seeds)
  # Validation, test and the next slice; no ceiling of a middle model.
  assert counts['s']['prediction'] == seeds * 3
  assert counts['m']['prediction'] == seeds * 2 * 2
