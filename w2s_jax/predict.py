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
  batches are in flight while results are read. `batch_size` is raised to what
  divides over the mesh.
  """
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  batch_size = ways * -(-batch_size // ways)
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


def predict_texts(loaded, texts, *, batch_size=64):
  """Class probabilities [N, C] float32 of a list of texts.

  Args:
    loaded: of checkpoint.load_model; runs where its parameters are.
    texts: cut at the max_length of the study, as all its rows were.
  """
  tokens, _ = loaded.tokenizer.encode(
    texts, max_length=loaded.config['evaluation']['max_length']
  )
  unlabelled_NxC = np.zeros((len(texts), loaded.model.num_classes), np.float32)
  rows = batching.TokenRows(tokens, unlabelled_NxC)
  place = jax.tree.leaves(loaded.params)[0].sharding
  if isinstance(place, jax.NamedSharding):
    mesh = place.mesh
  else:
    mesh = sharding.make_mesh(devices=list(place.device_set))
  return predict(
    loaded.model,
    loaded.params,
    rows,
    batch_size=min(batch_size, len(texts)),
    buckets=batching.choose_buckets(rows.lengths_N, count=4),
    mesh=mesh,
  )
