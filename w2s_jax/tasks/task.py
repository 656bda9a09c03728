"""What a task is: the one record that every setting fills in."""

from collections.abc import Callable
import dataclasses

from w2s_jax import errors


class BadRow(errors.UserError):
  """A row that is counted, reported and left out, where a task allows it."""


@dataclasses.dataclass(frozen=True)
class Task:
  """How a data set becomes examples.

  Attributes:
    source: the default source, see sources.py; '' where there is none.
    train: upstream splits behind the weak half, transfer half and validation;
      'a|b' is the first of these names that the source knows.
    test: upstream splits, with labels, behind the test set; () where there are
      none, and the test set is held out of `train`.
    convert: from a row to (inputs, group key, label) triples; a label is a
      class, or a tuple of the probabilities of all classes. Raises KeyError for
      a missing column and ValueError for a bad value.
    question: from inputs to what they ask, less the answer that they hold: as
      many right as wrong answers of each question are kept.
    num_classes: the classes are 0 .. num_classes - 1.
    inputs: their kind, which decides what models can read them.
    balanced: whether splits hold equally many rows of each class.
    measure: further metrics of predictions, (inputs, probs_NxC,
      label_probs_NxC) -> {name: value}.
  """

  source: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  convert: Callable[..., list[tuple]]
  question: Callable[[str], str] | None = None
  num_classes: int = 2
  inputs: str = 'text'
  balanced: bool = True
  measure: Callable[..., dict] | None = None
