"""The rows of a task, in columns.

Shape suffixes: N examples, C classes.
"""

import dataclasses
import functools
import hashlib

import numpy as np

_CHUNK = 4096  # labels that are dense at a time


class OneHot:
  """N classes as class probabilities [N, C]; one-hot rows are made on access.

  It is read as an array is: row by row, by `argmax`, or through `np.asarray`.
  Many rows at once, by their indices or a mask, stay a OneHot.
  """

  dtype = np.dtype(np.float32)
  ndim = 2

  def __init__(self, classes_N, num_classes):
    self.shape = len(classes_N), num_classes
    self._classes_N = np.asarray(classes_N, np.int32)

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, index):
    taken = self._classes_N[index]
    if np.ndim(taken):
      return OneHot(taken, self.shape[1])
    return np.asarray(OneHot([taken], self.shape[1]))[0]

  def __array__(self, dtype=None, copy=None):
    del copy  # it is always one
    dense_NxC = np.zeros(self.shape, dtype or self.dtype)
    dense_NxC[np.arange(len(self)), self._classes_N] = 1
    return dense_NxC

  def argmax(self, axis, out=None):
    """The classes, as `argmax` of the one-hot rows."""
    assert axis in (1, -1) and out is None
    return self._classes_N.astype(np.int64)


def label_probs(labels: list, num_classes: int):
  """Returns class probabilities [N, C] of labels: OneHot if these save memory.

  Args:
    labels: of each row a class, or a tuple of the probabilities of all.
  """
  one_hot = np.eye(num_classes, dtype=np.float32)
  if num_classes > 2 and not any(isinstance(x, tuple) for x in labels):
    return OneHot(labels, num_classes)
  return np.array(
    [x if isinstance(x, tuple) else one_hot[x] for x in labels], np.float32
  )


@dataclasses.dataclass(frozen=True)
class Examples:
  """N rows of a task, as columns.

  Attributes:
    ids: [N] str, hashes of the inputs: stable across runs, orders and sources.
    groups: [N] str, hashes of what related rows share; a group is in one split.
    inputs: N texts, N chess.Position or N reward.Pair.
    label_probs_NxC: [N, C] float32 ground truth: one-hot, or shares of votes;
      an array, or OneHot where there are many classes.
    balanced: whether splits hold equally many rows of each class.
    fields: None, or N JSON texts: the short columns of the rows that they are
      made of, such as a puzzle's rating, for reports by such a field.
    origin: how a split was drawn, but for the seed of the study; JSON.
  """

  ids: np.ndarray
  groups: np.ndarray
  inputs: list
  label_probs_NxC: np.ndarray | OneHot | None
  balanced: bool = True
  fields: list | None = None
  origin: dict | None = None

  def __len__(self) -> int:
    return len(self.inputs)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of ids and labels, if any; the same for any order of the rows."""
    order = np.argsort(self.ids)
    digest = hashlib.sha256('\n'.join(self.ids[order].tolist()).encode())
    if self.label_probs_NxC is not None:
      for start in range(0, len(order), _CHUNK):
        chunk = self.label_probs_NxC[order[start : start + _CHUNK]]
        digest.update(np.asarray(chunk, '<f4').tobytes())
    return digest.hexdigest()[:16]

  def take(self, indices) -> 'Examples':
    """Returns the rows at `indices` (integers or a mask), in that order."""
    indices = np.arange(len(self))[indices]
    labels, fields = self.label_probs_NxC, self.fields
    return dataclasses.replace(
      self,
      ids=self.ids[indices],
      groups=self.groups[indices],
      inputs=[self.inputs[i] for i in indices],
      label_probs_NxC=None if labels is None else labels[indices],
      fields=None if fields is None else [fields[i] for i in indices],
    )

  def without_labels(self) -> 'Examples':
    """The same rows as a student may see them: fields may hold the truth."""
    return self._unlabelled

  @functools.cached_property
  def _unlabelled(self) -> 'Examples':
    # One object, whose fingerprint is computed once for all stages.
    return dataclasses.replace(self, label_probs_NxC=None, fields=None)


def union(parts: list[Examples]) -> Examples:
  """All rows of several Examples, each once and without labels."""
  inputs, origins = {}, []
  for part in parts:
    inputs.update(zip(part.ids.tolist(), part.inputs, strict=True))
    if part.origin not in origins:
      origins.append(part.origin)
  ids = np.array(list(inputs))
  return Examples(
    ids=ids,
    groups=ids,
    inputs=list(inputs.values()),
    label_probs_NxC=None,
    origin={'union': origins},
  )
