"""Rows of a large file, of which only those that a split holds are checked.

A first reading keeps three numbers a row: enough to group and to draw it, see
task.Task.screen. A second one converts the rows that are drawn. The splits are
those of a file whose bad and contradicting rows were removed first: where one
is drawn, all is drawn again without it.

Shape suffix: N rows.
"""

import array
import collections
from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import itertools
import logging
import operator
from typing import NamedTuple

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import conversion
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import sources
from w2s_jax.tasks import task as task_lib
from w2s_jax.tasks import workers

# Bytes of a file for which it takes less time to start processes.
_LARGE = 2**26
_MANY = 10_000  # rows to convert of which the same holds
_BLOCK = 1024  # rows that one process reads at a time


@dataclasses.dataclass(frozen=True)
class Source:
  """Where candidates are from, and what was converted of it so far."""

  name: str  # of the task
  task: task_lib.Task
  source: str
  splits: list[str]
  select: dict
  # Number of a row -> (inputs, label, fields), or why it is bad.
  converted: dict = dataclasses.field(default_factory=dict)

  def rows(self, wanted: Iterator[bool] | None = None):
    """Yields (origin, row) of all rows of all splits; see sources.read."""
    for split in self.splits:
      yield from sources.read(self.source, split, wanted)

  def no_rows(self, *, rows: int, first_bad: str) -> errors.UserError:
    return conversion.no_rows(
      self.name, self.source, self.select, rows=rows, first_bad=first_bad
    )


@dataclasses.dataclass(frozen=True)
class Candidates:
  """N rows that are not checked yet, in the order of their source.

  Of rows with the same inputs the first is drawn, with its group, for all; if
  it proves bad, the next one is.

  Attributes:
    ids: [N] uint64, hashes of the inputs.
    groups: [N] uint64, hashes of what related rows share.
    numbers: [N] int64, places in the source.
    source: what they are from.
  """

  ids: np.ndarray
  groups: np.ndarray
  numbers: np.ndarray
  source: Source
  balanced = False  # their classes are not known

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of the ids; the same for any order of the rows."""
    ids = np.sort(self.ids).astype('<u8')
    return hashlib.sha256(ids.tobytes()).hexdigest()[:16]

  def take(self, indices) -> 'Candidates':
    """Returns the rows at `indices` (integers or a mask), in that order."""
    return dataclasses.replace(
      self,
      ids=self.ids[indices],
      groups=self.groups[indices],
      numbers=self.numbers[indices],
    )

  def distinct(self) -> 'Candidates':
    """Returns the first row of each id."""
    _, first = np.unique(self.ids, return_index=True)
    return self if len(first) == len(self) else self.take(np.sort(first))


class _Screened(NamedTuple):
  """What a first reading found, of all rows or of those of one process."""

  ids: bytes = b''  # 8 each, big-endian
  groups: bytes = b''
  numbers: bytes = b''  # native int64
  rows: int = 0  # also those of other processes
  bad: int = 0
  first_bad: tuple[int, str] = ()  # number of the row, and message
  failed: tuple[int, errors.UserError] = ()  # number of the row where it ended


def screen(
  name: str, task: task_lib.Task, source: str, splits: list[str], select: dict
) -> Candidates:
  """Reads the rows of a task for the first time; a large file on all cores.

  Raises:
    UserError: as registry.load, but for rows that only `convert` finds bad.
  """
  found = Source(name, task, source, splits, select)
  parts = None
  if _csv_bytes(found) > _LARGE and (count := workers.count()) > 1:
    calls = [(found, share) for share in _shares(count)]
    parts = workers.run(_screen, calls)
  parts = parts or [_screen(found)]
  _raise_first([part.failed for part in parts if part.failed])
  bad = sum(part.bad for part in parts)
  _, first_bad = min(
    (part.first_bad for part in parts if part.bad), default=(0, '')
  )
  conversion.warn_of_bad(source, bad=bad, rows=parts[0].rows, first=first_bad)
  ids, groups, numbers = (b''.join(x) for x in list(zip(*parts))[:3])
  if not ids:
    raise found.no_rows(rows=parts[0].rows, first_bad=first_bad)
  all_candidates = Candidates(
    np.frombuffer(ids, '>u8').astype(np.uint64),
    np.frombuffer(groups, '>u8').astype(np.uint64),
    np.frombuffer(numbers, np.int64),
    found,
  )
  if len(parts) == 1:
    return all_candidates
  return all_candidates.take(np.argsort(all_candidates.numbers))


def _csv_bytes(source: Source) -> int:
  """Returns the size of a source that several processes can read, else 0."""
  return sum(sources.csv_bytes(source.source, each) for each in source.splits)


def _shares(count: int) -> Iterator[bytes]:
  """Yields which rows are in each of `count` shares; repeat it for all rows."""
  for share in range(count):
    flags = bytearray(count * _BLOCK)
    flags[share * _BLOCK : (share + 1) * _BLOCK] = b'\x01' * _BLOCK
    yield bytes(flags)


def _screen(source: Source, share: bytes = b'') -> _Screened:
  """Reads the rows of one of `_shares`, or all."""
  wanted = itertools.cycle(share) if share else None
  ids, groups, numbers = bytearray(), bytearray(), array.array('q')
  number, bad, first_bad, failed = -1, 0, (), ()
  try:
    for number, found in enumerate(source.rows(wanted)):
      if not found:
        continue
      origin, row = found
      try:
        screened = conversion.screen(
          source.name, source.task, row, origin, source.select
        )
      except task_lib.BadRow as error:
        bad += 1
        first_bad = first_bad or (number, str(error))
        continue
      except errors.UserError as error:
        failed = number, error
        break
      if screened is not None:
        inputs, group = screened
        ids += conversion.digest_of(inputs)
        groups += conversion.digest_of(group)
        numbers.append(number)
  except errors.UserError as error:  # in the next row or before it
    failed = number + 1, error
  return _Screened(
    bytes(ids),
    bytes(groups),
    numbers.tobytes(),
    number + 1,
    bad,
    first_bad,
    failed,
  )


def draw(
  candidates: Candidates, drawn: Callable[[Candidates], dict]
) -> dict[str, Candidates]:
  """Draws splits and converts their rows, for `examples`.

  Args:
    candidates: all that may be drawn.
    drawn: from distinct candidates to named splits of them, which it draws by
      ids and groups alone.

  Returns:
    The splits, without bad rows and without rows that contradict others.

  Raises:
    UserError: no row is left; as `conversion.convert`, of a row that was drawn.
  """
  source, first_bad = candidates.source, ''
  while len(candidates):
    parts = drawn(candidates.distinct())
    ids = np.concatenate([part.ids for part in parts.values()])
    # With those that repeat a drawn row: their labels may contradict it.
    among = candidates.take(np.isin(candidates.ids, ids))
    _convert(source, among.numbers)
    wrong = _wrong(among)
    if not wrong:
      return parts
    bad = [why for why in wrong.values() if why]
    first_bad = first_bad or next(iter(bad), '')
    logging.warning(
      '%s: of %d rows that were drawn or repeat these, %d are bad and %d '
      'contradict others; they are left out%s',
      source.source,
      len(among),
      len(bad),
      len(wrong) - len(bad),
      f', the first bad one at {bad[0]}' if bad else '.',
    )
    candidates = candidates.take(~np.isin(candidates.numbers, list(wrong)))
  raise source.no_rows(rows=0, first_bad=first_bad)


def _convert(source: Source, numbers: np.ndarray) -> None:
  """Converts the rows at `numbers`, but those that were converted before."""
  wanted = sorted(set(numbers.tolist()) - source.converted.keys())
  if not wanted:
    return
  parts = None
  count = workers.count() if len(wanted) > _MANY else 1
  if count > 1 and _csv_bytes(source):
    fresh = dataclasses.replace(source, converted={})
    calls = [(fresh, wanted[share::count]) for share in range(count)]
    parts = workers.run(_converted, calls)
  parts = parts or [_converted(source, wanted)]
  _raise_first([failed for _, failed in parts if failed])
  for converted, _ in parts:
    source.converted.update(converted)
  if gone := len(wanted) - sum(len(converted) for converted, _ in parts):
    raise errors.UserError(
      f'{source.source} changed while it was read: {gone} rows are gone.'
    )


def _converted(source: Source, wanted: list[int]) -> tuple[dict, tuple]:
  """Returns values of Source.converted, and as _Screened.failed."""
  flags = bytearray(wanted[-1] + 1)
  for number in wanted:
    flags[number] = True
  converted, number = {}, -1
  try:
    for number, found in enumerate(source.rows(iter(flags))):
      if found:
        try:
          converted[number] = _converted_row(source, *found)
        except task_lib.BadRow as error:
          converted[number] = str(error)
        except errors.UserError as error:
          return {}, (number, error)
        if number == wanted[-1]:
          break
  except errors.UserError as error:  # in the next row or before it
    return {}, (number + 1, error)
  return converted, ()


def _converted_row(source: Source, origin: str, row: dict) -> tuple:
  converted = conversion.convert(
    source.name, source.task, row, origin, source.select
  )
  if len(converted) != 1:
    raise errors.UserError(f'{origin}: changed while it was read.')
  [(inputs, _, label)] = converted
  return inputs, label, conversion.short_fields(row)


def _raise_first(failed: list[tuple[int, errors.UserError]]) -> None:
  """Raises the error of the first row, if any."""
  if failed:
    raise min(failed, key=operator.itemgetter(0))[1]


def _wrong(among: Candidates) -> dict[int, str]:
  """Returns {number: why} of bad rows, and {number: ''} of contradictions."""
  wrong, labels, good = {}, collections.defaultdict(set), []
  for id_, number in zip(among.ids.tolist(), among.numbers.tolist()):
    match among.source.converted[number]:
      case str() as why:
        wrong[number] = why
      case _, label, _:
        labels[id_].add(label)
        good.append((id_, number))
  return wrong | {number: '' for id_, number in good if len(labels[id_]) > 1}


def examples(part: Candidates) -> examples_lib.Examples:
  """Returns the examples of candidates that `draw` returned."""
  source = part.source
  inputs, labels, fields = zip(
    *(source.converted[number] for number in part.numbers.tolist()), strict=True
  )
  ids = conversion.texts_of(part.ids)
  for number, id_, each in zip(part.numbers, ids, inputs, strict=True):
    if conversion.hash_of(each) != id_:
      raise errors.UserError(
        f'{source.source} changed while it was read: row {number + 1} is '
        'another one.'
      )
  return examples_lib.Examples(
    ids=np.array(ids),
    groups=np.array(conversion.texts_of(part.groups)),
    inputs=list(inputs),
    label_probs_NxC=examples_lib.label_probs(labels, source.task.num_classes),
    balanced=source.task.balanced,
    fields=list(fields),
  )
