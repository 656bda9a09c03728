"""Digests of arrays that processes hold in shards."""

import jax
from jax.experimental import multihost_utils
import numpy as np

from w2s_jax import sharding
from w2s_jax.runtime import files


def digest(tree):
  """Hash of the bits of arrays, whatever mesh or files hold them.

  Sums, modulo 2^64, of the words of each array and of its words times their
  index in each dimension: they add up over shards, one flipped bit changes the
  first, rows that change places another. All processes must call it.
  """
  sums = {}
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    each = [_sums(*shard) for shard in own_shards(x)]
    zero = np.zeros(1 + np.ndim(x), np.uint64)  # some processes hold none of it
    sums[sharding.path_string(path)] = sum(each, zero)
  if jax.process_count() > 1:
    # In halves: without x64 JAX has no 64-bit numbers.
    halves = {k: v.view(np.uint32) for k, v in sums.items()}
    halves_P = multihost_utils.process_allgather(halves)
    sums = {
      k: np.asarray(v, np.uint32).view(np.uint64).sum(0)
      for k, v in halves_P.items()
    }
  return files.sha256(files.to_json({k: v.tolist() for k, v in sums.items()}))


def own_shards(x):
  """[(array, its start in each dimension)]; each element in one process."""
  if not isinstance(x, jax.Array):
    return [(np.asarray(x), (0,) * np.ndim(x))]
  return [
    (np.asarray(s.data), tuple(part.start or 0 for part in s.index))
    for s in x.addressable_shards
    if s.replica_id == 0
  ]


def _sums(array, starts):
  words = np.ascontiguousarray(array).view(f'u{array.itemsize}')
  words = words.reshape(array.shape).astype(np.uint64)
  sums = [words.sum()]
  for axis, start in enumerate(starts):
    others = tuple(i for i in range(words.ndim) if i != axis)
    index = np.arange(start, start + words.shape[axis], dtype=np.uint64)
    sums.append((words.sum(axis=others) * index).sum())
  return np.array(sums, np.uint64)
