import itertools

import jax
import numpy as np
import pytest

from w2s_jax import predict
from w2s_jax import sharding
from w2s_jax.runtime import files
from w2s_jax.runtime import preemption

import tiny

# Ragged over the buckets, and over batches of 8.
ROWS = tiny.rows(21, lengths=(1, 7, 8, 9, 16))
BUCKETS = (8, 16)


@pytest.fixture(scope='module')
def one_by_one():
  """Probabilities of each row alone, at its own length, unsorted."""
  model = tiny.network()
  params = tiny.random_params(model, tiny.one_device(), head=1.0)
  apply = jax.jit(model.apply)
  logits_NxC = np.concatenate(
    [
      apply({'params': params}, tokens[None], np.array([len(tokens)]))
      for tokens in ROWS.tokens
    ]
  )
  return np.asarray(jax.nn.softmax(logits_NxC))


@pytest.mark.parametrize('mesh', [(1, 1, 1), (8, 1, 1), (2, 2, 2)], ids=str)
def test_equals_one_row_at_a_time_in_row_order(mesh, one_by_one):
  data, fsdp, tensor = mesh
  devices = jax.devices()[: data * fsdp * tensor]
  mesh = sharding.make_mesh(
    data=data, fsdp=fsdp, tensor=tensor, devices=devices
  )
  model = tiny.network()
  seen = []

  class Progress:
    def update(self, done, *, examples, waited, compiling):
      del waited, compiling
      seen.append((done, examples))

  probs_NxC = predict.predict(
    model,
    tiny.random_params(model, mesh, head=1.0),
    ROWS,
    batch_size=8,
    buckets=BUCKETS,
    mesh=mesh,
    progress=Progress(),
  )
  assert probs_NxC.dtype == np.float32
  np.testing.assert_allclose(probs_NxC, one_by_one, atol=1e-5)
  assert np.ptp(one_by_one[:, 0]) > 1e-3, 'rows must differ for this to tell'
  assert seen == [(8, 8), (16, 8), (21, 5)]


def test_more_batches_than_are_in_flight(one_by_one):
  mesh = tiny.one_device()
  model = tiny.network()
  params = tiny.random_params(model, mesh, head=1.0)
  probs_NxC = predict.predict(
    model, params, ROWS, batch_size=1, buckets=BUCKETS, mesh=mesh
  )
  np.testing.assert_allclose(probs_NxC, one_by_one, atol=1e-5)


def test_stopped_again_and_again_it_gets_on(tmp_path, monkeypatch):
  """Outputs before a stop are kept in shards and not computed again."""
  mesh, model = tiny.one_device(), tiny.network()
  params = tiny.random_params(model, mesh, head=1.0)
  rows = tiny.rows(40)
  settings = dict(batch_size=8, buckets=(8, 16), mesh=mesh)
  whole = predict.predict(model, params, rows, **settings)
  shards = tmp_path / 'shards'
  calls, batches = itertools.count(1), []
  place_batch = sharding.place_batch

  def counted(mesh, batch):
    batches.append(batch)
    return place_batch(mesh, batch)

  monkeypatch.setattr(predict.sharding, 'place_batch', counted)
  monkeypatch.setattr(  # at each third call
    predict.preemption, 'stop_requested', lambda: next(calls) % 3 == 0
  )
  for stops in (1, 2):
    with pytest.raises(preemption.Preempted, match=f'{16 * stops} of 40'):
      predict.predict(model, params, rows, shards=shards, **settings)
  found = predict.predict(model, params, rows, shards=shards, **settings)
  assert len(batches) == 5  # each once
  np.testing.assert_array_equal(found, whole)


def test_a_damaged_shard_is_computed_again(tmp_path):
  mesh, model = tiny.one_device(), tiny.network()
  params = tiny.random_params(model, mesh, head=1.0)
  rows = tiny.rows(16)
  settings = dict(batch_size=8, buckets=(16,), mesh=mesh)
  whole = predict.predict(model, params, rows, **settings)
  files.save_arrays(tmp_path / '00000.npz', rows=np.arange(16), outputs=whole)
  content = bytearray((tmp_path / '00000.npz').read_bytes())
  content[60] ^= 1
  (tmp_path / '00000.npz').write_bytes(bytes(content))
  found = predict.predict(model, params, rows, shards=tmp_path, **settings)
  np.testing.assert_array_equal(found, whole)
