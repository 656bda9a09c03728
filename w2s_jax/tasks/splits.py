"""Splits examples by group, for training, weak labels and evaluation.

Splits depend on hashes of ids and groups, never on the order of rows, so the
same data and seed give the same splits on every machine.
"""

import hashlib
import itertools

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import conversion
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import workers

_CHUNK = 65_536  # hashes that are texts at a time
_MANY = 1_000_000  # keys for which it takes less time to start processes


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
  labels, num_classes = _classes(examples)
  rows_N, group_N = _in_hash_order(examples, seed)
  chosen = {}
  for name, size in sizes.items():
    if size < -1:
      raise errors.UserError(
        f'data.splits.{name} = {size}: a size, or -1 to share.'
      )
  for name in (name for name, size in sizes.items() if size >= 0):
    extra = np.arange(num_classes) < sizes[name] % num_classes
    quota = sizes[name] // num_classes + extra
    found = np.bincount(labels[rows_N], minlength=num_classes)
    if (found < quota).any():
      raise errors.UserError(
        f'data.splits.{name} = {sizes[name]} needs {quota.tolist()} rows of '
        f'the classes; {found.tolist()} are left for it. Make it or one of '
        'the splits before it smaller.'
      )
    taken = _first_of_each_class(labels[rows_N], quota)
    chosen[name] = rows_N[taken]
    left_N = ~np.isin(group_N, group_N[taken])
    rows_N, group_N = rows_N[left_N], group_N[left_N]
  shared = [name for name, size in sizes.items() if size == -1]
  _, group_N = np.unique(group_N, return_inverse=True)  # 0, 1, ... of the rest
  for turn, name in enumerate(shared):
    share_N = rows_N[group_N % len(shared) == turn]
    found = np.bincount(labels[share_N], minlength=num_classes)
    quota = np.full(num_classes, found.min())
    chosen[name] = share_N[_first_of_each_class(labels[share_N], quota)]
    if not len(chosen[name]):
      raise errors.UserError(
        f'data.splits.{name} = -1: nothing is left for it in one of the '
        f'classes (rows left: {found.tolist()}).'
      )
  return {
    name: chosen[name][np.argsort(_hashes(seed, examples.ids[chosen[name]]))]
    for name in sizes
  }


def check_disjoint(named: dict[str, examples_lib.Examples]) -> None:
  """Raises UserError if two splits share an id or a group."""
  kinds = 'ids', 'groups'
  keys = {
    (name, kind): set(getattr(examples, kind).tolist())
    for name, examples in named.items()
    for kind in kinds
  }
  for name, other in itertools.combinations(named, 2):
    for kind in kinds:
      shared = keys[name, kind] & keys[other, kind]
      if shared:
        first = min(shared)
        row = getattr(named[name], kind).tolist().index(first)
        raise errors.UserError(
          f'Splits {name!r} and {other!r} share {len(shared)} {kind}, such as '
          f'{first} ({str(named[name].inputs[row])[:60]!r}).'
        )


def exclude_groups(
  examples: examples_lib.Examples, groups
) -> examples_lib.Examples:
  """Returns the examples that are in none of `groups`."""
  return examples.take(~np.isin(examples.groups, groups))


def _in_hash_order(examples, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns row numbers by group, both in hash order, and the groups.

  These are 0 for all rows of the first group, 1 for those of the second, ...
  """
  keys, group_N, size_G = np.unique(
    examples.groups, return_inverse=True, return_counts=True
  )
  place_G = np.empty(len(keys), np.int64)
  place_G[np.argsort(_hashes(seed, keys))] = np.arange(len(keys))
  several_N = size_G[group_N] > 1  # in most groups of a large file there is one
  within_N = np.zeros(len(examples), np.uint64)
  within_N[several_N] = _hashes(seed, examples.ids[several_N])
  place_N = place_G[group_N]
  rows_N = np.lexsort((within_N, place_N))
  return rows_N, place_N[rows_N]


def _classes(examples) -> tuple[np.ndarray, int]:
  """Returns the class of each row and their number; one if not balanced."""
  if not examples.balanced:
    return np.zeros(len(examples), np.int8), 1
  label_probs_NxC = examples.label_probs_NxC
  return label_probs_NxC.argmax(axis=1), label_probs_NxC.shape[1]


def _first_of_each_class(labels_N, quota) -> np.ndarray:
  """Returns the places of the first rows of each class, up to its quota."""
  return np.concatenate(
    [np.flatnonzero(labels_N == c)[:count] for c, count in enumerate(quota)]
  )


def _hashes(seed: int, keys: np.ndarray) -> np.ndarray:
  """Returns the first 64 bits of a hash of each id or group.

  Args:
    keys: texts, or uint64 for texts of the form of conversion.hash_of.
  """
  parts = None
  if len(keys) > _MANY and (count := workers.count()) > 1:
    shares = np.array_split(keys, count)
    parts = workers.run(_hash, [(seed, share) for share in shares])
  return np.concatenate(parts or [_hash(seed, keys)])


def _hash(seed: int, keys: np.ndarray) -> np.ndarray:
  prefix, digests = f'{seed}/', bytearray()
  for start in range(0, len(keys), _CHUNK):
    chunk = keys[start : start + _CHUNK]
    is_number = chunk.dtype.kind == 'u'
    texts = conversion.texts_of(chunk) if is_number else chunk.tolist()
    for text in texts:
      digests += hashlib.sha256((prefix + text).encode()).digest()[:8]
  return np.frombuffer(digests, '>u8').astype(np.uint64)
