"""All tasks by name (`TASKS`), and `load`, which makes examples of their rows.

`how_to_get` returns where the rows of a task are from, and `check_select`
validates `data.select`.

Shape suffixes: N examples, C classes.
"""

import collections
import difflib
import inspect
import logging

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import candidates
from w2s_jax.tasks import chess
from w2s_jax.tasks import conversion
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import nlp
from w2s_jax.tasks import reward
from w2s_jax.tasks import sources
from w2s_jax.tasks import task as task_lib
from w2s_jax.tasks import tfds_builder

TASKS = {**nlp.TASKS, **chess.TASKS, **reward.TASKS}


def find(name: str) -> task_lib.Task:
  """Returns the task of a name; UserError names the nearest one if none."""
  if name not in TASKS:
    close = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.5)
    hint = f'did you mean {close[0]!r}? ' if close else ''
    raise errors.UserError(
      f'task = {name!r} is unknown: {hint}'
      f'Tasks: {", ".join(TASKS)}. To add a data set: an entry of TASKS in '
      'w2s_jax/tasks/nlp.py, or reward.py for preference pairs.'
    )
  return TASKS[name]


def load(
  name: str, *, source: str = '', select: dict | None = None
) -> tuple[examples_lib.Examples, examples_lib.Examples | None, dict]:
  """Reads the examples of a task.

  Every call reads the rows again: examples can be large and sources can change,
  so it is up to callers to keep what they use twice.

  Args:
    name: a key of `TASKS`.
    source: where the rows are, see sources.py; '' for the task's own source.
      `{task}` in it becomes the name of the task.
    select: further arguments of the task's conversion.

  Returns:
    The training pool; the upstream test set, or None where it is to be held out
    of the pool (the source is a single pool or has the test split only, or the
    task has no labelled test split); and counts for 'train' and 'test': of rows
    read, of examples made from them, and of what was dropped, which are bad
    rows, duplicates, contradicting duplicates, candidates in excess of their
    question's balance, and inputs that the test set has in other groups.

  Raises:
    UserError: unknown task; arguments in `select` that select nothing; a row
      without a needed column, a text or a valid label, with its file and line;
      hidden labels; no rows.
    MissingFileError, MissingPackageError: see sources.read.
  """
  select = select or {}
  source, train, test = _locate(name, source, select)
  pool, counts = _load_splits(name, source, train, select)
  if not test:
    return pool, None, {'train': counts}
  test_pool, test_counts = _load_splits(name, source, test, select)
  # Callers remove the groups of the test rows that they choose.
  in_test = np.isin(pool.ids, test_pool.ids)
  in_test &= ~np.isin(pool.groups, test_pool.groups)
  if in_test.any():
    pool, counts = pool.take(~in_test), {**counts, 'in_test': in_test.sum()}
  return pool, test_pool, {'train': counts, 'test': test_counts}


def open_pool(
  name: str, *, source: str = '', select: dict | None = None
) -> tuple[
  examples_lib.Examples | candidates.Candidates, examples_lib.Examples | None
]:
  """Reads what the splits of a task are drawn from.

  Returns:
    The first two of `load`; for tasks whose rows are converted once they are
    drawn, see task.Task.screen, Candidates and None.

  Raises:
    As `load`.
  """
  if not find(name).screen:
    return load(name, source=source, select=select)[:2]
  select = select or {}
  source, train, _ = _locate(name, source, select)
  return candidates.screen(name, TASKS[name], source, train, select), None


def _locate(name: str, source: str, select: dict) -> tuple[str, list, list]:
  """Returns the source of a task, and its splits to train on and to test on."""
  check_select(name, select)
  source = source or TASKS[name].source
  if not source:
    raise errors.UserError(
      f'data.source is empty, and task {name!r} has no source of its own: give '
      'one, such as file:PATH.'
    )
  source = source.replace('{task}', name)
  return source, *_choose_splits(name, source)


def check_select(name: str, select: dict) -> None:
  """Validates a task's name and `data.select`, without reading any row.

  Raises:
    UserError: unknown task; or `select` has an argument that the task's
      conversion does not have, or values that select no row.
  """
  task = find(name)
  _, *known = inspect.signature(task.convert).parameters
  for field in select:
    if field not in known:
      raise errors.UserError(
        f'data.select.{field} is unknown: the fields of task {name!r} are '
        f'{", ".join(known) or "(none)"}.'
      )
  if task.check_select:
    task.check_select(**select)


def how_to_get(name: str) -> str:
  """Returns one line with the command or the files that a task needs."""
  source = TASKS[name].source
  kind, _, where = source.partition(':')
  ways = {
    'tfds': f'run `tfds build {where} --file_format=array_record` (this needs '
    f'TensorFlow) for data.source={source}',
    'hf': f'`pip install datasets` for data.source={source}',
    'asset': f'set data.source={source}',
  }
  if where.startswith('w2s/'):
    del ways['tfds']
  found = [ways[kind]] if kind in ways else []
  for data_set in {name, where.removeprefix('w2s/')}:
    if data_set in tfds_builder.DATA_SETS:
      found.append(tfds_builder.how_to_get(data_set))
      break
  return f'To get it, {"; or ".join([*found, _own_files(name)])}.'


def _own_files(name: str) -> str:
  files = ', '.join(
    x.partition('|')[0] for x in (*TASKS[name].train, *TASKS[name].test)
  )
  return (
    f'put your own {files}, as .jsonl, .csv or .parquet, into a folder for '
    'data.source=file:FOLDER/'
  )


def _choose_splits(name: str, source: str) -> tuple[list[str], list[str]]:
  """Returns the names of the splits for training, and of those for testing.

  There are none for testing where the test set is held out of the others.
  """
  task = TASKS[name]
  try:
    available = sources.split_names(source)
  except (FileNotFoundError, ValueError) as error:
    how = f'Or {_own_files(name)}.'  # the error has the other way
    if source.startswith(('file:', 'tfds:w2s/')):
      how = how_to_get(name)
    raise type(error)(f'{error} {how}') from error
  if available is None:  # One pool, whatever the name of the split.
    return list(task.train[:1]), []

  def find(names):
    known = [[n for n in each.split('|') if n in available] for each in names]
    return [each[0] for each in known if each]

  train, test = find(task.train), find(task.test)
  if len(train) == len(task.train) and len(test) == len(task.test):
    return train, test
  if not train and test:
    logging.warning(
      '%s has no split %s: all comes from %s.',
      source,
      task.train[0],
      '+'.join(test),
    )
    return test, []
  if not available and '{split}' in source:
    train_file = task.train[0].split('|')[0]
    file = source.removeprefix('file:').replace('{split}', train_file)
    raise errors.MissingFileError(
      f'{source}: there is no {file}, nor a file of another split; task '
      f'{name!r} needs {", ".join((*task.train, *task.test))}.'
    )
  raise errors.MissingFileError(
    f'{source} has the splits {", ".join(available) or "(none)"}; '
    f'task {name!r} needs {", ".join((*task.train, *task.test))}.'
  )


def _load_splits(
  name: str, source: str, splits: tuple[str, ...], select: dict
) -> tuple[examples_lib.Examples, dict]:
  """Returns distinct examples of the rows of `splits`, and counts."""
  task = TASKS[name]
  found = {}  # From id to (inputs, group, set of labels, fields).
  counts = collections.Counter(
    rows=0, bad=0, examples=0, duplicates=0, conflicting=0
  )
  first_bad = ''
  for split in splits:
    for origin, row in sources.read(source, split):
      counts['rows'] += 1
      try:
        converted = conversion.convert(name, task, row, origin, select)
      except task_lib.BadRow as error:
        counts['bad'] += 1
        first_bad = first_bad or str(error)
        continue
      fields = conversion.short_fields(row) if converted else ''
      for inputs, group, label in converted:
        counts['examples'] += 1
        new = (inputs, conversion.hash_of(group), set(), fields)
        found.setdefault(conversion.hash_of(inputs), new)[2].add(label)
  kept = {id_: row for id_, row in found.items() if len(row[2]) == 1}
  conversion.warn_of_bad(
    source, bad=counts['bad'], rows=counts['rows'], first=first_bad
  )
  if not kept:
    raise conversion.no_rows(
      name, source, select, rows=counts['rows'], first_bad=first_bad
    )
  counts['conflicting'] = len(found) - len(kept)
  counts['duplicates'] = counts['examples'] - len(found)
  if counts['duplicates'] or counts['conflicting']:
    logging.warning(
      '%s %s: of %d examples, %d repeat others and are dropped, as are %d '
      'inputs with contradicting labels.',
      source,
      '+'.join(splits),
      counts['examples'],
      counts['duplicates'],
      counts['conflicting'],
    )
  if task.question:
    balanced = _balance_questions(kept, task.question)
    counts['uneven'] = len(kept) - len(balanced)
    kept = balanced
  inputs, groups, labels, fields = zip(*kept.values(), strict=True)
  examples = examples_lib.Examples(
    ids=np.array(list(kept)),
    groups=np.array(groups),
    inputs=list(inputs),
    label_probs_NxC=examples_lib.label_probs(
      [label for (label,) in labels], task.num_classes
    ),
    balanced=task.balanced,
    fields=list(fields),
  )
  return examples, dict(counts)


def _balance_questions(kept: dict, question) -> dict:
  """Keeps as many right as wrong answers of each question, by their hashes."""
  answers = collections.defaultdict(lambda: ([], []))
  for id_ in sorted(kept):
    inputs, _, (label,), _ = kept[id_]
    answers[question(inputs)][label].append(id_)
  chosen = set()
  for wrong, right in answers.values():
    for ids in (wrong, right):
      chosen.update(ids[: min(len(wrong), len(right))])
  return {id_: row for id_, row in kept.items() if id_ in chosen}
