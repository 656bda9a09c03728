"""Sharded inference over a whole data set, returned in row order."""

import collections
import functools

import jax
import numpy as np

from w2s_jax import batching
from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead

IN_FLIGHT = 8


@functools.lru_cache(maxsize=None)
def answer_fn(model, mesh):
  """Jitted (params, batch) -> what is kept of each row."""

  def answer(params, batch):
    inputs = [batch[name] for name in model.INPUTS]
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

  plan = batching.sorted_plan(
    rows.lengths_N, batch_size=batch_size, buckets=buckets
  )
  lengths = [length for _, length in plan]
  names = {'tokens', *model.INPUTS}
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(
      answer_fn(model, mesh), mesh, lengths=lengths, place=1
    ) as ask,
  ):
    for index, length in plan:
      batch = batching.assemble(rows, index, length, batch_size=batch_size)
      inputs = {name: batch[name] for name in names}
      placed = sharding.place_batch(mesh, inputs)
      waiting.append((batch['id'], ask(params, placed)))
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
