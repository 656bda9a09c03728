"""Rows of results.jsonl: one for each student, its seed and its weak labels."""

import json

from etils import epath

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax.models import model
from w2s_jax.runtime import lock

ROLES = ('weak', 'student', 'ceiling', 'zero_shot')
PAIR = ('weak_model', 'strong_model')
PANEL = ('task', *PAIR)
SIZES = ('weak_parameters', 'strong_parameters')
METHOD = (
  *('via', 'loss', 'weak_labels', 'early_stopping', 'generative', 'variant'),
)
AGREEMENT = (
  'agreement',
  'agreement_supervisor_right',
  'agreement_supervisor_wrong',
)

# What a student is, over all seeds; there is one row of each and a seed.
STUDENT = (*PANEL, *METHOD)
_KEY = (*STUDENT, 'seed')
MEANS = (
  *(f'{role}_{name}' for role in ROLES for name in ('auroc', 'nll', 'ece')),
  *AGREEMENT,
  'weak_label_accuracy',
  'seconds',
)
OPTIONAL = tuple(  # where the task measures them
  f'{role}_{name}' for role in ROLES for name in ('accepted_accuracy', 'legal')
)
_FIELDS = (
  *_KEY,
  *SIZES,
  *('pgr', 'pgr_status', 'n_test', 'rows', 'rows_cut', 'stages'),
  *(f'{role}_accuracy' for role in ROLES),
  *MEANS,
)
_AGAIN = 'Delete the file and run again: finished stages are not repeated.'


def student(config, chain, loss, generative):
  """The fields STUDENT of one of a study: the last model of a chain."""

  def name(key):
    spec = config.models[key]
    return adapted_name(model.name_of(spec), spec.adapt.method)

  return dict(
    task=config.task,
    weak_model=name(chain[0]),
    strong_model=name(chain[-1]),
    via=tuple(name(key) for key in chain[1:-1]),
    loss=loss,
    weak_labels=config.weak_labels,
    early_stopping=config.early_stopping,
    generative=generative,
    variant=config.variant,
  )


def adapted_name(name, method):
  """What a model is called in results once it has come to its task."""
  return name if method == 'full' else f'{name}-{method}'


def measured(trained):
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


def write(workdir, rows):
  """Adds rows to results.jsonl; a row of the same key is replaced.

  Raises:
    ValueError: a line of the file is damaged.
  """
  path = workdir / 'results.jsonl'
  with lock.hold(workdir / 'results.LOCK'):
    known = [row for _, row in _parsed(path)] if path.exists() else []
    by_key = {
      json.dumps([row[field] for field in _KEY]): row for row in [*known, *rows]
    }
    lines = [json.dumps(by_key[key]) + '\n' for key in sorted(by_key)]
    partial = path.with_name('results.jsonl.partial')
    partial.write_text(''.join(lines))
    partial.replace(path)


def read(workdir) -> list[dict]:
  """The rows of `workdir/results.jsonl`, in the order of a table.

  Raises:
    FileNotFoundError: there are no results yet.
    ValueError: a line is damaged or misses a field, or two lines claim to be
      the same student.
  """
  path = epath.Path(workdir) / 'results.jsonl'
  if not path.exists():
    raise errors.MissingFileError(
      f'{path} not found: no student is trained yet. Run experiments/main.py '
      f'with --workdir={workdir} first.'
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
  return sorted(rows, key=_order)


def _parsed(path):
  """Yields (line number, row), each with all it needs."""
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
    yield number, row


def _order(row):
  """Small models first, naive students and the baseline loss too."""
  return (
    row['task'],
    *(row[field] for field in SIZES),
    *(row['weak_model'], row['strong_model']),
    *(len(row['via']), row['via']),
    *(row['loss'] != 'xent', row['loss']),
    *(row['weak_labels'], row['early_stopping'], row['generative']),
    *(row['variant'], row['seed']),
  )
