"""Rows of a large file, of which only those that some split holds are checked.

A first reading keeps four numbers a row: enough to select, to group and to draw
it, see task.Task.screen. A second one converts the rows that are drawn. The
splits are those of a file whose bad and contradicting rows were removed first:
where one is drawn it is left out, and all is drawn again without it.

Shape suffix: N rows.
"""

import array
from collections.abc import Callable
import dataclasses
import functools
import hashlib
import logging
import zlib

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import conversion
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import sources
from w2s_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Source:
  """Where candidates are from, and what was converted of it so far."""

  name: str  # of the task
  task: task_lib.Task
  source: str
  splits: list[str]
  select: dict
  # Number of a row -> (inputs, label, fields), or None for a bad row.
  converted: dict = dataclasses.field(default_factory=dict)
  first_bad: list[str] = dataclasses.field(default_factory=list)  # a message

  def rows(self):
    """Yields (number, origin, row) of all rows of all splits."""
    number = 0
    for split in self.splits:
      for origin, row in sources.read(self.source, split):
        yield number, origin, row
        number += 1


@dataclasses.dataclass(frozen=True)
class Candidates:
  """N rows that are not checked yet, in the order of their source.

  Of rows with the same inputs the first is drawn, with its group, for all; if
  it proves bad, the next one is.

  Attributes:
    ids: [N] uint64, hashes of the inputs.
    groups: [N] uint64, hashes of what related rows share.
    texts: [N] uint32, checksums of all that a label follows from. An id repeats
      with other texts only.
    numbers: [N] int64, places in the source.
    source: what they are from.
  """

  ids: np.ndarray
  groups: np.ndarray
  texts: np.ndarray
  numbers: np.ndarray
  source: Source
  balanced = False  # their classes are not known

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of ids and texts; the same for any order of the rows."""
    order = np.lexsort((self.texts, self.ids))
    digest = hashlib.sha256(self.ids[order].astype('<u8').tobytes())
    digest.update(self.texts[order].astype('<u4').tobytes())
    return digest.hexdigest()[:16]

  def take(self, indices) -> 'Candidates':
    """Returns the rows at `indices` (integers or a mask), in that order."""
    return dataclasses.replace(
      self,
      ids=self.ids[indices],
      groups=self.groups[indices],
      texts=self.texts[indices],
      numbers=self.numbers[indices],
    )

  def distinct(self) -> 'Candidates':
    """Returns the first row of each id."""
    _, first = np.unique(self.ids, return_index=True)
    return self if len(first) == len(self) else self.take(np.sort(first))


def screen(
  name: str, task: task_lib.Task, source: str, splits: list[str], select: dict
) -> Candidates:
  """Reads the rows of a task for the first time.

  Raises:
    UserError: as registry.load, but for rows that only `convert` finds bad.
  """
  found = Source(name, task, source, splits, select)
  ids, groups, texts, numbers = (array.array(x) for x in 'QQIq')
  count = bad = 0
  for number, origin, row in found.rows():
    count += 1
    try:
      screened = conversion.screen(name, task, row, origin, select)
    except task_lib.BadRow as error:
      bad += 1
      _note(found, error)
      continue
    if screened is not None:
      inputs, group, text = screened
      ids.append(int(conversion.hash_of(inputs), 16))
      groups.append(int(conversion.hash_of(group), 16))
      texts.append(zlib.crc32('\n'.join(text).encode()))
      numbers.append(number)
  if bad:
    logging.warning(
      '%s: %d of %d rows are bad and left out, the first at %s',
      source,
      bad,
      count,
      found.first_bad[0],
    )
  candidates = Candidates(
    np.array(ids, np.uint64),
    np.array(groups, np.uint64),
    np.array(texts, np.uint32),
    np.array(numbers, np.int64),
    found,
  )
  if not len(candidates):
    raise errors.UserError(_no_rows(found, count))
  return _without_copies(candidates)


def _without_copies(candidates: Candidates) -> Candidates:
  """Drops rows with the inputs and the texts of an earlier one."""
  distinct = candidates.distinct()
  if len(distinct) == len(candidates):
    return candidates
  logging.warning(
    '%s: %d of %d rows repeat the inputs of others and are dropped.',
    candidates.source.source,
    len(candidates) - len(distinct),
    len(candidates),
  )
  order = np.lexsort((candidates.texts, candidates.ids))  # stable
  ids, texts = candidates.ids[order], candidates.texts[order]
  copies = (ids[1:] == ids[:-1]) & (texts[1:] == texts[:-1])
  return candidates.take(np.sort(order[np.append(True, ~copies)]))


def _note(source: Source, error: task_lib.BadRow) -> None:
  if not source.first_bad:
    source.first_bad.append(str(error))


def _no_rows(source: Source, count: int) -> str:
  """Returns the message for a source of `count` rows that gives no example."""
  why = '.'
  if source.first_bad:
    why = f'; all are bad, the first at {source.first_bad[0]}'
  elif source.select:
    why = f': data.select = {source.select} takes none of {count} rows.'
  return (
    f'data.source = {source.source!r} has no rows for task {source.name!r}{why}'
  )


def draw(
  candidates: Candidates, drawn: Callable[[Candidates], dict]
) -> dict[str, examples_lib.Examples]:
  """Draws splits and converts their rows.

  Args:
    candidates: all that may be drawn.
    drawn: from distinct candidates to named splits of them, which it draws by
      ids and groups alone.

  Returns:
    The examples of each split.

  Raises:
    UserError: no row is left; as `conversion.convert`, of a row that was drawn.
  """
  source = candidates.source
  while True:
    if not len(candidates):
      raise errors.UserError(_no_rows(source, 0))
    parts = drawn(candidates.distinct())
    ids = np.concatenate([part.ids for part in parts.values()])
    # With those that repeat a drawn row: their labels may contradict it.
    among = candidates.take(np.isin(candidates.ids, ids))
    _convert(source, among.numbers)
    wrong = _bad(among) | _contradicting(among)
    if not wrong:
      return {name: _examples(part) for name, part in parts.items()}
    logging.warning(
      '%s: %d of %d rows that were drawn are bad or contradict others and are '
      'left out%s',
      source.source,
      len(wrong),
      len(among),
      f'; the first bad row is at {source.first_bad[0]}'
      if source.first_bad
      else '.',
    )
    candidates = candidates.take(~np.isin(candidates.numbers, list(wrong)))


def _convert(source: Source, numbers: np.ndarray) -> None:
  """Converts the rows at `numbers`, but those that were converted before."""
  wanted = set(numbers.tolist()) - source.converted.keys()
  if not wanted:
    return
  for number, origin, row in source.rows():
    if number not in wanted:
      continue
    try:
      converted = conversion.convert(
        source.name, source.task, row, origin, source.select
      )
    except task_lib.BadRow as error:
      _note(source, error)
      source.converted[number] = None
    else:
      if len(converted) != 1:
        raise errors.UserError(f'{origin}: changed while it was read.')
      [(inputs, _, label)] = converted
      fields = conversion.short_fields(row)
      source.converted[number] = inputs, label, fields
    wanted.remove(number)
    if not wanted:
      return
  raise errors.UserError(
    f'{source.source} changed while it was read: {len(wanted)} rows are gone.'
  )


def _bad(among: Candidates) -> set[int]:
  converted = among.source.converted
  return {x for x in among.numbers.tolist() if converted[x] is None}


def _contradicting(among: Candidates) -> set[int]:
  """Returns the numbers of rows with the same inputs and several labels."""
  converted, labels, numbers = among.source.converted, {}, {}
  for id_, number in zip(among.ids.tolist(), among.numbers.tolist()):
    if converted[number] is not None:
      labels.setdefault(id_, set()).add(converted[number][1])
      numbers.setdefault(id_, set()).add(number)
  return {x for id_ in labels if len(labels[id_]) > 1 for x in numbers[id_]}


def _examples(part: Candidates) -> examples_lib.Examples:
  """Returns the examples of rows that were converted, without bad ones."""
  source = part.source
  inputs, labels, fields = zip(
    *(source.converted[number] for number in part.numbers.tolist()), strict=True
  )
  ids = conversion.texts_of(part.ids)
  for i, (id_, each) in enumerate(zip(ids, inputs, strict=True)):
    if conversion.hash_of(each) != id_:
      raise errors.UserError(
        f'{source.source} changed while it was read: row {part.numbers[i] + 1} '
        'is another one.'
      )
  return examples_lib.Examples(
    ids=np.array(ids),
    groups=np.array(conversion.texts_of(part.groups)),
    inputs=list(inputs),
    label_probs_NxC=examples_lib.label_probs(labels, source.task.num_classes),
    balanced=source.task.balanced,
    fields=list(fields),
  )
