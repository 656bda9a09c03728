"""Studies: a config in, stages run, rows of results.jsonl out.

A study trains the weak supervisor on the weak half, has it label the transfer
half, and trains the strong model on the transfer half: on the weak labels for a
student, once for each loss, and on ground truth for the ceiling.
"""

import dataclasses
import functools
import json

import jax
import numpy as np

from w2s_jax import checkpoint
from w2s_jax import losses
from w2s_jax import metrics
from w2s_jax import models
from w2s_jax import optimizer
from w2s_jax import sharding
from w2s_jax import stages
from w2s_jax import tasks
from w2s_jax import weak_labels
from w2s_jax.tasks import splits

# One row of results.jsonl for each of these.
ROW_KEY = ('task', 'weak_model', 'strong_model', 'loss', 'seed')


def run(config, workdir, *, console):
  """Runs the study of a config and adds its rows to WORKDIR/results.jsonl.

  Raises:
    ValueError, FileNotFoundError: a field or a file does not fit; raised
      before anything is trained.
  """
  mesh = sharding.make_mesh(**config.mesh)
  check_numbers(config)
  evaluated, halves, num_classes = load_splits(
    config.task, config.data, config.seeds
  )
  check_losses(config.losses, config.loss_args, num_classes)
  weak, strong = (
    build_model(spec, num_classes, config.data.max_length, mesh, field)
    for field, spec in (('weak', config.weak), ('strong', config.strong))
  )
  runtime = stages.Runtime(
    workdir=checkpoint.absolute(workdir),
    mesh=mesh,
    console=console,
    eval_batch_size=config.eval_batch_size,
    checkpoint_every=config.checkpoint_every,
    tensorboard=config.tensorboard,
    num_stages=1 + len(config.seeds) * (3 + len(config.losses)),
  )
  evaluation = stages.Evaluation(
    splits=evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
  )
  zero_shot = stages.zero_shot_stage(
    runtime, model=strong, evaluation=evaluation
  )
  for seed, (weak_half, transfer_half) in halves.items():
    rows = weak_to_strong(
      runtime,
      config,
      weak=weak,
      strong=strong,
      weak_half=weak_half,
      transfer_half=transfer_half,
      evaluation=evaluation,
      zero_shot=zero_shot,
      seed=seed,
    )
    if jax.process_index() == 0:
      write_results(runtime.workdir, rows)


def weak_to_strong(
  runtime,
  config,
  *,
  weak,
  strong,
  weak_half,
  transfer_half,
  evaluation,
  zero_shot,
  seed,
):
  """One seed of the study (paper section 3): a row of results for each loss."""
  shared = dict(evaluation=evaluation, seed=seed)
  # From here on only the ceiling and the final comparison see ground truth.
  inputs = dataclasses.replace(transfer_half, label_probs_NxC=None)

  def train(role, model, spec, inputs, labels, loss='xent'):
    return stages.train_stage(
      runtime,
      role=role,
      model=model,
      fine_tuning=spec.train.to_dict(),
      loss=loss,
      loss_args=dict(config.loss_args.get(loss, {})),
      inputs=inputs,
      labels=labels,
      **shared,
    )

  supervisor = train(
    'weak',
    weak,
    config.weak,
    weak_half,
    weak_labels.ground_truth(weak_half),
  )
  labels = stages.label_stage(
    runtime, model=weak, supervisor=supervisor, inputs=inputs, **shared
  )
  truth = weak_labels.ground_truth(transfer_half)
  ceiling = train('ceiling', strong, config.strong, inputs, truth)
  rows = []
  for loss in config.losses:
    student = train(
      f'student-{loss}', strong, config.strong, inputs, labels, loss
    )
    row = dict(
      task=config.task,
      weak_model=weak.name,
      strong_model=strong.name,
      loss=loss,
      seed=seed,
    )
    row |= compare(
      dict(
        weak=supervisor, student=student, ceiling=ceiling, zero_shot=zero_shot
      )
    )
    row['weak_label_accuracy'] = metrics.accuracy(
      weak_labels.join(transfer_half.ids, labels),
      transfer_half.label_probs_NxC,
    )
    rows.append(row)
  return rows


def compare(trained):
  """Metrics, agreement and PGR on the test set, of stages by their role."""
  test = {role: stage.predictions('test') for role, stage in trained.items()}
  truth = test['weak']['label_probs']
  row = {'n_test': len(truth)}
  for role, arrays in test.items():
    summary = metrics.summary(arrays['probs'], truth)
    for name in ('accuracy', 'accuracy_se', 'auroc', 'nll', 'ece'):
      row[f'{role}_{name}'] = summary[name]
    row[f'{role}_validation_accuracy'] = trained[role].summary()[
      'validation_accuracy'
    ]
  agreement = metrics.agreement(
    test['student']['probs'], test['weak']['probs'], truth
  )
  row['agreement'] = agreement['all']
  row['agreement_supervisor_right'] = agreement['supervisor_right']
  row['agreement_supervisor_wrong'] = agreement['supervisor_wrong']
  pgr = metrics.pgr_interval(
    *(
      metrics.correct(test[role]['probs'], truth)[None]
      for role in ('weak', 'student', 'ceiling')
    )
  )
  row['pgr'], row['pgr_status'] = pgr.value, pgr.status
  row['seconds'] = trained['student'].summary()['seconds']
  row['stages'] = {role: s.folder.name for role, s in trained.items()}
  return row


def load_splits(task, data, seeds):
  """(evaluated splits, {seed: (weak half, transfer half)}, num_classes).

  Test and validation sets depend on data.seed alone and are shared by all
  seeds; each seed draws its own halves from what is left, by group.
  """
  pool, test_pool = tasks.load(task, source=data.source)[:2]
  sizes = data.splits
  held_out = {'validation': sizes.validation}
  if test_pool is None:
    test_pool, held_out = pool, {'test': sizes.test, **held_out}
    chosen = splits.split(pool, held_out, seed=data.seed)
    test = pool.take(chosen['test'])
  else:
    chosen = splits.split(test_pool, {'test': sizes.test}, seed=data.seed)
    test = test_pool.take(chosen['test'])
    pool = splits.exclude_groups(pool, test.groups)
    chosen = splits.split(pool, held_out, seed=data.seed)
  validation = pool.take(chosen['validation'])
  rest = splits.exclude_groups(pool, test.groups)
  rest = splits.exclude_groups(rest, validation.groups)
  evaluated = {'validation': validation, 'test': test}
  halves = {}
  for seed in seeds:
    sizes_of_halves = {'weak': sizes.weak, 'transfer': sizes.transfer}
    chosen = splits.split(rest, sizes_of_halves, seed=f'{data.seed}/{seed}')
    named = {name: rest.take(index) for name, index in chosen.items()}
    splits.check_disjoint({**evaluated, **named})
    halves[seed] = named['weak'], named['transfer']
  return evaluated, halves, pool.label_probs_NxC.shape[1]


def check_numbers(config):
  """Counts are positive and seeds are whole numbers."""
  counts = {
    'checkpoint_every': config.checkpoint_every,
    'eval_batch_size': config.eval_batch_size,
    'data.num_buckets': config.data.num_buckets,
  }
  for field in ('weak', 'strong'):
    for name in ('epochs', 'batch_size'):
      counts[f'{field}.train.{name}'] = config[field].train[name]
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f'{name}={value} must be at least 1.')
  for seed in config.seeds:
    if not isinstance(seed, int) or seed < 0:
      raise ValueError(f'seeds: {seed!r} must be a whole number, 0 or more.')


def build_model(spec, num_classes, max_length, mesh, field):
  """Model of config.weak or config.strong, checked with its fine-tuning."""
  fields = {k: v for k, v in spec.items() if k != 'train'}
  try:
    model = models.build(num_classes=num_classes, **fields)
    shapes = jax.eval_shape(
      model.network.init,
      jax.random.key(0),
      np.zeros((1, max_length), np.int32),
      np.ones(1, np.int32),
    )
    optimizer.partition(shapes['params'], freeze=spec.train.freeze)
    optimizer.make_schedule(
      peak=spec.train.learning_rate,
      total_steps=1,
      warmup=spec.train.warmup,
      decay=spec.train.decay,
    )
  except ValueError as e:
    raise ValueError(f'config.{field}: {e}') from e
  sharding.check_divides(
    mesh,
    batch_size=spec.train.batch_size,
    num_heads=model.network.config.num_heads,
    name=field,
  )
  return model


def check_losses(names, loss_args, num_classes):
  """Traces every loss once: it exists and takes the arguments of the config."""
  probs_BxC = jax.ShapeDtypeStruct((2, num_classes), 'float32')
  weight_B = jax.ShapeDtypeStruct((2,), 'float32')
  for name in names:
    if name not in losses.LOSSES:
      raise ValueError(
        f'losses: {name!r} is not one of {", ".join(sorted(losses.LOSSES))}.'
      )
    loss = functools.partial(
      losses.LOSSES[name], step_fraction=0.5, **loss_args.get(name, {})
    )
    try:
      jax.eval_shape(loss, probs_BxC, probs_BxC, weight_B=weight_B)
    except TypeError as e:
      raise ValueError(f'loss_args.{name}: {e}.') from e


def write_results(workdir, rows):
  """Adds rows to results.jsonl; a row of the same key is replaced."""
  path = workdir / 'results.jsonl'
  old = []
  if path.exists():
    old = [json.loads(line) for line in path.read_text().splitlines()]
  by_key = {tuple(row[k] for k in ROW_KEY): row for row in [*old, *rows]}
  lines = [json.dumps(by_key[key]) + '\n' for key in sorted(by_key)]
  partial = path.with_name('results.jsonl.partial')
  partial.write_text(''.join(lines))
  partial.replace(path)
