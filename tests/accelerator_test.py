"""The benchmark of an accelerator at small sizes; its counts and its guards."""

import dataclasses
import json
import time

import forked
import jax
import pytest

from experiments.benchmarks import deviation
from experiments.benchmarks import training
from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import presets

TINY = training.Job('tiny', presets.PRESETS['tiny-decoder'], 8, 16)


def run(*flags):
  """(exit status, printed text) of experiments/benchmarks/accelerator.py."""
  done = forked.run('experiments/benchmarks/accelerator.py', *flags)
  return done.returncode, done.stdout + done.stderr


def options(*, deadline=60.0, lines=None):
  return training.Options(
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    small=True,
    deadline=time.monotonic() + deadline,
    say=([] if lines is None else lines).append,
  )


@pytest.mark.slow
def test_small_run_on_a_cpu(tmp_path):
  path = tmp_path / 'rows.jsonl'
  status, text = run('--parts=a,b', f'--out={path}')
  assert status == 0, text
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row['what'] for row in rows] == [
    'GPT-2 XL, einsum, 2 x 16 tokens',
    'GPT-2 XL, einsum, remat, 2 x 16 tokens',
    '16 models, 2 x 8 tokens',
    'one model, 2 x 8 tokens',
    'throughput of 16 models of 0.0M parameters side by side over one, '
    '2 x 8 tokens each',
  ]
  assert all(len(row['values']) == training.WINDOWS for row in rows)
  assert rows[1]['details']['remat'] and rows[1]['details']['tokens'] == 32
  assert rows[2]['details']['tokens'] == 16 * rows[3]['details']['tokens']
  assert rows[4]['unit'] == 'x' and rows[4]['target'] == 3.0
  assert "cudnn left out: attention='cudnn' needs an NVIDIA GPU" in text


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--parts=a,z', "--parts: 'z' is not one of a, b, c, d"),
    ('--limit=0', '--limit=0 must be at least 1'),
  ],
)
def test_mistakes_are_named(flag, message):
  status, text = run(flag)
  assert status == 1 and message in text, text


def test_after_the_limit_nothing_is_compiled():
  lines = []
  late = options(deadline=-1.0, lines=lines)
  assert not list(training.measured('a', late, [TINY, TINY]))
  assert lines == 2 * ['tiny left out: --limit is over.']


def test_flops_are_those_of_the_formula():
  config = dataclasses.replace(presets.PRESETS['gpt2-xl'], num_layers=3)
  job = training.Job('', config, batch=4, length=512, members=2)
  weights = 3 * 12 * 1600**2 + 2 * 1600 / 512  # and the head, once a row
  attention = 12 * 3 * 1600 * 512
  assert job.tokens == 2 * 4 * 512
  assert job.flops == job.tokens * (6 * weights + attention)


def test_a_step_that_cannot_run_is_tried_otherwise():
  memory = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no room')
  refused = jax.errors.JaxRuntimeError('INTERNAL: no cuDNN graph')
  assert training.next_try(TINY, memory).batch == 4
  assert training.next_try(TINY._replace(batch=1), memory) is None
  assert training.next_try(TINY, errors.UserError('too late')) is None
  other = training.next_try(TINY, refused)
  assert other.config.attention == 'einsum' and other.what == 'tiny, einsum'
  assert training.next_try(other, refused) is None

  lines, sizes = [], []

  def compile_job():
    raise memory

  def compiled(job, options):
    sizes.append(job.batch)
    raise memory if job.batch > 2 else errors.UserError('reached')

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training, 'compiled', compiled)
    with pytest.raises(errors.UserError, match='reached'):
      training.timed(options(lines=lines), TINY, compile_job)
  assert sizes == [4, 2]
  assert len(lines) == 2 and '8 rows: JaxRuntimeError: RESOURCE' in lines[0]


def test_an_error_is_one_line():
  def function(options):
    yield 1
    raise ValueError('two\nlines')

  lines = []
  assert list(training.guarded('(a)', function, options(lines=lines))) == [1]
  assert lines == ['(a) left out: ValueError: two lines']


def test_attention_in_one_kernel_deviates_as_einsum_does():
  rows = list(deviation.rows(options()))
  assert len(rows) == 4
  for row in rows:
    assert row.bound.startswith('equal but for rounding'), row
    assert [*row.details['fused']] == ['keys', 'outputs', 'queries', 'values']
