"""Reads texts, labels and numbers from rows, in the spellings of data sets.

Column names are those of the Hugging Face version of a data set; the spellings
of TFDS are understood too. A path of several names leads into nested fields:
`text(row, 'choices', 'text', 0)` reads `row['choices']['text'][0]`.

All functions raise KeyError if the row lacks the column, and UserError with
the path if a nested field is missing or the value is bad. Messages show at most
80 characters of a value.
"""

from collections.abc import Callable
import math
import re
import reprlib

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import task

MAX_CHARACTERS = 1_000_000  # of a text; longer ones are damage, not data
_MAX_SHOWN = 80

Converted = list[tuple[str, str, int]]  # text, group, label
Convert = Callable[[dict], Converted]

_repr = reprlib.Repr()  # also of values that are long or deeply nested
_repr.maxstring = _repr.maxother = _repr.maxlong = 2 * _MAX_SHOWN
_repr.maxlevel = 3


def cut(message: str) -> str:
  """Returns at most 80 characters of a message that may quote a value."""
  if len(message) <= _MAX_SHOWN:
    return message
  return message[: _MAX_SHOWN - 3] + '...'


def short(value) -> str:
  """Returns the repr of a value, cut to 80 characters."""
  return cut(_repr.repr(value))


def column(row: dict, *names: str) -> str:
  """Returns the first of `names` that the row has; versions differ in names."""
  return next((name for name in names if name in row), names[0])


def field(row: dict, *path):
  """Returns the value at a path, of any type."""
  value = row[path[0]]
  for depth, name in enumerate(path[1:], 1):
    try:
      value = value[name]
    except (IndexError, KeyError, TypeError):
      raise errors.UserError(
        f'{_dotted(path[:depth])}: expected {name!r} in it, found '
        f'{short(value)}'
      ) from None
  return value


def string(row: dict, *path, not_text: type = errors.UserError) -> str:
  """Returns a text as it is; it may be empty. Raises `not_text` otherwise."""
  return _as_text(field(row, *path), path, not_text)


def _as_text(value, path, not_text: type = errors.UserError) -> str:
  if not isinstance(value, str):
    raise not_text(f'{_dotted(path)}: expected a text, found {short(value)}')
  if len(value) > MAX_CHARACTERS:
    raise errors.UserError(
      f'{_dotted(path)}: a text of {len(value):,} characters, at most '
      f'{MAX_CHARACTERS:,} are allowed; shorten or drop it: {short(value)}'
    )
  try:
    value.encode()  # Hashes and tokenizers need UTF-8.
  except UnicodeEncodeError as error:
    raise errors.UserError(
      f'{_dotted(path)}: lone surrogate {value[error.start]!r} at character '
      f'{error.start + 1} of {short(value)}'
    ) from None
  return value


def optional_text(row: dict, *path) -> str:
  """Returns a text as it is; '' where it is None."""
  value = row[path[0]] if len(path) == 1 else field(row, *path)
  if isinstance(value, str) and value.isascii() and len(value) < MAX_CHARACTERS:
    return value  # as nearly all are: millions are read
  return '' if value is None else _as_text(value, path)


def text(row: dict, *path) -> str:
  """Returns a text without surrounding whitespace.

  Raises:
    task.BadRow: the text is empty.
  """
  return stripped(string(row, *path))


def stripped(value: str) -> str:
  """Strips a text, as GLUE pads sentences and ids must not depend on that.

  Raises:
    task.BadRow: the text is empty.
  """
  if not value.strip():
    raise task.BadRow(f'expected a text, found {short(value)}')
  return value.strip()


def items(row: dict, *path) -> list:
  """Returns the items of a list."""
  values = field(row, *path)
  if not isinstance(values, (list, tuple, np.ndarray)):
    raise errors.UserError(
      f'{_dotted(path)}: expected a list, found {short(values)}'
    )
  return list(values)


def texts(row: dict, *path) -> list[str]:
  """Returns the texts of a list, as they are."""
  return [string(row, *path, i) for i, _ in enumerate(items(row, *path))]


def label(row: dict, *path) -> int:
  """Returns a class, from an integer, a truth value, or either as a text.

  Texts are '1', '-1' or 'true' in any case; whitespace around them is ignored.
  Everything else is refused, also floats and their spellings such as '1.0': in
  a column of labels they are probabilities or the result of a bad conversion.
  """
  value = field(row, *path)
  is_container = isinstance(value, (dict, list, tuple))
  spelled = '' if is_container else str(value).strip().lower()
  spelled = {'true': '1', 'false': '0'}.get(spelled, spelled)
  if not re.fullmatch('-?[0-9]{1,18}', spelled):  # int() takes more, as '0_1'.
    raise errors.UserError(
      f'{_dotted(path)} {short(value)} is not a whole number, true or false'
    )
  return int(spelled)


def number(row: dict, *path) -> float:
  """Returns a finite number, from a number or its decimal spelling."""
  value = field(row, *path)
  try:
    found = float(value)
  except (OverflowError, TypeError, ValueError):
    found = math.nan
  spelled_otherwise = isinstance(value, (bool, str)) and not re.fullmatch(
    r'[-+.0-9eE\s]+', str(value)
  )
  if not math.isfinite(found) or spelled_otherwise:
    raise errors.UserError(
      f'{_dotted(path)} {short(value)} is not a finite number'
    )
  return found


def group_key(row: dict, name: str) -> str | int:
  """Returns the text or number that related rows share; '' where it is None."""
  value = row[name]
  return value if isinstance(value, int) else optional_text(row, name)


def _dotted(path) -> str:
  return '.'.join(map(str, path))
