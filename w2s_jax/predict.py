"""Sharded inference over a whole data set, returned in row order."""

import collections
import functools

import jax
import numpy as np

from w2s_jax import batching
from w2s_jax import sharding

IN_FLIGHT = 8


@functools.lru_cache(maxsize=None)
def _probs_fn(model, mesh):
  def probs(params, batch):
    logits_BxC = model.apply(
      {'params': params}, batch['tokens'], batch['length']
    )
    return jax.nn.softmax(logits_BxC)

  return jax.jit(probs, out_shardings=sharding.replicated(mesh))


def predict(model, params, rows, *, batch_size, buckets, mesh, progress=None):
  """Class probabilities [N, C] float32 of every row, on every process.

  Longest rows first, so that padding is small and memory peaks at once. A few
  batches are in flight while results are read.
  """
  probs_fn = _probs_fn(model, mesh)
  result_NxC = np.zeros(rows.label_probs_NxC.shape, np.float32)
  waiting = collections.deque()
  done = 0

  def collect():
    nonlocal done
    ids_B, probs_BxC = waiting.popleft()
    real_B = ids_B >= 0
    result_NxC[ids_B[real_B]] = np.asarray(probs_BxC)[real_B]
    done += int(real_B.sum())
    if progress:
      progress.update(done, examples=int(real_B.sum()))

  with jax.set_mesh(mesh):
    for batch in batching.sorted_batches(
      rows, batch_size=batch_size, buckets=buckets
    ):
      ids_B = batch['id']
      inputs = {k: batch[k] for k in ('tokens', 'length')}
      placed = sharding.place_batch(mesh, inputs)
      waiting.append((ids_B, probs_fn(params, placed)))
      if len(waiting) > IN_FLIGHT:
        collect()
    while waiting:
      collect()
  return result_NxC
