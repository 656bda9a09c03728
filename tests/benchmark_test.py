"""Counts and comparisons of the benchmark; almost nothing is timed."""

import collections
import dataclasses
import json
import time

import forked
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import compilations
from experiments.benchmarks import loops
from experiments.benchmarks import own_process
from experiments.benchmarks import padding
from experiments.benchmarks import puzzles
from experiments.benchmarks import small_study
from experiments.benchmarks import speed
from experiments.benchmarks import table
from experiments.benchmarks import torch_loops
from experiments.benchmarks import watched
from w2s_jax.models import heads
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.tasks import registry

import tiny

SIZES = dict(vocab_size=64, embed_dim=256, num_heads=8, mlp_dim=1024)


def run(*flags):
  """(exit status, what it printed) of experiments/benchmarks/benchmark.py."""
  done = forked.run('experiments/benchmarks/benchmark.py', *flags)
  return done.returncode, done.stdout + done.stderr


def ask(function, **arguments):
  return own_process.Process(
    function, environment=tiny.environment(), **arguments
  )


@pytest.mark.parametrize(
  'preset, sizes',
  [
    ('minilm-l6', SIZES),
    ('gpt2', SIZES),
    ('llama-3.2-1b', SIZES | dict(num_kv_heads=2, head_dim=48)),
  ],
)
def test_formula_of_flops_is_what_xla_counts(preset, sizes):
  config = dataclasses.replace(presets.PRESETS[preset], num_layers=2, **sizes)
  network = text_heads.Classifier(config, num_classes=2)
  params = heads.parameter_shapes(network)
  tokens_BxL = jnp.ones((4, 64), jnp.int32)
  length_B = jnp.full(4, 64)

  def forward(params):
    return network.apply({'params': params}, tokens_BxL, length_B).sum()

  count = speed.matmuls(config, batch=4, length=64, num_classes=2)
  work = speed.flops(count)
  for function, times in {forward: 1, jax.grad(forward): 3}.items():
    cost = jax.jit(function).lower(params).cost_analysis()
    # Softmax, norms and activations are what XLA counts besides.
    assert times * work < cost['flops'] < 1.06 * times * work


def test_gradients_of_a_matmul_are_matmuls():
  einsum = 'bgqk,bgmk->bgqm'
  sizes = dict(b=2, g=3, q=4, m=5, k=6)

  def operands(einsum):
    return [
      jax.random.normal(jax.random.key(i), [sizes[x] for x in indices])
      for i, indices in enumerate(einsum.partition('->')[0].split(','))
    ]

  left, right = operands(einsum)
  product, pull_back = jax.vjp(lambda *x: jnp.einsum(einsum, *x), left, right)
  forward, by_left, by_right = speed.with_gradients(einsum)
  assert forward == einsum
  grads = pull_back(product)
  np.testing.assert_allclose(
    jnp.einsum(by_left, product, right), grads[0], rtol=1e-5
  )
  np.testing.assert_allclose(
    jnp.einsum(by_right, left, product), grads[1], rtol=1e-5
  )


def test_peak_and_matmuls_alone():
  sizes = (('t', 2), ('i', 3), ('o', 5))
  turn = {'forward + backward': 0.1}
  for einsum in speed.with_gradients('ti,io->to'):
    turn[einsum, sizes] = 2.0
  turn['ti,io->to', sizes] = 1.0
  count = collections.Counter({('ti,io->to', sizes): 4})
  assert speed.peak(turn) == 2 * 2 * 3 * 5
  assert speed.alone(count, turn) == 4 * (1 + 2 + 2)


def test_largest_batch_that_fits():
  def make(size):
    if size > 4:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no room')
    return 'architecture', 'calls'

  found = speed.largest(make, [16, 8, 4, 2])
  assert found == ('architecture', 4, 'calls')
  with pytest.raises(jax.errors.JaxRuntimeError, match='no room'):
    speed.largest(make, [16, 8])


def test_padding_of_a_study():
  config = tiny.config(**{'data.num_buckets': 2})
  total = next(padding.measure(config=config))
  _, slices = tiny.splits()
  tokens = [len(x.split()) for part in slices[0] for x in part.inputs]
  epochs = config.models.weak.train.epochs
  assert total['tokens'] == epochs * sum(min(n, 16) for n in tokens)
  assert total['tokens'] < total['slots_of_rows'] <= total['slots']
  # All batches are full, and none is longer than the longest length.
  assert total['slots'] <= epochs * 16 * len(tokens)


def test_time_belongs_to_what_began_last():
  intervals = [('all', 0, 10), ('rows', 1, 4), ('inner', 2, 3), ('cut', 8, 12)]
  assert watched.innermost(intervals, until=10) == {
    'all': 1 + 4,
    'rows': 2,
    'inner': 1,
    'cut': 2,
  }


def test_start_up_ends_at_the_first_training_step(tmp_path):
  command = [
    f'--config={tiny.ROOT}/configs/nlp.py:debug',
    f'--workdir={tmp_path}',
  ]
  with ask(
    watched.main, command=command, started=time.time(), to_first_step=True
  ) as process:
    taken = process.next().value
  parts = taken['wall seconds of']
  assert {'Python', 'imports', 'rows', 'models', 'compiling'} <= parts.keys()
  np.testing.assert_allclose(sum(parts.values()), taken['wall'], rtol=1e-3)
  assert not (tmp_path / 'errors').exists()
  assert not list(tmp_path.glob('stages/*/DONE'))


@pytest.mark.parametrize(
  'unit, value, target, verdict',
  [
    ('%', 0.70, 0.65, 'met'),
    ('x', 1.2, 1.5, 'missed by 20%'),
    ('s', 6.0, 5.0, 'missed by 20%'),
    ('s', 4.0, 5.0, 'met'),
    ('x', 6.0, None, ''),
    ('programs', 0, 0, 'met'),
    ('programs', 2, 0, 'missed'),
  ],
)
def test_verdicts(unit, value, target, verdict):
  values = [value, 0.9 * value, 1.1 * value]
  row = table.Row('a', 'what', values, unit, 'bound', target)
  assert row.value == value and row.verdict() == verdict


@pytest.mark.slow
def test_table_and_file_of_a_run(tmp_path):
  path = tmp_path / 'rows.jsonl'
  status, text = run(
    *('--parts=a', '--preset=tiny-decoder', '--batch=2', '--length=8'),
    *('--repeats=1', f'--out={path}'),
  )
  assert status == 0, text
  assert 'forward + backward of tiny-decoder, 2 x 8 tokens' in text
  assert 'what bounds it' in text
  both, step = map(json.loads, path.read_text().splitlines())
  assert both['part'] == 'a' and 0 < both['value'] < 1 and len(both['values'])
  assert both['target'] == 0.65 and both['verdict']
  assert step['target'] is None and step['details']['tokens'] == 16


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--parts=a,z', "--parts: 'z' is not one of a, b"),
    ('--repeats=0', '--repeats=0 must be at least 1'),
    ('--dtype=float16', 'dtype'),
  ],
)
def test_mistakes_are_named(flag, message):
  status, text = run(flag)
  assert status == 1 and message in text, text


def test_errors_come_out_of_a_process():
  with ask(
    speed.measure, preset='gpt5', dtype='float32', batch=1, length=8
  ) as process:
    with pytest.raises(ValueError, match='the presets are .*gpt2'):
      process.next()


def tiny_bert(folder, texts):
  """An encoder of two layers and a tokenizer of the words of texts."""
  import tokenizers as hf
  import transformers

  words = sorted({word for text in texts for word in text.lower().split()})
  vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
  transformers.BertModel(
    transformers.BertConfig(
      vocab_size=len(vocab),
      max_position_embeddings=32,
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=4,
      intermediate_size=64,
    ),
    add_pooling_layer=False,
  ).save_pretrained(folder)
  backend = hf.Tokenizer(
    hf.models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token='[UNK]')
  )
  backend.normalizer = hf.normalizers.BertNormalizer()
  backend.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
  backend.post_processor = hf.processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  backend.save(str(folder / 'tokenizer.json'))


def test_plain_loops_do_the_work_of_a_study(tmp_path):
  """Where a batch is all rows of an epoch, the outcomes are the same."""
  pytest.importorskip('torch', reason='needs torch')
  pytest.importorskip('transformers', reason='needs transformers')
  tiny_bert(tmp_path, registry.load('synthetic')[0].inputs)
  fields = {'losses': ('xent',)}
  for key in ('weak', 'strong'):
    fields |= {
      f'models.{key}.weights': str(tmp_path),
      f'models.{key}.train.batch_size': 64,
      f'models.{key}.train.epochs': 8,
      f'models.{key}.train.learning_rate': 1e-2,
    }
  config = tiny.config(**fields)
  config.models.weak.train.freeze = '_embed/'
  work = small_study.fetched(config)
  with (
    ask(loops.study, config=config, folder=tmp_path / 'runs') as a,
    ask(torch_loops.study, padded=True, **work) as b,
    ask(torch_loops.study, padded=False, **work) as c,
    ask(torch_loops.study, padded=True, autocast=True, **work) as d,
  ):
    ours, *theirs, rounded = [
      (x.next(), x.next())[1].value for x in (a, b, c, d)
    ]
  assert min(ours[f'{x}_nll'] for x in ('weak', 'ceiling')) < 0.65
  for loop in theirs:
    assert len(loop) == 8
    for name, value in loop.items():
      np.testing.assert_allclose(value, ours[name], atol=1e-4, err_msg=name)
  assert rounded != theirs[0]
  for name, value in rounded.items():
    np.testing.assert_allclose(value, ours[name], atol=0.05, err_msg=name)


@pytest.mark.slow
def test_a_second_loss_compiles_nothing():
  first, second = compilations.rows(None, None)
  assert first.value > 5 and second.value == 0
  assert second.verdict() == 'met'


def test_repeated_puzzles_are_puzzles_of_their_own(tmp_path):
  file = tmp_path / 'puzzles.csv'
  puzzles.write(file, 12_000)  # of which 10,086 are ours
  pool, _ = registry.open_pool('chess_puzzles', source=f'file:{file}')
  assert len(pool) == len(set(pool.ids)) == len(set(pool.groups)) == 12_000
  found = puzzles.measure(file, 100)
  assert found['drawn'] == 2_500 + 2 * 100
  assert 0 < found['screening'] < found['seconds']
