"""A weak-to-strong study: the paper's experiment as a graph of stages.

`students` describes all results of one seed and computes nothing; `run` makes
the stages that they need and writes their rows to WORKDIR/results.jsonl:

  results = study.run(nlp.get_config('adapt=probe').lock())

To run a study of another shape, pass another `describe` to `run`; to supervise
in another way, pass another `supervise` to `students`.
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
from typing import Any

import jax
import rich.console

from w2s_jax import check_config
from w2s_jax import checkpoint
from w2s_jax import evaluate
from w2s_jax import graph
from w2s_jax import loading
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax import steps
from w2s_jax import weak_labels
from w2s_jax.runtime import files
from w2s_jax.runtime import overview
from w2s_jax.runtime import profiling
from w2s_jax.runtime import trackers
from w2s_jax.runtime import workdir as workdir_lib
from w2s_jax.runtime import workdir_path
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

  def evaluation_of(self, model):
    """The evaluation with the lengths that suit a model."""
    return self.evaluation.for_model(model, len(self.slices.transfer[0]))


def predicted(study, supervisor, rows):
  """Weak labels: the supervisor's predictions on rows that it never saw."""
  stage = steps.predict(study, supervisor, rows)
  transform = weak_labels.TRANSFORMS[study.config.weak_labels]
  return graph.Call(transform, (graph.Call(weak_labels.predicted, (stage,)),))


def students(study, supervise=predicted):
  """Yields a results.Result for each chain of models and loss of one seed.

  A weak supervisor is trained on ground truth; a student on the labels of its
  teacher for rows that are new to both; the ceiling, the student's model, on
  the truth of the transfer set (paper section 3). In a chain of more than two
  models each labels fresh rows for the next: bootstrapping (section 4.3.1). As
  a control, labels of the last one are replaced, see weak_labels.CONTROLS.
  """
  config, slices = study.config, study.slices
  chains = check_config.parse_chains(config.students, config.models)
  controls = weak_labels.CONTROLS if config.controls else ()
  for generative, chain, loss, control in itertools.product(
    config.generative, chains, config.losses, ('', *controls)
  ):
    if (loss, control) == ('xent', 'truth'):
      continue  # the ceiling
    weak = student = steps.train(
      study, 'weak', chain[0], slices.weak, truth(slices.weak)
    )
    links = []
    for link, key in enumerate(chain[1:]):
      teacher, transfer = student, slices.transfer[link]
      labels, role = supervise(study, teacher, transfer), f'student-{loss}'
      if control and link == len(chain) - 2:
        labels = controlled(control, labels, transfer, study.seed)
        role += f'-{control}'
      student = steps.train(
        study,
        role,
        key,
        transfer,
        labels,
        taught_by=chain[: link + 1],
        generative=generative,
        loss=loss,
        judge=judge(study, teacher),
        curve=curve(study, teacher),
      )
      links.append((teacher, student))
    ceiling = steps.train(
      study,
      'ceiling',
      chain[-1],
      slices.transfer[0],
      truth(slices.transfer[0]),
      generative=generative,
      curve=curve(study),
    )
    yield results.Result(
      row=results.student(config, chain, loss, generative, control)
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
      zero_shot=steps.zero_shot(study, chain[-1]),
      links=tuple(links),
    )


def truth(rows):
  """Ground truth as labels: no other way leads from it into training."""
  return graph.Call(weak_labels.ground_truth, (rows,))


def controlled(control, labels, rows, seed):
  """Labels of a control in place of weak ones."""
  # By keyword, so that graph.canonical leaves it out of the recipe.
  function = functools.partial(weak_labels.CONTROLS[control], seed=seed)
  return graph.Call(function, (labels, truth(rows)))


def judge(study, teacher):
  """Labels of the validation rows by which early stopping judges a student."""
  if study.config.early_stopping == 'ground_truth':
    return truth(study.evaluation.validation)
  if study.config.early_stopping == 'weak_labels':
    return graph.Call(weak_labels.predicted_on, (teacher, 'validation'))
  return None


def curve(study, supervisor=None):
  """How a learning curve is measured (paper figure 7); None if it is not."""
  every = study.config.eval_every
  if supervisor is not None:
    supervisor = graph.Call(weak_labels.predicted_on, (supervisor, 'test'))
  return {'every': every, 'supervisor': supervisor} if every else None


def run(
  config,
  workdir=None,
  *,
  console=None,
  describe=students,
  splits=None,
  devices=None,
  profile=None,
  as_frame=True,
):
  """Runs the study of a config and adds its rows to WORKDIR/results.jsonl.

  The same call again resumes; what is finished is not computed again.

  Args:
    config: such as configs.nlp.get_config('adapt=probe'); one study, of those
      that studies() of a config file lists.
    workdir: folder for all that the study leaves, local or gs://; by default
      runs/TASK, which is printed.
    console: where progress is printed; stdout by default.
    describe: (Study) -> results.Result of one seed.
    splits: of `load_splits`, if they are loaded already.
    devices: of the mesh; all by default.
    profile: a profiling.Window of training steps to trace, or None.
    as_frame: False for a list of dicts, which needs no pandas.

  Returns:
    The rows of this study as a DataFrame, see loading.load_results.

  Raises:
    errors.UserError: a field or a file does not fit, results of another recipe
      have the same names, or pandas is not installed; raised before anything is
      trained.
  """
  check_config.check(config)
  if as_frame:
    loading.pandas()
  console = console or rich.console.Console(
    markup=False,
    emoji=False,
    force_jupyter=False,
    force_terminal=sys.stdout.isatty(),  # no live bars in a notebook
  )
  if workdir is None:
    workdir = f'runs/{config.task}'
    console.print(f'Workdir: {workdir}', highlight=False)
  workdir_path.check(workdir)
  check_config.check_tracker(config)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  evaluated, slices = splits or load_splits(config)
  models = check_config.build_models(config, mesh)
  described = describe_seeds(config, models, evaluated, slices, describe)
  workdir = checkpoint.absolute(workdir)
  everything = [result for each in described.values() for result in each]
  results.check_names(everything, workdir)
  check_config.warn_of_truncation(config, models, slices, console)
  is_primary = jax.process_index() == 0
  names = trackers.parse(config.tracker) if is_primary else ()
  tracking = trackers.Tracking(names, workdir, console)
  runtime = workdir_lib.Runtime(
    workdir=workdir,
    mesh=mesh,
    console=console,
    eval_batch_size=config.eval_batch_size,
    checkpoint_every=config.checkpoint_every,
    tracking=tracking,
  )
  stages = graph.in_order([s for result in everything for s in result.stages])
  if profile:
    chosen = profiling.choose(
      profile, stages, runtime, steps.num_training_steps
    )
    runtime = dataclasses.replace(runtime, profile=chosen)
  runner = graph.Runner(runtime)
  first = next(iter(slices.values()))
  for line in overview.recipes(config, models, first, workdir):
    runtime.print(line)
  runner.announce(stages)
  with contextlib.closing(tracking):
    rows = make_results(config, described, runner, evaluated, slices)
  if not config.keep_params:
    remove_params(everything, runtime)
  return loading.results_table(rows) if as_frame else rows


def remove_params(everything, runtime):
  """Removes the parameters of the students and ceilings of some results."""
  stages = [s for result in everything for s in result.students_and_ceiling]
  names = {stage.folder_name for stage in stages}
  runtime.print(
    f'keep_params=False: the parameters of {len(names)} students and ceilings '
    'are removed.'
  )
  for name in names:
    checkpoint.remove_params(runtime.folder(name))


def make_results(config, described, runner, evaluated, slices):
  """Makes the stages of all seeds and writes their results, seed by seed.

  Returns:
    The rows of the results, in the order of a table.
  """
  workdir, seeds = runner.runtime.workdir, list(config.seeds)
  rows = []
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
    measured = [results.measure(runner, result) for result in ended]
    rows += measured
    if jax.process_index() == 0:
      # Not at the start, where training would wait for it. Reports read both.
      write_rows(workdir, evaluated, {seed: slices[seed] for seed in together})
      recipes = {result.recipe_hash: result.recipe for result in ended}
      results.write(workdir, measured, recipes)
  return sorted(rows, key=results.order)


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


def load_splits(config, pools=None):
  """The splits of all seeds, see tasks.study_splits.load."""
  chains = check_config.parse_chains(config.students, config.models)
  return study_splits.load(
    config.task,
    config.data,
    seeds=config.seeds,
    num_transfer=max(map(len, chains)) - 1,
    pools=pools,
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
  named = dict(evaluated)
  for seed, each in slices.items():
    named[f'weak-seed{seed}'] = each.weak
    for i, rows in enumerate(each.transfer, start=1):
      name = 'transfer' if i == 1 else f'transfer_{i}'
      named[f'{name}-seed{seed}'] = rows
  for name, examples in named.items():
    path = workdir / 'rows' / f'{name}-{examples.fingerprint}.jsonl.gz'
    if not path.exists():
      files.save_lines(path, study_splits.as_rows(examples, name))
