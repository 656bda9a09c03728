"""The rows of a task, in columns.

Shape suffixes: N examples, C classes.
"""

import dataclasses

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
  """

  ids: np.ndarray
  groups: np.ndarray
  inputs: list
  label_probs_NxC: np.ndarray
  balanced: bool = True

  def __len__(self) -> int:
    return len(self.inputs)

  def take(self, indices) -> 'Examples':
    """Returns the rows at `indices` (integers or a mask), in that order."""
    indices = np.arange(len(self))[indices]
    return dataclasses.replace(
      self,
      ids=self.ids[indices],
      groups=self.groups[indices],
      inputs=[self.inputs[i] for i in indices],
      label_probs_NxC=self.label_probs_NxC[indices],
    )
