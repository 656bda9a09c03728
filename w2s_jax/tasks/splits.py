"""Splits examples by group, for training, weak labels and evaluation.

Splits depend on hashes of ids and groups, never on the order of rows, so the
same data and seed give the same splits on every machine.
"""

import hashlib
import itertools

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import examples as examples_lib


def split(
  examples: examples_lib.Examples, sizes: dict[str, int], *, seed: int
) -> dict[str, np.ndarray]:
  """Splits examples so that no group is shared, class-balanced by default.

  Groups go in hash order to the first split of a fixed size until it is full,
  then to the next. Splits of size -1 share the rest, group by group in turn:
  two of them are the paper's two halves (appendix A.1). A group goes to one
  split only; its rows beyond that split's quota of their class are left out.

  Args:
    examples: rows with distinct ids.
    sizes: number of rows of each split; -1 for an equal share of the rest.
    seed: of the hashes.

  Returns:
    The row numbers of each split, in the hash order of ids.

  Raises:
    UserError: too few rows of a class, or a size below -1; names the config
      field.
  """
  labels = examples.label_probs_NxC.argmax(axis=1)
  num_classes = examples.label_probs_NxC.shape[1]
  if not examples.balanced:  # treated as a single class
    labels, num_classes = np.zeros_like(labels), 1
  groups = _groups_in_hash_order(examples, seed)
  rows = {}
  for name, size in sizes.items():
    if size < -1:
      raise errors.UserError(
        f'data.splits.{name} = {size}: a size, or -1 to share.'
      )
  for name in (name for name, size in sizes.items() if size >= 0):
    extra = np.arange(num_classes) < sizes[name] % num_classes
    quota = sizes[name] // num_classes + extra
    found = _count(labels, itertools.chain(*groups), num_classes)
    if (found < quota).any():
      raise errors.UserError(
        f'data.splits.{name} = {sizes[name]} needs {quota.tolist()} rows of '
        f'the classes; {found.tolist()} are left for it. Make it or one of '
        'the splits before it smaller.'
      )
    rows[name], groups = _fill(groups, labels, quota)
  shared = [name for name, size in sizes.items() if size == -1]
  for turn, name in enumerate(shared):
    share = groups[turn :: len(shared)]
    found = _count(labels, itertools.chain(*share), num_classes)
    rows[name], _ = _fill(share, labels, np.full(num_classes, found.min()))
    if not rows[name]:
      raise errors.UserError(
        f'data.splits.{name} = -1: nothing is left for it in one of the '
        f'classes (rows left: {found.tolist()}).'
      )
  order = {id_: _hash(seed, id_) for id_ in examples.ids.tolist()}
  return {
    name: np.array(
      sorted(rows[name], key=lambda row: order[examples.ids[row]]), dtype=int
    )
    for name in sizes
  }


def check_disjoint(named: dict[str, examples_lib.Examples]) -> None:
  """Raises UserError if two splits share an id or a group."""
  for (name, left), (other, right) in itertools.combinations(named.items(), 2):
    for kind in ('ids', 'groups'):
      shared = np.intersect1d(getattr(left, kind), getattr(right, kind))
      if len(shared):
        row = int(np.flatnonzero(getattr(left, kind) == shared[0])[0])
        raise errors.UserError(
          f'Splits {name!r} and {other!r} share {len(shared)} {kind}, such as '
          f'{shared[0]} ({str(left.inputs[row])[:60]!r}).'
        )


def exclude_groups(
  examples: examples_lib.Examples, groups
) -> examples_lib.Examples:
  """Returns the examples that are in none of `groups`."""
  return examples.take(~np.isin(examples.groups, groups))


def _groups_in_hash_order(examples, seed: int) -> list[list[int]]:
  """Returns row numbers by group; both in hash order."""
  ids, groups = examples.ids.tolist(), examples.groups.tolist()
  keys = [
    (_hash(seed, group), _hash(seed, id_))
    for group, id_ in zip(groups, ids, strict=True)
  ]
  rows = sorted(range(len(keys)), key=keys.__getitem__)
  return [
    list(group) for _, group in itertools.groupby(rows, lambda row: groups[row])
  ]


def _fill(groups, labels, quota) -> tuple[list[int], list[list[int]]]:
  """Takes rows from the groups until the quota of each class is met.

  Returns:
    The rows taken, and the groups that none was taken from.
  """
  wanted = quota.copy()
  rows, left = [], []
  for group in groups:
    taken = []
    for row in group:
      if wanted[labels[row]]:
        wanted[labels[row]] -= 1
        taken.append(row)
    rows += taken
    if not taken:
      left.append(group)
  return rows, left


def _count(labels, rows, num_classes: int) -> np.ndarray:
  return np.bincount(labels[list(rows)], minlength=num_classes)


def _hash(seed: int, key: str) -> str:
  return hashlib.sha256(f'{seed}/{key}'.encode()).hexdigest()
