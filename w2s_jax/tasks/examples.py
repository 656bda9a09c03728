"""The rows of a task, in columns.

Shape suffixes: N examples, C classes.
"""

import dataclasses
import functools
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Examples:
  """N rows of a task, as columns.

  Attributes:
    ids: [N] str, hashes of the inputs: stable across runs, orders and sources.
    groups: [N] str, hashes of what related rows share; a group is in one split.
    inputs: N texts, N chess.Position or N reward.Pair.
    label_probs_NxC: [N, C] float32 ground truth: one-hot, or shares of votes.
    balanced: whether splits hold equally many rows of each class.
    fields: None, or N JSON texts: the short columns of the rows that they are
      made of, such as a puzzle's rating, for reports by such a field.
    origin: how a split was drawn, but for the seed of the study; JSON.
  """

  ids: np.ndarray
  groups: np.ndarray
  inputs: list
  label_probs_NxC: np.ndarray | None
  balanced: bool = True
  fields: list | None = None
  origin: dict | None = None

  def __len__(self) -> int:
    return len(self.inputs)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of ids and labels, if any; the same for any order of the rows."""
    order = np.argsort(self.ids)
    content = '\n'.join(self.ids[order].tolist()).encode()
    if self.label_probs_NxC is not None:
      content += self.label_probs_NxC[order].astype('<f4').tobytes()
    return hashlib.sha256(content).hexdigest()[:16]

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
