"""Tasks: what is learned. `load` turns the rows of a source into examples.

Shape suffixes here and below: N examples, C classes.
"""

import collections
import difflib
import hashlib
import json
import logging

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import chess
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import nlp
from w2s_jax.tasks import reward
from w2s_jax.tasks import sources
from w2s_jax.tasks import task as task_lib
from w2s_jax.tasks import tfds_builder

TASKS = {**nlp.TASKS, **chess.TASKS, **reward.TASKS}


def find(name: str) -> task_lib.Task:
  """The task of a name; UserError with the nearest one if there is none."""
  if name not in TASKS:
    close = difflib.get_close_matches(name, TASKS, n=1, cutoff=0)[0]
    raise errors.UserError(
      f'task = {name!r} is unknown: did you mean {close!r}? '
      f'Tasks: {", ".join(TASKS)}.'
    )
  return TASKS[name]


def load(
  name: str, *, source: str = '', select: dict | None = None
) -> tuple[examples_lib.Examples, examples_lib.Examples | None, dict]:
  """Reads a task.

  Args:
    name: a key of `TASKS`.
    source: where the rows are, see sources.py; '' for the task's own source.
      `{task}` in it becomes the name of the task.
    select: further arguments of the task's conversion.

  Returns:
    The training pool; the upstream test set, or None where it is to be held out
    of the pool (the source is a single pool or has the test split only, or the
    task has no labelled test split); and counts of rows read, examples made
    from them, and bad rows, duplicates, contradicting duplicates, candidates in
    excess of their question's balance and rows of a test set's inputs in other
    groups dropped, for 'train' and 'test'.

  Raises:
    ValueError: unknown task; a row without a needed column, a text or a valid
      label, with its file and line; hidden labels; no rows.
    FileNotFoundError, ImportError: see sources.read.
  """
  task = find(name)
  source, select = source or task.source, select or {}
  if not source:
    raise errors.UserError(
      f'data.source is empty, and task {name!r} has no source of its own: give '
      'one, such as file:PATH.'
    )
  source = source.replace('{task}', name)
  train, test = _choose_splits(name, source)
  pool, counts = _load_splits(name, source, train, select)
  if not test:
    return pool, None, {'train': counts}
  test_pool, test_counts = _load_splits(name, source, test, select)
  # What shares a group with a test row is left to whoever picks the test rows.
  in_test = np.isin(pool.ids, test_pool.ids)
  in_test &= ~np.isin(pool.groups, test_pool.groups)
  if in_test.any():
    pool, counts = pool.take(~in_test), {**counts, 'in_test': in_test.sum()}
  return pool, test_pool, {'train': counts, 'test': test_counts}


def how_to_get(name: str) -> str:
  """In one line: the command or the files that the rows of a task want."""
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
  files = ', '.join((*TASKS[name].train, *TASKS[name].test))
  found = found or [f'put {files}, as .jsonl or the like, into the folder']
  return f'To get it, {"; or ".join(found)}.'


def _choose_splits(name: str, source: str) -> tuple[list[str], list[str]]:
  """Names of the splits for training and, where they are apart, testing."""
  task = TASKS[name]
  try:
    there = sources.split_names(source)
  except (FileNotFoundError, ValueError) as error:
    if not source.startswith(('file:', 'tfds:w2s/')):
      raise
    raise type(error)(f'{error} {how_to_get(name)}') from error
  if there is None:  # One pool; a name means nothing to it.
    return list(task.train[:1]), []

  def find(names):
    known = [[n for n in each.split('|') if n in there] for each in names]
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
  raise errors.MissingFileError(
    f'{source} has the splits {", ".join(there) or "(none)"}; task {name!r} '
    f'needs {", ".join((*task.train, *task.test))}.'
  )


def _load_splits(
  name: str, source: str, splits: tuple[str, ...], select: dict
) -> tuple[examples_lib.Examples, dict]:
  """Examples of all rows of `splits`, without duplicates, and counts."""
  found = {}  # From id to (inputs, group, set of labels).
  counts = collections.Counter(
    rows=0, bad=0, examples=0, duplicates=0, conflicting=0
  )
  first_bad = ''
  for split in splits:
    for origin, row in sources.read(source, split):
      counts['rows'] += 1
      try:
        converted = _convert(name, row, origin, select)
      except task_lib.BadRow as error:
        counts['bad'] += 1
        first_bad = first_bad or str(error)
        continue
      for inputs, group, label in converted:
        counts['examples'] += 1
        new = (inputs, _hash(group), set())
        found.setdefault(_hash(inputs), new)[2].add(label)
  kept = {id_: row for id_, row in found.items() if len(row[2]) == 1}
  if counts['bad']:
    logging.warning(
      '%s: %d of %d rows are bad and left out, the first at %s',
      source,
      counts['bad'],
      counts['rows'],
      first_bad,
    )
  if not kept:
    why = f'; all are bad, the first at {first_bad}' if first_bad else '.'
    raise errors.UserError(
      f'data.source = {source!r} has no rows for task {name!r}{why}'
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
  if TASKS[name].question:
    even = _even(kept, TASKS[name].question)
    counts['uneven'] = len(kept) - len(even)
    kept = even
  inputs, groups, labels = zip(*kept.values(), strict=True)
  one_hot = np.eye(TASKS[name].num_classes)
  probs = [
    label if isinstance(label, tuple) else one_hot[label] for (label,) in labels
  ]
  examples = examples_lib.Examples(
    ids=np.array(list(kept)),
    groups=np.array(groups),
    inputs=list(inputs),
    label_probs_NxC=np.array(probs, np.float32),
    balanced=TASKS[name].balanced,
  )
  return examples, dict(counts)


def _even(kept: dict, question) -> dict:
  """As many right as wrong answers of each question, by their hashes."""
  answers = collections.defaultdict(lambda: ([], []))
  for id_ in sorted(kept):
    inputs, _, (label,) = kept[id_]
    answers[question(inputs)][label].append(id_)
  chosen = set()
  for wrong, right in answers.values():
    for ids in (wrong, right):
      chosen.update(ids[: min(len(wrong), len(right))])
  return {id_: row for id_, row in kept.items() if id_ in chosen}


def _convert(name: str, row: dict, origin: str, select: dict) -> list[tuple]:
  """The task's own conversion; what is wrong with a row names its origin."""
  task = TASKS[name]
  try:
    converted = task.convert(row, **select)
  except KeyError as error:
    raise errors.UserError(
      f'{origin}: task {name!r} needs the column {error.args[0]!r}; there are '
      f'{", ".join(map(repr, row))}.'
    ) from error
  except (TypeError, ValueError) as error:
    bad = isinstance(error, task_lib.BadRow)
    kind = task_lib.BadRow if bad else errors.UserError
    raise kind(f'{origin}: {error}.') from error
  for *_, label in converted:
    _check_label(label, task.num_classes, origin)
  return converted


def _check_label(label, num_classes: int, origin: str):
  """Raises ValueError for what is neither a class nor their probabilities."""
  if isinstance(label, tuple):
    if (
      len(label) != num_classes
      or not all(0 <= prob <= 1 for prob in label)
      or abs(sum(label) - 1) > 1e-5
    ):
      raise errors.UserError(
        f'{origin}: label {label} is not {num_classes} probabilities that sum '
        'to 1.'
      )
  elif label == -1:
    raise errors.UserError(
      f'{origin}: label -1 means that this split has hidden labels.'
    )
  elif not 0 <= label < num_classes:
    raise errors.UserError(
      f'{origin}: label {label} is not in 0..{num_classes - 1}.'
    )


def _hash(inputs) -> str:
  canonical = json.dumps(inputs, ensure_ascii=True)
  return hashlib.sha256(canonical.encode()).hexdigest()[:16]
