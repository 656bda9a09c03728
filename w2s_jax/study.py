"""Studies: a config in, stages run, rows of results.jsonl out.

For each seed the weak supervisor of a student is trained on the weak half of
the data and labels the transfer half; the student is trained on those labels.
A chain of more than two models is bootstrapping: each model labels fresh rows
for the next. The strong ceiling is the student's model trained on ground truth.
"""

import dataclasses
import functools
import itertools
import json

import jax

from w2s_jax import checkpoint
from w2s_jax import heads
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
ROW_KEY = (
  *('task', 'weak_model', 'strong_model', 'via'),
  *('loss', 'weak_labels', 'early_stopping', 'generative', 'seed'),
)


def run(config, workdir, *, console):
  """Runs the study of a config and adds its rows to WORKDIR/results.jsonl.

  Raises:
    ValueError, FileNotFoundError: a field or a file does not fit; raised
      before anything is trained.
  """
  mesh = sharding.make_mesh(**config.mesh)
  chains = parse_chains(config.students, config.models)
  check_numbers(config)
  evaluated, slices = load_splits(
    config.task,
    config.data,
    seeds=config.seeds,
    num_transfer=max(map(len, chains)) - 1,
  )
  check_losses(config.losses, config.loss_args, config.task)
  ladder = {
    key: build_model(config.models[key], key, config.task, config.data, mesh)
    for key in dict.fromkeys(itertools.chain(*chains))
  }
  if any(config.generative):
    check_generative(config.generative_train, chains, ladder, mesh)
  runtime = stages.Runtime(
    workdir=checkpoint.absolute(workdir),
    mesh=mesh,
    console=console,
    eval_batch_size=config.eval_batch_size,
    checkpoint_every=config.checkpoint_every,
    tensorboard=config.tensorboard,
    num_stages=count_stages(
      chains, config.losses, config.seeds, config.generative
    ),
  )
  evaluation = stages.Evaluation(
    splits=evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
    measure=tasks.TASKS[config.task].measure,
  )
  zero_shot = {
    key: stages.zero_shot_stage(
      runtime, model=ladder[key], evaluation=evaluation
    )
    for key in dict.fromkeys(chain[-1] for chain in chains)
  }
  for seed in config.seeds:
    journey = Journey(runtime, config, ladder, evaluation, slices[seed], seed)
    rows = [
      journey.result(chain, loss, generative, zero_shot[chain[-1]])
      for generative in config.generative
      for chain in chains
      for loss in config.losses
    ]
    if jax.process_index() == 0:
      write_results(runtime.workdir, rows)


class Journey:
  """The stages of one seed; asking twice for a stage runs it once.

  A chain of keys of config.models stands for its last model: a weak supervisor
  if it is alone, else a student of the chain before it.
  """

  def __init__(self, runtime, config, ladder, evaluation, slices, seed):
    self._runtime = runtime
    self._config = config
    self._ladder = ladder
    self._slices = slices  # the weak half, then a transfer slice a step
    self._shared = dict(evaluation=evaluation, seed=seed)
    self._validation = evaluation.splits['validation']
    for method in ('_weak', '_student', '_labels', '_ceiling', '_model'):
      setattr(self, method, functools.cache(getattr(self, method)))

  def _trained(self, chain, loss, generative):
    if chain[1:]:
      return self._student(chain, loss, generative)
    return self._weak(chain)

  def _weak(self, chain):
    rows = self._slices[0]
    truth = weak_labels.ground_truth(rows)
    return self._train('weak', self._ladder[chain[0]], chain[0], rows, truth)

  def _student(self, chain, loss, generative):
    """Trained on what its teacher says of a slice that is new to both."""
    *teachers, key = chain
    supervisor = self._trained(chain[:-1], loss, generative)
    return self._train(
      f'student-{loss}',
      self._model(key, generative),
      key,
      self._slices[len(teachers)],
      self._labels(chain[:-1], supervisor),
      suffix=f'-by-{"-".join(teachers)}',
      loss=loss,
      judge=self._judge(supervisor),
    )

  def _ceiling(self, key, generative):
    """Trained on the truth of the first transfer slice."""
    rows = self._slices[1]
    truth = weak_labels.ground_truth(rows)
    model = self._model(key, generative)
    return self._train('ceiling', model, key, rows, truth)

  def _model(self, key, generative):
    """A model of the ladder, or what it is after it has learned to write."""
    model = self._ladder[key]
    if not generative:
      return model
    return stages.generative_stage(
      self._runtime,
      name=f'generative-{model.name}',
      model=model,
      fine_tuning=self._config.generative_train.to_dict(),
      inputs=without_truth(self._slices[1]),
      **self._shared,
    )

  def _labels(self, chain, supervisor):
    """What the supervisor at the end of a chain says of the next slice."""
    labels = stages.label_stage(
      self._runtime,
      name=f'labels-by-{"-".join(chain)}',
      model=self._ladder[chain[-1]],
      supervisor=supervisor,
      inputs=without_truth(self._slices[len(chain)]),
      **self._shared,
    )
    return weak_labels.TRANSFORMS[self._config.weak_labels](labels)

  def _judge(self, supervisor):
    """Labels of the validation rows by which a student is stopped early."""
    if self._config.early_stopping == 'ground_truth':
      return weak_labels.ground_truth(self._validation)
    if self._config.early_stopping == 'weak_labels':
      said = supervisor.predictions('validation')
      rows = splits.fingerprint(self._validation)
      source = {'supervisor': supervisor.key, 'rows': rows}
      return weak_labels.Labels(said['ids'], said['probs'], source)
    return None

  def _train(
    self, role, model, key, rows, labels, *, suffix='', loss='xent', judge=None
  ):
    return stages.train_stage(
      self._runtime,
      name=f'{role}-{model.name}{suffix}',
      model=model,
      fine_tuning=self._config.models[key].train.to_dict(),
      loss=loss,
      loss_args=dict(self._config.loss_args.get(loss, {})),
      inputs=without_truth(rows),
      labels=labels,
      judge=judge,
      **self._shared,
    )

  def result(self, chain, loss, generative, zero_shot):
    """One row of results: a student beside what it is to be held against."""
    weak, strong = self._ladder[chain[0]], self._ladder[chain[-1]]
    row = dict(
      task=self._config.task,
      weak_model=weak.name,
      strong_model=strong.name,
      via=[self._ladder[key].name for key in chain[1:-1]],
      weak_labels=self._config.weak_labels,
      early_stopping=self._config.early_stopping,
      generative=generative,
      loss=loss,
      seed=self._shared['seed'],
      weak_parameters=weak.num_parameters,
      strong_parameters=strong.num_parameters,
    )
    row |= compare(
      dict(
        weak=self._weak(chain[:1]),
        student=self._student(chain, loss, generative),
        ceiling=self._ceiling(chain[-1], generative),
        zero_shot=zero_shot,
      )
    )
    transfer = self._slices[len(chain) - 1]
    supervisor = self._trained(chain[:-1], loss, generative)
    row['weak_label_accuracy'] = metrics.accuracy(
      weak_labels.join(
        transfer.ids, self._labels(chain[:-1], supervisor)
      ).probs_NxC,
      transfer.label_probs_NxC,
    )
    return row


def without_truth(examples):
  """What a model in training may see of its rows."""
  return dataclasses.replace(examples, label_probs_NxC=None)


def parse_chains(students, ladder):
  """(('a', 'b', 'c'), ...) of ('a>b>c', ...): a teaches b, and b teaches c.

  Raises:
    ValueError: a chain is too short, repeats, or names no model.
  """
  chains = [tuple(key.strip() for key in s.split('>')) for s in students]
  for text, chain in zip(students, chains):
    if len(chain) < 2 or chains.count(chain) > 1:
      raise ValueError(
        f'students: {text!r} must name each chain of two or more models once, '
        "as 'weak>strong'."
      )
    for key in chain:
      if key not in ladder:
        raise ValueError(
          f'students: {text!r} names {key!r}; models has {", ".join(ladder)}.'
        )
  if not chains:
    raise ValueError("students is empty; name a chain, as 'weak>strong'.")
  return chains


def count_stages(chains, loss_names, seeds, generative):
  """Of a study; `generative` as in the config."""
  prefixes = {c[:n] for c in chains for n in range(1, len(c) + 1)}
  labelled = {c[:n] for c in chains for n in range(1, len(c))}
  alone = sum(len(c) == 1 for c in prefixes)
  students = (len(prefixes) + len(labelled) - 2 * alone) * len(loss_names)
  strong = len({c[-1] for c in chains})
  learned_to_write = len({key for c in chains for key in c[1:]})
  a_seed = 2 * alone + (students + strong) * len(generative)
  a_seed += learned_to_write * sum(generative)
  return strong + len(seeds) * a_seed


def compare(trained):
  """Metrics, agreement and PGR on the test set, of stages by their role."""
  test = {role: stage.predictions('test') for role, stage in trained.items()}
  truth = test['weak']['label_probs']
  row = {'n_test': len(truth)}
  for role, arrays in test.items():
    summary = metrics.summary(arrays['probs'], truth)
    for name in ('accuracy', 'accuracy_se', 'auroc', 'nll', 'ece'):
      row[f'{role}_{name}'] = summary[name]
    for name, value in trained[role].summary().items():
      if name == 'validation_accuracy' or name.startswith('test_'):
        row.setdefault(f'{role}_{name.removeprefix("test_")}', value)
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
  for name in ('seconds', 'rows', 'rows_cut'):
    row[name] = trained['student'].summary()[name]
  row['stages'] = {role: s.folder.name for role, s in trained.items()}
  return row


def load_splits(task, data, *, seeds, num_transfer):
  """(evaluated splits, {seed: [weak half, transfer slices ...]}).

  Test and validation sets depend on data.seed alone and are shared by all
  seeds; each seed draws its own slices from what is left, by group.
  """
  pool, test_pool = tasks.load(
    task, source=data.source, select=data.select.to_dict()
  )[:2]
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
  transfer = [
    'transfer',
    *(f'transfer_{i}' for i in range(2, num_transfer + 1)),
  ]
  slice_sizes = {'weak': sizes.weak, **dict.fromkeys(transfer, sizes.transfer)}
  slices = {}
  for seed in seeds:
    chosen = splits.split(rest, slice_sizes, seed=f'{data.seed}/{seed}')
    named = {name: rest.take(index) for name, index in chosen.items()}
    splits.check_disjoint({**evaluated, **named})
    slices[seed] = list(named.values())
  return evaluated, slices


def check_numbers(config):
  """Counts are positive, seeds are whole numbers, names are known."""
  counts = {
    'checkpoint_every': config.checkpoint_every,
    'eval_batch_size': config.eval_batch_size,
    'data.num_buckets': config.data.num_buckets,
  }
  recipes = {f'models.{key}.train': m.train for key, m in config.models.items()}
  recipes['generative_train'] = config.generative_train
  for key, recipe in recipes.items():
    for name in ('epochs', 'batch_size'):
      counts[f'{key}.{name}'] = recipe[name]
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f'{name}={value} must be at least 1.')
  for seed in config.seeds:
    if not isinstance(seed, int) or seed < 0:
      raise ValueError(f'seeds: {seed!r} must be a whole number, 0 or more.')
  choices = {
    'weak_labels': weak_labels.TRANSFORMS,
    'early_stopping': ('none', 'weak_labels', 'ground_truth'),
  }
  for name, known in choices.items():
    if config[name] not in known:
      raise ValueError(
        f'{name}={config[name]!r} is not one of {", ".join(sorted(known))}.'
      )


def build_model(spec, key, task, data, mesh):
  """Model of config.models[key], checked with its fine-tuning."""
  fields = {k: v for k, v in spec.items() if k != 'train'}
  task = tasks.TASKS[task]
  try:
    model = models.build(
      inputs=task.inputs, num_classes=task.num_classes, **fields
    )
    shapes = heads.parameter_shapes(model.network, data.max_length)
    # Without any row: is there room for one?
    model.network.rows(model.tokenizer, [], None, max_length=data.max_length)
  except ValueError as e:
    raise ValueError(f'config.models.{key}: {e}') from e
  check_fine_tuning(
    spec.train, shapes, model, mesh, field=f'models.{key}.train'
  )
  return model


def check_fine_tuning(fields, shapes, model, mesh, *, field):
  """The fields of a `train` config, for parameters of such shapes."""
  try:
    optimizer.partition(shapes, freeze=fields.freeze)
    optimizer.make_schedule(
      peak=fields.learning_rate,
      total_steps=1,
      warmup=fields.warmup,
      decay=fields.decay,
    )
  except ValueError as e:
    owner = field.removesuffix('.train')
    raise ValueError(f'config.{owner}: {e}') from e
  sharding.check_divides(
    mesh,
    batch_size=fields.batch_size,
    num_heads=model.network.config.num_heads,
    name=field,
  )


def check_generative(fields, chains, ladder, mesh):
  """Students have to be decoders."""
  for key in dict.fromkeys(key for chain in chains for key in chain[1:]):
    model = ladder[key]
    if not model.network.config.causal:
      raise ValueError(
        f'generative: {model.name} is no decoder and can not learn to write; '
        f'give models.{key} other weights, or set generative=(False,).'
      )
    network = heads.LanguageModel(model.network.config)
    shapes = heads.parameter_shapes(network, 2)
    check_fine_tuning(fields, shapes, model, mesh, field='generative_train')


def check_losses(names, loss_args, task):
  """Traces every loss once: it exists and takes the arguments of the config."""
  num_classes = tasks.TASKS[task].num_classes
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
  by_key = {
    json.dumps([row.get(k) for k in ROW_KEY]): row for row in [*old, *rows]
  }
  lines = [json.dumps(by_key[key]) + '\n' for key in sorted(by_key)]
  partial = path.with_name('results.jsonl.partial')
  partial.write_text(''.join(lines))
  partial.replace(path)
