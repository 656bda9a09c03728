"""Sharded inference over a whole data set, returned in row order."""

import collections
import functools
import time

import jax
import numpy as np

from w2s_jax import batching
from w2s_jax import sharding
from w2s_jax.models import stacking
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import files
from w2s_jax.runtime import preemption
from w2s_jax.runtime import workdir

IN_FLIGHT = 8
SECONDS_A_SHARD = 60


@functools.lru_cache(maxsize=None)
def answer_fn(model, mesh):
  """Jitted (params, batch) -> the output that is kept of each row."""

  def answer(params, batch):
    inputs = [batch[name] for name in model.INPUTS]
    return model.apply({'params': params}, *inputs, method='answer')

  return jax.jit(answer, out_shardings=sharding.replicated(mesh))


def predict(
  model,
  params,
  rows,
  *,
  batch_size,
  buckets,
  mesh,
  progress=None,
  shards=None,
):
  """The model's output for every row, [N, ...], on every process.

  Longest rows first, so that padding is small and memory peaks at once. A few
  batches are in flight while results are read. `batch_size` is raised to what
  divides over the mesh.

  Args:
    shards: folder where outputs are kept every SECONDS_A_SHARD and when a stop
      is requested; the next call with it goes on from there. None for none.

  Raises:
    preemption.Preempted: a stop was requested; what was computed is kept.
  """
  if model.DECODES:  # its cache has layers apart
    params = stacking.unstack(params)
  else:
    params = stacking.stack(params, model.config)
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  batch_size = ways * -(-batch_size // ways)
  plan = batching.sorted_plan(
    rows.lengths_N, batch_size=batch_size, buckets=buckets
  )
  outputs = _Outputs(len(rows), shards, progress)
  plan = [x for x in plan if not outputs.has(x[0])]
  names = {'tokens', *model.INPUTS}
  waiting = collections.deque()
  with (
    jax.set_mesh(mesh),
    compile_ahead.Programs(
      answer_fn(model, mesh),
      mesh,
      lengths=[length for _, length in plan],
      place=1,
    ) as answer,
  ):

    def read_first():
      ids_B, outputs_Bx, waits = waiting.popleft()
      outputs.add(
        ids_B,
        outputs_Bx,
        waited=answer.waits > waits,
        compiling=answer.num_compiling(),
      )

    for index, length in plan:
      if preemption.stop_requested():
        while waiting:
          read_first()
        outputs.save_shard()
        raise preemption.Preempted(
          f'stopped after {outputs.done} of {len(rows)} predictions'
        )
      batch = batching.assemble(rows, index, length, batch_size=batch_size)
      inputs = {name: batch[name] for name in names}
      placed = sharding.place_batch(mesh, inputs)
      outcome = answer(params, placed)
      waiting.append((batch['id'], outcome, answer.waits))
      if len(waiting) > IN_FLIGHT:
        read_first()
    while waiting:
      read_first()
  return outputs.array_Nx


class _Outputs:
  """Outputs of all rows in their order; those of earlier runs from shards."""

  def __init__(self, num_rows, shards, progress):
    self._num_rows, self._shards, self._progress = num_rows, shards, progress
    self.array_Nx = None
    self._known_N = np.zeros(num_rows, bool)
    self._unsaved = []  # rows since the last shard
    self._saved = time.monotonic()
    self._num_shards = 0
    if shards is not None and workdir.agreed(shards.exists()):
      for path in sorted(shards.glob('*.npz')):
        self._num_shards += 1
        try:
          arrays = files.load_arrays(path)
        except files.DamagedError:
          continue  # its rows are computed again
        self._put(arrays['rows'], arrays['outputs'])

  @property
  def done(self):
    return int(self._known_N.sum())

  def has(self, index):
    return self._known_N[index].all()

  def add(self, ids_B, outputs_Bx, **compilation):
    real_B = ids_B >= 0
    self._put(ids_B[real_B], np.asarray(outputs_Bx)[real_B])
    self._unsaved.append(ids_B[real_B])
    if self._progress:
      self._progress.update(
        self.done, examples=int(real_B.sum()), **compilation
      )
    if time.monotonic() - self._saved > SECONDS_A_SHARD:
      self.save_shard()

  def _put(self, rows, outputs):
    if self.array_Nx is None:
      shape = self._num_rows, *outputs.shape[1:]
      self.array_Nx = np.zeros(shape, outputs.dtype)
    self.array_Nx[rows] = outputs
    self._known_N[rows] = True

  def save_shard(self):
    if self._shards is None or not self._unsaved:
      return
    rows = np.concatenate(self._unsaved)
    self._unsaved, self._saved = [], time.monotonic()
    if jax.process_index() == 0:
      files.save_arrays(
        self._shards / f'{self._num_shards:05}.npz',
        rows=rows,
        outputs=self.array_Nx[rows],
      )
    self._num_shards += 1


def predict_inputs(loaded, inputs, *, batch_size=64):
  """Class probabilities [N, C] float32 of a list of inputs, such as texts.

  Args:
    loaded: of checkpoint.load_model; runs where its parameters are.
    inputs: as those of the task; texts are truncated at the study's max_length.
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
