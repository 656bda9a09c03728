"""A weak-to-strong study: the paper's experiment as a graph of stages.

`students` describes all results of one seed and computes nothing; `run` makes
the stages that they need and writes their rows to WORKDIR/results.jsonl. To run
a study of another shape, pass another `describe` to `run`; to supervise in
another way, pass another `supervise` to `students`.
"""

import dataclasses
import itertools
from typing import Any

import jax

from w2s_jax import check_config
from w2s_jax import checkpoint
from w2s_jax import evaluate
from w2s_jax import fine_tune
from w2s_jax import graph
from w2s_jax import losses
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax import stages
from w2s_jax import weak_labels
from w2s_jax.runtime import files
from w2s_jax.runtime import workdir as workdir_lib
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import registry
from w2s_jax.tasks import study_splits


@dataclasses.dataclass(frozen=True)
class Study:
  """What the description of one seed is made of."""

  config: Any
  models: dict  # key of config.models -> models.model.Model
  evaluation: evaluate.Evaluation
  slices: study_splits.Slices
  seed: int
  # Name of a model -> Examples whose frozen features some probe reads, of all
  # seeds, which share them.
  probed: dict


def predicted(study, supervisor, rows):
  """Weak labels: the supervisor's predictions on rows that it never saw."""
  stage = predict(study, supervisor, rows)
  transform = weak_labels.TRANSFORMS[study.config.weak_labels]
  return graph.Call(transform, (graph.Call(weak_labels.predicted, (stage,)),))


def students(study, supervise=predicted):
  """Yields a results.Result for each chain of models and loss of one seed.

  A weak supervisor is trained on ground truth; a student on the labels of its
  teacher for rows that are new to both; the ceiling, the student's model, on
  the truth of the transfer set (paper section 3). In a chain of more than two
  models each labels fresh rows for the next: bootstrapping (section 4.3.1).
  """
  config, slices = study.config, study.slices
  chains = check_config.parse_chains(config.students, config.models)
  for generative, chain, loss in itertools.product(
    config.generative, chains, config.losses
  ):
    weak = student = train(
      study, 'weak', chain[0], slices.weak, truth(slices.weak)
    )
    for link, key in enumerate(chain[1:]):
      teacher, transfer = student, slices.transfer[link]
      labels = supervise(study, teacher, transfer)
      student = train(
        study,
        f'student-{loss}',
        key,
        transfer,
        labels,
        taught_by=chain[: link + 1],
        generative=generative,
        loss=loss,
        judge=judge(study, teacher),
      )
    ceiling = train(
      study,
      'ceiling',
      chain[-1],
      slices.transfer[0],
      truth(slices.transfer[0]),
      generative=generative,
    )
    yield results.Result(
      row=results.student(config, chain, loss, generative)
      | {
        'seed': study.seed,
        'weak_parameters': study.models[chain[0]].num_parameters,
        'strong_parameters': study.models[chain[-1]].num_parameters,
      },
      labels=labels,
      label_truth=truth(transfer),
      weak=weak,
      teacher=teacher,
      student=student,
      ceiling=ceiling,
      zero_shot=zero_shot(study, chain[-1]),
    )


def truth(rows):
  """Ground truth as labels: no other way leads from it into training."""
  return graph.Call(weak_labels.ground_truth, (rows,))


def judge(study, teacher):
  """Labels of the validation rows by which early stopping judges a student."""
  if study.config.early_stopping == 'ground_truth':
    return truth(study.evaluation.validation)
  if study.config.early_stopping == 'weak_labels':
    return graph.Call(weak_labels.predicted_on, (teacher, 'validation'))
  return None


def train(
  study,
  role,
  key,
  rows,
  labels,
  *,
  taught_by=(),
  generative=False,
  loss='xent',
  judge=None,
):
  """The stage of a model that is trained on labels, by its `adapt.method`.

  Args:
    role: 'weak', 'student-LOSS' or 'ceiling', for the name of the stage.
    key: of config.models.
    rows: Examples; what they hold of the truth does not reach the stage.
    labels: a graph.Call to weak_labels.Labels of these rows.
    taught_by: keys of the chain of teachers, for the name.
    generative: whether generative fine-tuning comes first.
    loss: name in losses.LOSSES.
    judge: None, or labels of the validation rows, for early stopping.
  """
  spec, model = study.config.models[key], study.models[key]
  start = (generative_model(study, key),) if generative else ()
  by = f'-by-{"-".join(taught_by)}' if taught_by else ''
  common = dict(
    model=model,
    seed=study.seed,
    rows=rows.without_labels(),
    labels=labels,
    evaluation=study.evaluation,
  )

  def stage(make, method, **fields):
    name = results.adapted_name(model.name, method)
    return graph.Stage(
      f'{role}-{name}{by}-seed{study.seed}', make, {**common, **fields}
    )

  def fine_tuned(method, fields, *, start=start, features=None, lora=None):
    described = stage(
      fine_tune.fine_tune,
      method,
      start=start,
      features=features,
      train=fields.to_dict(),
      lora=lora,
      loss=losses.LOSSES[loss],
      loss_args=dict(study.config.loss_args.get(loss, {})),
      judge=judge,
    )
    together = fine_tune.fine_tune_together
    return dataclasses.replace(described, make_together=together)

  match spec.adapt.method:
    case 'full':
      return fine_tuned('full', spec.train)
    case 'lora':
      return fine_tuned('lora', spec.train, lora=spec.adapt.lora.to_dict())
    case 'probe':
      features = frozen_features(study, model, start)
      return fine_tuned('probe', spec.adapt.probe, features=features)
    case 'lp_ft':  # Kumar et al. 2022, arXiv 2202.10054
      features = frozen_features(study, model, start)
      probe = fine_tuned('probe', spec.adapt.probe, features=features)
      return fine_tuned('lp_ft', spec.train, start=(*start, probe))
    case 'prompt':
      return stage(stages.prompt, 'prompt', start=start, shots=spec.adapt.shots)


def predict(study, supervisor, rows):
  """The stage of a supervisor's predictions on rows."""
  used = {
    name: supervisor.fields.get(name)
    for name in ('model', 'seed', 'start', 'features')
  }
  return graph.Stage(
    f'labels-of-{supervisor.name}',
    stages.predict,
    {
      'supervisor': supervisor,
      **used,
      'rows': rows.without_labels(),
      'evaluation': study.evaluation,
    },
  )


def zero_shot(study, key):
  """The stage of a model that nothing was trained of."""
  model = study.models[key]
  return graph.Stage(
    f'zero_shot-{model.name}',
    stages.zero_shot,
    {'model': model, 'seed': 0, 'evaluation': study.evaluation},
  )


def generative_model(study, key):
  """The stage of generative fine-tuning (section 5.2.2) on the transfer set."""
  model = study.models[key]
  return graph.Stage(
    f'generative-{model.name}-seed{study.seed}',
    fine_tune.generative,
    {
      'model': model,
      'seed': study.seed,
      'rows': study.slices.transfer[0].without_labels(),
      'train': study.config.generative_train.to_dict(),
      'evaluation': study.evaluation,
    },
  )


def frozen_features(study, model, start):
  """The stage of the frozen features of all rows that probes read."""
  pretrained = not model.weights.startswith('random:')
  return graph.Stage(
    f'features-{model.name}',
    stages.features,
    {
      'model': model,
      'seed': 0 if pretrained else study.seed,
      'start': start,
      'rows': study.probed.get(model.name),
      'evaluation': study.evaluation,
    },
  )


def run(
  config, workdir, *, console, describe=students, splits=None, devices=None
):
  """Runs the study of a config and adds its rows to WORKDIR/results.jsonl.

  Args:
    describe: (Study) -> results.Result of one seed.
    splits: of `load_splits`, if they are loaded already.
    devices: of the mesh; all by default.

  Raises:
    errors.UserError: a field or a file does not fit, or results of another
      recipe have the same names; raised before anything is trained.
  """
  check_config.check(config)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  evaluated, slices = splits or load_splits(config)
  models = check_config.build_models(config, mesh)
  described = describe_seeds(config, models, evaluated, slices, describe)
  workdir = checkpoint.absolute(workdir)
  everything = [result for each in described.values() for result in each]
  results.check_names(everything, workdir)
  check_config.warn_of_truncation(config, models, slices, console)
  runtime = workdir_lib.Runtime(
    workdir=workdir,
    mesh=mesh,
    console=console,
    eval_batch_size=config.eval_batch_size,
    checkpoint_every=config.checkpoint_every,
    tensorboard=config.tensorboard,
  )
  runner = graph.Runner(runtime)
  runner.announce([stage for result in everything for stage in result.stages])
  write_rows(workdir, evaluated, slices)
  seeds = list(config.seeds)
  for first in range(0, len(seeds), config.population):
    together = seeds[first : first + config.population]
    # Seed by seed in the same order, so those at one place are alike.
    orders = [
      graph.in_order([s for r in described[seed] for s in r.stages])
      for seed in together
    ]
    for alike in zip(*orders, strict=True):
      runner.make(*{stage.key: stage for stage in alike}.values())
    ended = [result for seed in together for result in described[seed]]
    rows = [results.measure(runner, result) for result in ended]
    if jax.process_index() == 0:
      recipes = {result.recipe_hash: result.recipe for result in ended}
      results.write(workdir, rows, recipes)


def describe_seeds(config, models, evaluated, slices, describe=students):
  """{seed: [results.Result, ...]}; computes nothing."""
  evaluation = evaluate.Evaluation(
    **evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
    measure=registry.TASKS[config.task].measure,
  )

  def describe_with(probed):
    return {
      seed: list(
        describe(Study(config, models, evaluation, slices[seed], seed, probed))
      )
      for seed in slices
    }

  # Twice: which rows probes read follows from the description itself.
  described = describe_with(probed={})
  if probed := rows_of_probes(described, evaluated):
    described = describe_with(probed)
  return described


def rows_of_probes(described, evaluated):
  """{name of a model: Examples whose features some stage reads}."""
  parts = {}
  stages = [s for each in described.values() for r in each for s in r.stages]
  for stage in graph.in_order(stages):
    if stage.fields.get('features') is not None:
      read = parts.setdefault(stage.fields['model'].name, [])
      read.append(stage.fields['rows'])
  return {
    name: examples_lib.union([*evaluated.values(), *read])
    for name, read in parts.items()
  }


def load_splits(config):
  """The splits of all seeds, see tasks.study_splits.load."""
  chains = check_config.parse_chains(config.students, config.models)
  return study_splits.load(
    config.task,
    config.data,
    seeds=config.seeds,
    num_transfer=max(map(len, chains)) - 1,
  )


def outline(config):
  """Results of a study without its data or models: to be counted and compared.

  Models are their fields of the config, rows only their number.
  """
  check_config.check(config)
  chains = check_config.parse_chains(config.students, config.models)
  evaluated, slices = study_splits.outline(
    config.data, num_transfer=max(map(len, chains)) - 1
  )
  models = {
    key: check_config.outline_model(spec) for key, spec in config.models.items()
  }
  slices = dict.fromkeys(config.seeds, slices)
  return describe_seeds(config, models, evaluated, slices)


def write_rows(workdir, evaluated, slices):
  """Writes WORKDIR/rows/<split>-<hash>.jsonl.gz of each split, for people."""
  if jax.process_index() != 0:
    return
  named = dict(evaluated)
  for seed, each in slices.items():
    named[f'weak-seed{seed}'] = each.weak
    for i, rows in enumerate(each.transfer, start=1):
      name = 'transfer' if i == 1 else f'transfer_{i}'
      named[f'{name}-seed{seed}'] = rows
  for name, examples in named.items():
    path = workdir / 'rows' / f'{name}-{examples.fingerprint}.jsonl.gz'
    if not path.exists():
      files.save_lines(
        path,
        (study_splits.as_row(examples, i, name) for i in range(len(examples))),
      )
