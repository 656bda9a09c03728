"""Studies: a config in, stages run, rows of results.jsonl out.

For each seed the weak supervisor of a student is trained on the weak half of
the data and labels the transfer half; the student is trained on those labels.
A chain of more than two models is bootstrapping: each model labels fresh rows
for the next. The strong ceiling is the student's model trained on ground truth.
"""

import dataclasses
import functools
import itertools

import jax
import numpy as np

from w2s_jax import check_config
from w2s_jax import checkpoint
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax import stages
from w2s_jax import starting_points
from w2s_jax import weak_labels
from w2s_jax.runtime import workdir as workdir_lib
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import registry
from w2s_jax.tasks import splits


def run(config, workdir, *, console):
  """Runs the study of a config and adds its rows to WORKDIR/results.jsonl.

  Raises:
    ValueError, FileNotFoundError: a field or a file does not fit; raised
      before anything is trained.
  """
  mesh = sharding.make_mesh(**config.mesh)
  chains = check_config.parse_chains(config.students, config.models)
  check_config.check_numbers(config)
  evaluated, slices = load_splits(
    config.task,
    config.data,
    seeds=config.seeds,
    num_transfer=max(map(len, chains)) - 1,
  )
  check_config.check_losses(config.losses, config.loss_args, config.task)
  ladder = {
    key: check_config.build_model(
      config.models[key], key, config.task, config.data, mesh
    )
    for key in dict.fromkeys(itertools.chain(*chains))
  }
  if any(config.generative):
    check_config.check_generative(config.generative_train, chains, ladder, mesh)
  runtime = workdir_lib.Runtime(
    workdir=checkpoint.absolute(workdir),
    mesh=mesh,
    console=console,
    eval_batch_size=config.eval_batch_size,
    checkpoint_every=config.checkpoint_every,
    tensorboard=config.tensorboard,
    num_stages=count_stages(
      chains, config.models, config.losses, config.seeds, config.generative
    ),
  )
  evaluation = stages.Evaluation(
    splits=evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
    measure=registry.TASKS[config.task].measure,
  )
  everything = union([*evaluated.values(), *itertools.chain(*slices.values())])

  @functools.cache
  def zero_shot(key):
    return stages.zero_shot_stage(
      runtime, model=ladder[key], evaluation=evaluation
    )

  for seeds in in_groups(config.seeds, config.population):
    journey = Journey(
      runtime, config, ladder, evaluation, slices, everything, seeds
    )
    rows = [
      row
      for generative in config.generative
      for chain in chains
      for loss in config.losses
      for row in journey.results(chain, loss, generative, zero_shot)
    ]
    if jax.process_index() == 0:
      results.write(runtime.workdir, rows)


def in_groups(seeds, size):
  """The seeds in tuples of at most so many."""
  return [
    tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)
  ]


class Journey:
  """The stages of a few seeds; asking twice for a stage runs it once.

  A chain of keys of config.models stands for its last model: a weak supervisor
  if it is alone, else a student of the chain before it. Stages, models and
  labels come as tuples, one for each seed.
  """

  def __init__(
    self, runtime, config, ladder, evaluation, slices, everything, seeds
  ):
    self._runtime = runtime
    self._config = config
    self._ladder = ladder
    # Of each: the weak half of all seeds, then a transfer slice a step.
    self._slices = list(zip(*(slices[seed] for seed in seeds)))
    self._everything = everything  # inputs of all slices of all seeds
    self._evaluation = evaluation
    self._seeds = seeds
    self._validation = evaluation.splits['validation']
    once = '_weak', '_student', '_labels', '_ceiling', '_model', '_frozen'
    for name in once:
      setattr(self, name, functools.cache(getattr(self, name)))

  def _trained(self, chain, loss, generative):
    if chain[1:]:
      return self._student(chain, loss, generative)
    return self._weak(chain)

  def _weak(self, chain):
    halves = self._slices[0]
    truth = map(weak_labels.ground_truth, halves)
    return self._train('weak', chain[0], False, halves, truth)

  def _student(self, chain, loss, generative):
    """Trained on what its teacher says of a slice that is new to both."""
    *teachers, key = chain
    supervisors = self._trained(chain[:-1], loss, generative)
    return self._train(
      f'student-{loss}',
      key,
      generative,
      self._slices[len(teachers)],
      self._labels(chain[:-1], supervisors),
      suffix=f'-by-{"-".join(teachers)}',
      loss=loss,
      judges=map(self._judge, supervisors),
    )

  def _ceiling(self, key, generative):
    """Trained on the truth of the first transfer slice."""
    slices = self._slices[1]
    truth = map(weak_labels.ground_truth, slices)
    return self._train('ceiling', key, generative, slices, truth)

  def _model(self, key, generative):
    """A model of the ladder, or what it is after it has learned to write."""
    model = self._ladder[key]
    if not generative:
      return (model,) * len(self._seeds)
    return tuple(
      starting_points.generative_stage(
        self._runtime,
        name=f'generative-{model.name}',
        model=model,
        fine_tuning=self._config.generative_train.to_dict(),
        inputs=without_truth(rows),
        evaluation=self._evaluation,
        seed=seed,
      )
      for rows, seed in zip(self._slices[1], self._seeds)
    )

  def _frozen(self, key, generative):
    """A probe of such a model."""
    return tuple(
      starting_points.features_stage(
        self._runtime,
        model=model,
        inputs=self._everything,
        evaluation=self._evaluation,
        seed=seed,
      )
      for model, seed in zip(self._model(key, generative), self._seeds)
    )

  def _labels(self, chain, supervisors):
    """What the supervisor at the end of a chain says of the next slice."""
    transform = weak_labels.TRANSFORMS[self._config.weak_labels]
    return tuple(
      transform(
        stages.label_stage(
          self._runtime,
          name=f'labels-by-{"-".join(chain)}',
          supervisor=supervisor,
          inputs=without_truth(rows),
          evaluation=self._evaluation,
          seed=seed,
        )
      )
      for supervisor, rows, seed in zip(
        supervisors, self._slices[len(chain)], self._seeds
      )
    )

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
    self,
    role,
    key,
    generative,
    slices,
    labels,
    *,
    suffix='',
    loss='xent',
    judges=None,
  ):
    """The stages of a model that learns labels, in the way of its `adapt`."""
    spec = self._config.models[key]
    models, method = self._model(key, generative), spec.adapt.method
    inputs = map(without_truth, slices)
    judges = judges or itertools.repeat(None)
    given = list(zip(self._seeds, inputs, labels, judges))

    def name(method):
      return f'{role}-{results.adapted_name(models[0].name, method)}{suffix}'

    def train(models, method, fine_tuning, lora=None):
      lessons = [
        stages.Lesson(
          name=name(method),
          model=model,
          fine_tuning=fine_tuning.to_dict(),
          lora=lora,
          loss=loss,
          loss_args=dict(self._config.loss_args.get(loss, {})),
          seed=seed,
          inputs=inputs,
          labels=labels,
          judge=judge,
        )
        for model, (seed, inputs, labels, judge) in zip(models, given)
      ]
      return stages.train_stages(self._runtime, lessons, self._evaluation)

    match method:
      case 'full':
        return train(models, method, spec.train)
      case 'lora':
        return train(models, method, spec.train, spec.adapt.lora.to_dict())
      case 'probe':
        frozen = self._frozen(key, generative)
        return train(frozen, method, spec.adapt.probe)
      case 'lp_ft':
        frozen = self._frozen(key, generative)
        probes = train(frozen, 'probe', spec.adapt.probe)
        started = map(starting_points.from_probe, models, probes)
        return train(started, method, spec.train)
      case 'prompt':
        return tuple(
          stages.prompt_stage(
            self._runtime,
            name=name(method),
            model=model,
            shots=spec.adapt.shots,
            seed=seed,
            inputs=inputs,
            labels=labels,
            evaluation=self._evaluation,
          )
          for model, (seed, inputs, labels, _) in zip(models, given)
        )

  def results(self, chain, loss, generative, zero_shot):
    """Rows of results: students beside what they are to be held against."""
    supervisors = self._trained(chain[:-1], loss, generative)
    together = zip(
      self._seeds,
      self._slices[len(chain) - 1],
      self._labels(chain[:-1], supervisors),
      self._weak(chain[:1]),
      self._student(chain, loss, generative),
      self._ceiling(chain[-1], generative),
    )
    untrained = zero_shot(chain[-1])  # last: training starts without it
    rows = []
    for seed, transfer, labels, weak, student, ceiling in together:
      labels = weak_labels.join(transfer.ids, labels)
      rows.append(
        results.student(self._config, chain, loss, generative)
        | {
          'seed': seed,
          'weak_parameters': self._ladder[chain[0]].num_parameters,
          'strong_parameters': self._ladder[chain[-1]].num_parameters,
        }
        | results.measured(
          dict(weak=weak, student=student, ceiling=ceiling, zero_shot=untrained)
        )
        | {
          'weak_label_accuracy': metrics.accuracy(
            labels.probs_NxC, transfer.label_probs_NxC
          )
        }
      )
    return rows


def without_truth(examples):
  """What a model in training may see of its rows."""
  return dataclasses.replace(examples, label_probs_NxC=None)


def union(parts):
  """All rows of several Examples, each once and without labels."""
  inputs = {
    id_: x
    for part in parts
    for id_, x in zip(part.ids.tolist(), part.inputs, strict=True)
  }
  ids = np.array(list(inputs))
  return examples_lib.Examples(
    ids=ids, groups=ids, inputs=list(inputs.values()), label_probs_NxC=None
  )


def count_stages(chains, ladder, loss_names, seeds, generative):
  """Of a study; the arguments as in the config."""

  def method(key):
    return ladder[key].adapt.method

  def training(keys):
    return sum(2 if method(key) == 'lp_ft' else 1 for key in keys)

  weak, strong = {c[0] for c in chains}, {c[-1] for c in chains}
  students = {c[:n] for c in chains for n in range(2, len(c) + 1)}
  teachers = {c[:n] for c in chains for n in range(2, len(c))}
  learners = {key for chain in chains for key in chain[1:]}
  each_loss = training(chain[-1] for chain in students) + len(teachers)
  variants = {(key, x) for key in learners for x in generative}
  frozen = [
    method(k) in check_config.PROBING
    for k, _ in variants | {(k, 0) for k in weak}
  ]
  a_seed = training(weak) + len(weak) + sum(frozen)
  a_seed += len(generative) * (len(loss_names) * each_loss + training(strong))
  a_seed += sum(generative) * len(learners)
  return len(strong) + len(seeds) * a_seed


def load_splits(task, data, *, seeds, num_transfer):
  """(evaluated splits, {seed: [weak half, transfer slices ...]}).

  Test and validation sets depend on data.seed alone and are shared by all
  seeds; each seed draws its own slices from what is left, by group.
  """
  pool, test_pool = registry.load(
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
