"""Rows of results.jsonl: one for each student and seed, with its recipe.

A row is known by its name, the fields STUDENT, and its seed. It carries a hash
of its recipe, all that decides it but the seed: rows of one name and different
recipes never stand in one workdir, let alone in one average.
"""

import dataclasses
import functools
import json

from etils import epath

from w2s_jax import errors
from w2s_jax import graph
from w2s_jax import metrics
from w2s_jax import weak_labels
from w2s_jax.models import model as model_lib
from w2s_jax.runtime import files
from w2s_jax.runtime import lock

ROLES = ('weak', 'student', 'ceiling', 'zero_shot')
PAIR = ('weak_model', 'strong_model')
PANEL = ('task', *PAIR)
SIZES = ('weak_parameters', 'strong_parameters')
METHOD = (
  *('via', 'loss', 'weak_labels', 'early_stopping', 'generative', 'variant'),
)
AGREEMENT = (  # with the first supervisor of a chain
  'agreement',
  'agreement_supervisor_right',
  'agreement_supervisor_wrong',
)
TEACHER_AGREEMENT = (  # with the model that labelled the student's rows
  'teacher_agreement',
  'teacher_agreement_right',
  'teacher_agreement_wrong',
)

# The name of a student, over all seeds.
STUDENT = (*PANEL, *METHOD)
_KEY = (*STUDENT, 'seed')
MEANS = (
  *(f'{role}_{name}' for role in ROLES for name in ('auroc', 'nll', 'ece')),
  *AGREEMENT,
  *TEACHER_AGREEMENT,
  'weak_label_accuracy',
  'seconds',
)
OPTIONAL = (
  'compile_seconds',  # not in rows of earlier versions
  *(  # where the task measures them
    f'{role}_{name}'
    for role in ROLES
    for name in ('accepted_accuracy', 'legal')
  ),
)
_FIELDS = (
  *_KEY,
  *SIZES,
  *(
    'pgr',
    'pgr_status',
    'n_test',
    'rows',
    'rows_truncated',
    'stages',
    'recipe',
  ),
  *(f'{role}_accuracy' for role in ROLES),
  *MEANS,
)
_AGAIN = 'Delete the file and run again: finished stages are not repeated.'


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """A student and the stages that it is compared with: a row to come."""

  row: dict  # STUDENT fields, seed, sizes
  labels: graph.Call  # that the student is trained on
  label_truth: graph.Call  # ground truth of the same rows
  weak: graph.Stage
  teacher: graph.Stage  # that predicted the labels; the weak one if no chain
  student: graph.Stage
  ceiling: graph.Stage
  zero_shot: graph.Stage
  links: tuple = ()  # (teacher, student) stages of each step of the chain

  @property
  def roles(self):
    return {role: getattr(self, role) for role in ROLES}

  @property
  def students_and_ceiling(self):
    """The stages trained of the models that a supervisor is compared with."""
    return [*(student for _, student in self.links), self.student, self.ceiling]

  @property
  def stages(self):
    """All that a row needs, in the order in which they are made.

    Zero-shot comes last, so that training starts first.
    """
    return [*self.roles.values()]

  @functools.cached_property
  def recipe(self):
    """JSON of all that decides the row but the seed."""
    return {role: stage.recipe for role, stage in self.roles.items()}

  @functools.cached_property
  def recipe_hash(self):
    return files.sha256(files.to_json(self.recipe))[:16]


def student(config, chain, loss, generative, control=''):
  """The fields STUDENT of the last model of a chain."""

  def name(key):
    spec = config.models[key]
    return adapted_name(model_lib.name_of(spec), spec.adapt.method)

  return dict(
    task=config.task,
    weak_model=name(chain[0]),
    strong_model=name(chain[-1]),
    via=tuple(name(key) for key in chain[1:-1]),
    loss=loss,
    weak_labels=control or config.weak_labels,
    early_stopping=config.early_stopping,
    generative=generative,
    variant=config.variant,
  )


def adapted_name(name, method):
  """What a model is called in results, by how it was adapted."""
  return name if method == 'full' else f'{name}-{method}'


def check_names(described, workdir=None):
  """Raises UserError where rows of one name would have different recipes.

  Args:
    described: Results that are to be made.
    workdir: whose rows they must not be mixed with, if there are any.
  """
  known = {}  # name -> (recipe hash, function that returns the recipe)
  path = workdir and epath.Path(workdir) / 'results.jsonl'
  if path and path.exists():
    for _, row in _parsed(path):
      recipe_of = functools.partial(_load_recipe, workdir, row['recipe'])
      known[name_of(row)] = row['recipe'], recipe_of
  for result in described:
    here = result.recipe_hash, lambda result=result: result.recipe
    before = known.setdefault(name_of(result.row), here)
    if before[0] != here[0]:
      changes = differences(before[1](), result.recipe)
      raise errors.UserError(
        f'variant={result.row["variant"]!r}: {describe(result.row)} would '
        f'replace or mix with a result of another recipe, which differs in '
        f'{"; ".join(changes[:3])}. Give each recipe its own variant, such as '
        "--config.variant='lr 1e-4', or its own workdir."
      )


def name_of(row):
  """The fields STUDENT of a row as one text: equal for all its seeds."""
  return files.to_json([row[field] for field in STUDENT])


def describe(row):
  """'rotten_tomatoes: minilm-l0 -> minilm-l6, xent', for messages."""
  via = ''.join(f'{model} -> ' for model in row['via'])
  return (
    f'{row["task"]}: {row["weak_model"]} -> {via}{row["strong_model"]}, '
    f'{row["loss"]}'
  )


def differences(left, right):
  """['weak.train.learning_rate: 0.01 and 0.03', ...], shortest paths first."""
  left, right = dict(_flat(left)), dict(_flat(right))
  changed = [
    path
    for path in dict.fromkeys([*left, *right])
    if left.get(path) != right.get(path)
  ]
  changed.sort(key=lambda path: (path.count('.'), len(path)))
  return [
    f'{path}: {str(left.get(path))[:40]} and {str(right.get(path))[:40]}'
    for path in changed
  ]


def _flat(tree, path=''):
  if isinstance(tree, dict):
    for name, value in tree.items():
      yield from _flat(value, f'{path}.{name}' if path else name)
  elif isinstance(tree, list | tuple):
    for i, value in enumerate(tree):
      yield from _flat(value, f'{path}.{i}')
  else:
    yield path, tree


def _load_recipe(workdir, recipe_hash):
  path = epath.Path(workdir) / 'recipes' / f'{recipe_hash}.json'
  return json.loads(path.read_text()) if path.exists() else {}


def measure(runner, result):
  """The row of a result: metrics, agreement and PGR on the test set.

  Models are joined on the ids of the test rows. `links` holds what became of
  the teacher's answers in each step of the chain, see metrics.link_errors.
  """
  roles = {**result.roles, 'teacher': result.teacher}
  taught = [stage for link in result.links for stage in link]

  def measured(*finished):  # what the student reads comes after the roles
    chain = finished[len(roles) : len(roles) + len(taught)]
    labels = runner.value(result.labels)
    truth = weak_labels.restrict(runner.value(result.label_truth), labels.ids_N)
    truth = weak_labels.join(labels.ids_N, truth)
    return {
      **result.row,
      'recipe': result.recipe_hash,
      **_measured(dict(zip(roles, finished))),
      'links': [_link(*x) for x in zip(chain[::2], chain[1::2], strict=True)],
      'weak_label_accuracy': metrics.accuracy(
        labels.probs_NxC, truth.probs_NxC
      ),
    }

  return runner.read(
    [*roles.values(), *taught, *result.student.reads], measured
  )


def _link(teacher, student):
  """What became of a teacher's answers on the test set in its student."""
  truth, probs = _joined({'teacher': teacher, 'student': student})
  return {
    'teacher_accuracy': metrics.accuracy(probs['teacher'], truth),
    'student_accuracy': metrics.accuracy(probs['student'], truth),
    **metrics.link_errors(probs['student'], probs['teacher'], truth),
  }


def _joined(finished):
  """Ground truth of the test set, and {role: predictions} in its order."""
  test = {role: stage.predictions('test') for role, stage in finished.items()}
  first = next(iter(test.values()))
  probs = {
    role: weak_labels.join(
      first['ids'], weak_labels.Labels(arrays['ids'], arrays['probs'])
    ).probs_NxC
    for role, arrays in test.items()
  }
  return first['label_probs'], probs


def _measured(finished):
  truth, probs = _joined(finished)
  row = {'n_test': len(truth)}
  for role in ROLES:
    summary = metrics.summary(probs[role], truth)
    for name in ('accuracy', 'accuracy_se', 'auroc', 'nll', 'ece'):
      row[f'{role}_{name}'] = summary[name]
    for name, value in finished[role].summary().items():
      if name == 'validation_accuracy' or name.startswith('test_'):
        row.setdefault(f'{role}_{name.removeprefix("test_")}', value)
  for other, names in (('weak', AGREEMENT), ('teacher', TEACHER_AGREEMENT)):
    agreement = metrics.agreement(probs['student'], probs[other], truth)
    shares = ('all', 'supervisor_right', 'supervisor_wrong')
    row |= {name: agreement[x] for name, x in zip(names, shares, strict=True)}
  pgr = metrics.pgr_interval(
    *(
      metrics.correct(probs[role], truth)[None]
      for role in ('weak', 'student', 'ceiling')
    )
  )
  row['pgr'], row['pgr_status'] = pgr.value, pgr.status
  summary = finished['student'].summary()
  for name in ('seconds', 'rows', 'rows_truncated'):
    row[name] = summary[name]
  row['compile_seconds'] = summary.get('compile_seconds')
  row['stages'] = {role: finished[role].folder.name for role in ROLES}
  return row


def write(workdir, rows, recipes):
  """Adds rows to results.jsonl; a row of the same name and seed is replaced.

  Args:
    recipes: {hash: recipe} of the rows, for WORKDIR/recipes.

  Raises:
    errors.UserError: a line of the file is damaged, or another job has added
      rows of the same name and another recipe.
  """
  for recipe_hash, recipe in recipes.items():
    files.write_atomically(
      workdir / 'recipes' / f'{recipe_hash}.json', json.dumps(recipe, indent=1)
    )
  path = workdir / 'results.jsonl'
  with lock.hold(workdir / 'results.LOCK'):
    known = [row for _, row in _parsed(path)] if path.exists() else []
    by_key, recipe_of = {}, {}
    for row in [*known, *rows]:
      if recipe_of.setdefault(name_of(row), row['recipe']) != row['recipe']:
        raise errors.UserError(
          f'{path}: another job has added {describe(row)} of another recipe; '
          'give each its own variant or its own workdir.'
        )
      by_key[files.to_json([row[field] for field in _KEY])] = row
    lines = [json.dumps(files.sealed(by_key[k])) + '\n' for k in sorted(by_key)]
    files.write_atomically(path, ''.join(lines))


def read(workdir) -> list[dict]:
  """The rows of `workdir/results.jsonl`, in the order of a table.

  Raises:
    FileNotFoundError: there are no results yet.
    errors.UserError: a line is damaged or misses a field, or two lines are of
      the same student.
  """
  path = epath.Path(workdir) / 'results.jsonl'
  if not path.exists():
    raise errors.MissingFileError(
      f'{path} not found: no student is trained yet. Run `w2s run` with '
      f'--workdir={workdir} first.'
    )
  rows, lines = [], {}
  for number, row in _parsed(path):
    row['via'] = tuple(row['via'])
    key = tuple(row[field] for field in _KEY)
    if key in lines:
      raise errors.UserError(
        f'{path}, line {number}: the same student as line {lines[key]} {key}. '
        'Use a workdir of its own for each change of the config.'
      )
    lines[key] = number
    rows.append(row)
  if not rows:
    raise errors.UserError(f'{path} is empty: no student is trained yet.')
  return sorted(rows, key=order)


def task_of(workdir, stage):
  """Returns the name of a stage's task, None if the results do not tell it.

  A stage that no row names, such as one of features, is of all tasks in them.
  """
  if not (epath.Path(workdir) / 'results.jsonl').exists():
    return None
  rows = read(workdir)
  of_stage = [row for row in rows if stage in row['stages'].values()]
  tasks = {row['task'] for row in of_stage or rows}
  return tasks.pop() if len(tasks) == 1 else None


def _parsed(path):
  """Yields (line number, row), each with all fields that a report needs."""
  for number, line in enumerate(path.read_text().splitlines(), start=1):
    where = f'{path}, line {number}'
    try:
      row = json.loads(line)
    except ValueError as error:
      raise errors.UserError(
        f'{where}: not JSON ({error}). {_AGAIN}'
      ) from error
    missing = [f for f in _FIELDS if not isinstance(row, dict) or f not in row]
    if missing:
      raise errors.UserError(
        f'{where}: not a result, {missing[0]!r} is missing. {_AGAIN}'
      )
    try:
      yield number, files.unsealed(row, where)
    except files.DamagedError:
      raise errors.UserError(
        f'{where} is damaged: its checksum is wrong. {_AGAIN}'
      ) from None


def order(row):
  """Small models first, naive students and the baseline loss too."""
  return (
    row['task'],
    *(row[field] for field in SIZES),
    *(row['weak_model'], row['strong_model']),
    *(len(row['via']), row['via']),
    *(row['loss'] != 'xent', row['loss']),
    row['weak_labels'],
    *(row['early_stopping'] != 'none', row['early_stopping']),
    row['generative'],
    *(row['variant'], row['seed']),
  )
