"""The record that defines a task."""

from collections.abc import Callable
import dataclasses

from w2s_jax import errors


class BadRow(errors.UserError):
  """A row that is counted, reported and left out, such as an empty text."""


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a study of a task, unless its config or command line sets others.

  Attributes:
    max_length: tokens of a text, or of each text of a pair.
    test, transfer, validation: rows of these splits.
    weak: rows of the supervisor's, or as many as `transfer` if that is less.
  """

  max_length: int
  test: int
  transfer: int
  weak: int = 1000
  validation: int = 500

  @property
  def splits(self) -> dict[str, int]:
    """The fields of `data.splits` of a config."""
    return {
      'weak': min(self.weak, self.transfer),
      'transfer': self.transfer,
      'validation': self.validation,
      'test': self.test,
    }


@dataclasses.dataclass(frozen=True)
class Task:
  """Defines how rows of a data set become examples.

  Attributes:
    source: the default source, see sources.py; '' where there is none.
    train: upstream splits that the weak half, the transfer set and the
      validation set are drawn from; 'a|b' is the first of these names that the
      source has.
    test: upstream splits, with labels, that the test set is drawn from; ()
      where there are none, and the test set is held out of `train`.
    convert: from a row to (inputs, group key, label) triples; a label is a
      class, or a tuple of the probabilities of all classes. Raises KeyError for
      a missing column and UserError for a bad value. Its further arguments are
      the fields of `data.select`.
    screen: None, or a cheap first reading of a row, with the same further
      arguments, for tasks whose `convert` is slow and makes one example of a
      row: `convert` then sees only rows that a split holds. Such tasks are not
      balanced and have no test split. Returns (inputs, group key), those of
      `convert` for any row that is not bad, or None where the row is not
      selected; may raise BadRow already, as `convert` would.
    check_select: raises UserError for values of these that select no row.
    question: from inputs to their question without the candidate answer: as
      many right as wrong answers of each question are kept.
    num_classes: the classes are 0 .. num_classes - 1.
    inputs: their kind, which decides which models can read them.
    balanced: whether splits hold equally many rows of each class.
    measure: returns further metrics of predictions, (inputs, probs_NxC,
      label_probs_NxC) -> {name: value}.
    asks: what the classes answer, for tables; of a binary task, the question
      to which class 1 is yes.
    sizes: of its studies; None where the config alone decides.
  """

  source: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  convert: Callable[..., list[tuple]]
  screen: Callable[..., tuple | None] | None = None
  check_select: Callable[..., None] | None = None
  question: Callable[[str], str] | None = None
  num_classes: int = 2
  inputs: str = 'text'
  balanced: bool = True
  measure: Callable[..., dict] | None = None
  asks: str = ''
  sizes: Sizes | None = None
