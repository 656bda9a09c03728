"""Converts a row of a source to examples, with its origin in each message."""

import hashlib
import json
import logging
import numbers

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import task as task_lib

# Longer columns of a row are not among the fields of its examples.
_MOST_CHARACTERS = 200
_MOST_ITEMS = 30

_quoted = json.encoder.encode_basestring_ascii


def short_fields(row: dict) -> str:
  """Returns JSON of the columns that hold numbers, short texts or short lists.

  As one text, since dicts of millions of rows would not fit into memory.
  """
  fields = {}
  for name, value in row.items():
    if isinstance(value, (np.ndarray, np.generic)):
      value = value.tolist()
    if isinstance(value, (list, tuple)):
      kept = len(value) <= _MOST_ITEMS and all(map(_is_short, value))
    else:
      kept = _is_short(value)
    if kept:
      fields[str(name)] = value
  return json.dumps(fields)


def _is_short(value) -> bool:
  if isinstance(value, str):
    return len(value) <= _MOST_CHARACTERS and value.isprintable()
  return isinstance(value, (bool, int, float))


class _Row(dict):
  """Tells a missing column from a missing key of a nested field."""

  def __missing__(self, column):
    found = ', '.join(cells.short(name) for name in list(self)[:30])
    raise errors.UserError(
      f'the task needs the column {column!r}; there are {found}'
    )


def convert(
  name: str, task: task_lib.Task, row: dict, origin: str, select: dict
) -> list[tuple]:
  """Returns (inputs, group, label) of each example of a row.

  Raises:
    UserError: a column is missing or a value is bad; BadRow is left out.
  """
  converted = _with_origin(name, task.convert, row, origin, select)
  for *_, label in converted:
    _check_label(label, task.num_classes, origin)
  return converted


def screen(
  name: str, task: task_lib.Task, row: dict, origin: str, select: dict
) -> tuple | None:
  """As `convert`, of the first reading of a row, see task.Task.screen."""
  return _with_origin(name, task.screen, row, origin, select)


def _with_origin(name, function, row, origin, select):
  """Returns function(row, **select); raises UserError or BadRow with origin."""
  try:
    try:
      return function(row, **select)
    except KeyError:  # Only now, as copies of millions of rows take time.
      return function(_Row(row), **select)
  except task_lib.BadRow as error:
    raise task_lib.BadRow(f'{origin}: {error}.') from error
  except errors.UserError as error:
    raise errors.UserError(f'{origin}: {error}.') from error
  except KeyError as error:
    raise errors.UserError(
      f'{origin}: task {name!r} finds no {cells.short(error.args[0])} in a '
      'nested field.'
    ) from error
  except (TypeError, ValueError) as error:  # Libraries quote values uncut.
    raise errors.UserError(f'{origin}: {cells.cut(str(error))}.') from error


def warn_of_bad(source: str, *, bad: int, rows: int, first: str) -> None:
  """Logs how many rows are left out, if any, with the message of the first."""
  if bad:
    logging.warning(
      '%s: %d of %d rows are bad and left out, the first at %s',
      source,
      bad,
      rows,
      first,
    )


def no_rows(
  name: str, source: str, select: dict, *, rows: int, first_bad: str
) -> errors.UserError:
  """Returns the error of a source of which no row is left."""
  why = '.'
  if first_bad:
    why = f'; all are bad, the first at {first_bad}'
  elif select:
    why = f': data.select = {select} takes none of {rows} rows.'
  return errors.UserError(
    f'data.source = {source!r} has no rows for task {name!r}{why}'
  )


def _check_label(label, num_classes: int, origin: str) -> None:
  """Raises UserError unless it is a class or the probabilities of all."""
  if isinstance(label, tuple):
    if (
      len(label) != num_classes
      or not all(0 <= prob <= 1 for prob in label)
      or abs(sum(label) - 1) > 1e-5
    ):
      raise errors.UserError(
        f'{origin}: label {cells.short(label)} is not {num_classes} '
        'probabilities that sum to 1.'
      )
  elif label == -1:
    raise errors.UserError(
      f'{origin}: label -1 means that this split has hidden labels.'
    )
  elif not isinstance(label, numbers.Integral) or not 0 <= label < num_classes:
    raise errors.UserError(
      f'{origin}: label {cells.short(label)} is not in 0..{num_classes - 1}.'
    )


def hash_of(inputs) -> str:
  """Returns 16 hexadecimal digits of a hash: of inputs, or a group."""
  return digest_of(inputs).hex()


def digest_of(inputs) -> bytes:
  """Returns the 8 bytes that `hash_of` spells."""
  return hashlib.sha256(_to_json(inputs).encode()).digest()[:8]


def _to_json(inputs) -> str:
  """The same as json.dumps, faster for a text or a tuple of texts."""
  try:
    if isinstance(inputs, str):
      return _quoted(inputs)
    if isinstance(inputs, tuple):
      return f'[{", ".join(map(_quoted, inputs))}]'
  except TypeError:  # Not all of them are texts.
    pass
  return json.dumps(inputs)


def texts_of(hashes: np.ndarray) -> list[str]:
  """Returns hashes, kept as uint64, in the form of `hash_of`."""
  digits = hashes.astype('>u8').tobytes().hex()
  return [digits[i : i + 16] for i in range(0, len(digits), 16)]
