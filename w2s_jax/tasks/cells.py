"""What stands in a row: texts and labels, in the spellings that data sets have.

Column names are those of the Hugging Face version of a data set; where TFDS
spells a row in another way, that is understood too.
"""

from collections.abc import Callable

from w2s_jax import errors
from w2s_jax.tasks import task

Converted = list[tuple[str, str, int]]  # text, group, label
Convert = Callable[[dict], Converted]


def text(value) -> str:
  """GLUE pads sentences with a space; ids must not depend on that.

  Raises:
    ValueError: not a text; task.BadRow where it is an empty one.
  """
  if not isinstance(value, str):
    raise errors.UserError(f'{value!r} where there should be a text')
  if not value.strip():
    raise task.BadRow(f'{value!r} where there should be a text')
  return value.strip()


def label(value) -> int:
  """From an integer, a truth value, or either of them as csv spells it."""
  spelled = {'true': '1', 'false': '0'}.get(str(value).lower(), str(value))
  try:
    return int(spelled)
  except ValueError:
    raise errors.UserError(f'label {value!r} is not a whole number') from None


def either(row: dict, *names: str):
  """The first of the columns that the row has; versions differ in names."""
  for name in names:
    if name in row:
      return row[name]
  raise KeyError(names[0])
