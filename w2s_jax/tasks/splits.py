"""Splits examples by group, for training, weak labels and evaluation.

Splits depend on hashes of ids and groups, never on the order of rows, so the
same data and seed give the same splits on every machine.
"""

import dataclasses
import hashlib
import itertools

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import conversion
from w2s_jax.tasks import examples as examples_lib

_CHUNK = 65_536  # hashes that are texts at a time


def split(
  examples: examples_lib.Examples, sizes: dict[str, int], *, seed: int
) -> dict[str, np.ndarray]:
  """Splits examples so that no group is shared, class-balanced by default.

  Groups go in hash order to the first split of a fixed size until it is full,
  then to the next. Splits of size -1 share the rest, group by group in turn:
  two of them are the paper's two halves (appendix A.1). A group goes to one
  split only; its rows beyond that split's quota of their class are left out.

  Args:
    examples: rows with distinct ids; Candidates, too.
    sizes: number of rows of each split; -1 for an equal share of the rest.
    seed: of the hashes.

  Returns:
    The row numbers of each split, in the hash order of ids.

  Raises:
    UserError: too few rows of a class, or a size below -1; names the config
      field.
  """
  if examples.balanced:
    labels = examples.label_probs_NxC.argmax(axis=1)
    num_classes = examples.label_probs_NxC.shape[1]
  else:  # treated as a single class
    labels, num_classes = np.zeros(len(examples), int), 1
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
    found = _count(labels, groups, num_classes)
    if (found < quota).any():
      raise errors.UserError(
        f'data.splits.{name} = {sizes[name]} needs {quota.tolist()} rows of '
        f'the classes; {found.tolist()} are left for it. Make it or one of '
        'the splits before it smaller.'
      )
    rows[name], groups = _fill(groups, labels, quota)
  shared = [name for name, size in sizes.items() if size == -1]
  for turn, name in enumerate(shared):
    share = groups.take(slice(turn, None, len(shared)))
    found = _count(labels, share, num_classes)
    rows[name], _ = _fill(share, labels, np.full(num_classes, found.min()))
    if not rows[name]:
      raise errors.UserError(
        f'data.splits.{name} = -1: nothing is left for it in one of the '
        f'classes (rows left: {found.tolist()}).'
      )
  return {
    name: np.array(_in_hash_order(rows[name], examples.ids, seed), dtype=int)
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


@dataclasses.dataclass(frozen=True)
class _Groups:
  """Groups of rows: those of group g are rows_N[starts_G[g] : ends_G[g]]."""

  rows_N: np.ndarray
  starts_G: np.ndarray
  ends_G: np.ndarray
  ids_N: np.ndarray  # of all rows of the data
  seed: int

  def __iter__(self):
    """Yields the row numbers of each group, in hash order."""
    for start, end in zip(self.starts_G, self.ends_G, strict=True):
      yield _in_hash_order(self.rows_N[start:end], self.ids_N, self.seed)

  def take(self, chosen) -> '_Groups':
    return dataclasses.replace(
      self, starts_G=self.starts_G[chosen], ends_G=self.ends_G[chosen]
    )


def _groups_in_hash_order(examples, seed: int) -> _Groups:
  keys, group_N = np.unique(examples.groups, return_inverse=True)
  place_G = np.empty(len(keys), int)
  place_G[np.argsort(_hashes(seed, keys), kind='stable')] = np.arange(len(keys))
  place_N = place_G[group_N]
  ends_G = np.cumsum(np.bincount(place_N, minlength=len(keys)))
  starts_G = np.append(0, ends_G[:-1])
  rows_N = np.argsort(place_N, kind='stable')
  return _Groups(rows_N, starts_G, ends_G, examples.ids, seed)


def _fill(groups: _Groups, labels, quota) -> tuple[list[int], _Groups]:
  """Takes rows from the groups until the quota of each class is met.

  Returns:
    The rows taken, and the groups that none was taken from.
  """
  wanted, missing = quota.copy(), int(quota.sum())
  rows, left = [], np.ones(len(groups.starts_G), bool)
  for place, group in enumerate(groups if missing else ()):
    for row in group:
      if wanted[labels[row]]:
        wanted[labels[row]] -= 1
        missing -= 1
        rows.append(row)
        left[place] = False
    if not missing:
      break
  return rows, groups.take(left)


def _count(labels, groups: _Groups, num_classes: int) -> np.ndarray:
  """Returns the number of rows of each class in some groups."""
  change = np.zeros(len(groups.rows_N) + 1, int)
  change[groups.starts_G] += 1  # no two groups begin at one place, or end
  change[groups.ends_G] -= 1
  within = np.cumsum(change[:-1]) > 0
  return np.bincount(labels[groups.rows_N[within]], minlength=num_classes)


def _in_hash_order(rows, ids_N, seed: int) -> list[int]:
  """Returns row numbers in the order of the hashes of their ids."""
  if len(rows) < 2:
    return np.asarray(rows, int).tolist()
  order = np.argsort(_hashes(seed, ids_N[rows]), kind='stable')
  return np.asarray(rows)[order].tolist()


def _hashes(seed: int, keys: np.ndarray) -> np.ndarray:
  """Returns the first 64 bits of a hash of each id or group.

  Args:
    keys: texts, or uint64 for texts of the form of conversion.hash_of.
  """
  prefix, digests = f'{seed}/', bytearray()
  for start in range(0, len(keys), _CHUNK):
    chunk = keys[start : start + _CHUNK]
    is_number = chunk.dtype.kind == 'u'
    texts = conversion.texts_of(chunk) if is_number else chunk.tolist()
    for text in texts:
      digests += hashlib.sha256((prefix + text).encode()).digest()[:8]
  return np.frombuffer(digests, '>u8').astype(np.uint64)
