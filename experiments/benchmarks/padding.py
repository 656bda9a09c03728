"""Share of tokens in training batches that are not padding."""

import collections

from configs import chess
from configs import nlp
from configs import reward_modeling
from experiments.benchmarks import own_process
from experiments.benchmarks import table


def rows(options, console):
  del options, console
  configs = {
    'nlp': nlp.get_config('adapt=full'),
    'chess': chess.get_config(),
    'reward_modeling': reward_modeling.get_config('adapt=full'),
  }
  for name, config in configs.items():
    with own_process.Process(measure, config=config) as measured:
      total = measured.next().value
    in_bucket = total['tokens'] / total['slots_of_rows']
    yield table.Row(
      'b',
      f'useful of all tokens, configs/{name}.py',
      [total['tokens'] / total['slots']],
      '%',
      f'{in_bucket:.1%} by the lengths alone, {total["lengths"]} for the '
      'student; then rows that fill up batches of longer ones, and the last '
      'batch',
      target=0.85,
      details=total,
    )


def measure(*, config):
  """Yields token counts of the training batches of a study.

  {'tokens': without padding, 'slots': with padding, 'slots_of_rows': each row
  padded to its own bucket, 'lengths': number of buckets of the student}.
  """
  import numpy as np

  from w2s_jax import batching
  from w2s_jax import check_config
  from w2s_jax import evaluate
  from w2s_jax import sharding
  from w2s_jax import study

  mesh = sharding.make_mesh()
  (weak, strong), *_ = check_config.parse_chains(config.students, config.models)
  evaluated, slices = study.load_splits(config)
  evaluation = evaluate.Evaluation(
    **evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
  )
  first = slices[config.seeds[0]]
  total = collections.Counter()
  for key, examples in ((weak, first.weak), (strong, first.transfer[0])):
    model = check_config.build_model(
      config.models[key], key, config.task, config.data, mesh
    )
    rows, _ = evaluate.tokenize(model, examples, config.data.max_length)
    buckets = evaluation.for_model(model, len(first.transfer[0])).buckets(model)
    fields = config.models[key].train
    plan = batching.EpochPlan(
      rows.lengths_N,
      batch_size=fields.batch_size,
      buckets=buckets,
      epochs=fields.epochs,
      seed=0,
    )
    tokens = fields.epochs * int(rows.lengths_N.sum())
    bucket_N = np.array(buckets)[batching.bucket_of(rows.lengths_N, buckets)]
    total['tokens'] += tokens
    total['slots'] += round(tokens * batching.padding_ratio(rows, plan))
    total['slots_of_rows'] += fields.epochs * int(bucket_N.sum())
  yield {**total, 'lengths': len(buckets)}
