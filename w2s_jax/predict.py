"""Sharded inference over a whole data set, returned in row order."""

import collections
import functools

import jax
import numpy as np

from w2s_jax import batching
from w2s_jax import sharding

IN_FLIGHT = 8


@functools.lru_cache(maxsize=None)
def answer_fn(model, mesh):
  """Jitted (params, inputs of a batch) -> what is kept of each row."""

  def answer(params, inputs):
    return model.apply({'params': params}, *inputs, method='answer')

  return jax.jit(answer, out_shardings=sharding.replicated(mesh))


def predict(model, params, rows, *, batch_size, buckets, mesh, progress=None):
  """The model's answer to every row, [N, ...], on every process.

  Longest rows first, so that padding is small and memory peaks at once. A few
  batches are in flight while results are read. `batch_size` is raised to what
  divides over the mesh.
  """
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  batch_size = ways * -(-batch_size // ways)
  ask = answer_fn(model, mesh)
  result = None
  waiting = collections.deque()
  done = 0

  def collect():
    nonlocal done, result
    ids_B, answers = waiting.popleft()
    if result is None:
      result = np.zeros((len(rows), *answers.shape[1:]), answers.dtype)
    real_B = ids_B >= 0
    result[ids_B[real_B]] = np.asarray(answers)[real_B]
    done += int(real_B.sum())
    if progress:
      progress.update(done, examples=int(real_B.sum()))

  with jax.set_mesh(mesh):
    for batch in batching.sorted_batches(
      rows, batch_size=batch_size, buckets=buckets
    ):
      ids_B = batch['id']
      inputs = [batch[name] for name in model.INPUTS]
      placed = sharding.place_batch(mesh, inputs)
      waiting.append((ids_B, ask(params, placed)))
      if len(waiting) > IN_FLIGHT:
        collect()
    while waiting:
      collect()
  return result


def predict_inputs(loaded, inputs, *, batch_size=64):
  """Class probabilities [N, C] float32 of a list of inputs, such as texts.

  Args:
    loaded: of checkpoint.load_model; runs where its parameters are.
    inputs: as those of the task; texts are cut at the study's max_length.
  """
  rows, _ = loaded.model.rows(
    loaded.tokenizer,
    inputs,
    None,
    max_length=loaded.config['evaluation']['max_length'],
  )
  place = jax.tree.leaves(loaded.params)[0].sharding
  if isinstance(place, jax.NamedSharding):
    mesh = place.mesh
  else:
    mesh = sharding.make_mesh(devices=list(place.device_set))
  answers = predict(
    loaded.model,
    loaded.params,
    rows,
    batch_size=min(batch_size, len(inputs)),
    buckets=batching.choose_buckets(rows.lengths_N, count=4),
    mesh=mesh,
  )
  return loaded.model.read(loaded.tokenizer, inputs, answers)[0]
