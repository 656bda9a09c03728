"""Training on meshes of eight devices against one, and placement of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import losses
from w2s_jax import sharding

import tiny

P = jax.sharding.PartitionSpec
MESHES = [
  pytest.param((8, 1, 1), marks=pytest.mark.slow),
  (2, 4, 1),
  (2, 2, 2),
]
LOGCONF = tiny.RECIPE._replace(
  loss=losses.logconf, loss_args=(('alpha_max', 0.5), ('warmup', 0.2))
)


def make(data, fsdp, tensor):
  return sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor)


def fit(folder, mesh, **settings):
  """Returns parameters and losses of 9 steps; 1 of 3 batches has padding."""
  params, metrics = tiny.fit(
    folder,
    mesh=mesh,
    examples=tiny.rows(40),
    batch_size=16,
    epochs=3,
    recipe=LOGCONF,
    **settings,
  )
  return params, [line['train/loss'] for line in metrics]


@pytest.fixture(scope='module')
def one_device_losses(tmp_path_factory):
  folder = tmp_path_factory.mktemp('one')
  _, losses = fit(folder, tiny.one_device())
  assert len(losses) == 9 and np.ptp(losses) > 1e-2
  return losses


@pytest.mark.parametrize('sizes', MESHES, ids=str)
def test_training_on_a_mesh_matches_one_device(
  sizes, one_device_losses, tmp_path, capfd
):
  mesh = make(*sizes)
  params, losses = fit(tmp_path, mesh)
  np.testing.assert_allclose(losses, one_device_losses, atol=1e-5)
  assert 'nvoluntary' not in capfd.readouterr().err, 'rematerialization'
  _, fsdp, tensor = sizes
  up_DxF = params['transformer']['layer_0']['mlp']['up']['kernel']
  shapes = {shard.data.shape for shard in up_DxF.addressable_shards}
  assert shapes == {(32 // fsdp, 64 // tensor)}


def test_involuntary_rematerialization_is_reported(capfd):
  mesh = make(2, 4, 1)

  def reshard(x):
    tiles = jax.NamedSharding(mesh, P('fsdp', 'data'))
    columns = jax.NamedSharding(mesh, P(None, 'data'))
    x = jnp.sin(jax.lax.with_sharding_constraint(x, tiles))
    return jax.lax.with_sharding_constraint(x.reshape(256, 16), columns)

  jax.jit(reshard).lower(jnp.ones((64, 64))).compile()
  if 'nvoluntary full' not in capfd.readouterr().err:
    pytest.skip('this XLA does not warn; the test above cannot detect it')


def test_resumes_on_another_mesh(one_device_losses, tmp_path):
  settings = dict(checkpoint_every=2)
  with pytest.raises(tiny.MachineLost):
    stopping = tiny.stopping_logger(at_step=6)
    fit(tmp_path, make(2, 4, 1), logger_class=stopping, **settings)
  kept = (tmp_path / 'metrics.jsonl').read_text().splitlines()[:6]
  params, losses = fit(tmp_path, make(2, 2, 2), **settings)
  np.testing.assert_allclose(losses, one_device_losses, atol=1e-5)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert lines[:6] == kept, 'the steps before the checkpoint ran again'
  kernel = params['transformer']['layer_0']['mlp']['up']['kernel']
  assert kernel.sharding.mesh.shape == {'data': 2, 'fsdp': 2, 'tensor': 2}


def test_optimizer_moments_are_sharded_like_their_parameters():
  mesh = make(2, 2, 2)
  params = {'mlp': {'up': {'kernel': jnp.zeros((8, 8)), 'bias': jnp.zeros(8)}}}
  state = {'params': params, 'opt_state': ({'mu': params}, jnp.zeros(()))}
  placed = sharding.tree_sharding(mesh, state)
  moment = placed['opt_state'][0]['mu']['mlp']['up']
  assert moment['kernel'].spec == P('fsdp', 'tensor')
  assert moment['bias'].spec == P()
  assert moment['kernel'] == placed['params']['mlp']['up']['kernel']


def test_free_mesh_axis_takes_the_remaining_devices():
  assert make(-1, 2, 2).shape == {'data': 2, 'fsdp': 2, 'tensor': 2}
  assert make(2, -1, 1).shape == {'data': 2, 'fsdp': 4, 'tensor': 1}


@pytest.mark.parametrize(
  'sizes', [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1), (-1, -2, -4)]
)
def test_mesh_errors_name_the_fields(sizes):
  with pytest.raises(ValueError, match='mesh.data=.*mesh.fsdp=.*8 devices'):
    make(*sizes)


def test_divisibility_errors_name_the_fields():
  mesh = make(2, 2, 2)
  with pytest.raises(ValueError, match='mesh.fsdp=2.*mlp/up/kernel.*9'):
    sharding.parameter_sharding(mesh, 'layer_0/mlp/up/kernel', (9, 8))
  sizes = dict(
    batch_size=8, accumulate=1, num_heads=(4, 2), name='models.strong.train'
  )
  sharding.check_divides(mesh, **sizes)
  with pytest.raises(ValueError, match='models.strong.train.batch_size=6'):
    sharding.check_divides(mesh, **sizes | {'batch_size': 6})
  with pytest.raises(ValueError, match='train.accumulate=4 pieces'):
    sharding.check_divides(mesh, **sizes | {'accumulate': 4})
  with pytest.raises(ValueError, match='mesh.tensor=2.*3 attention heads'):
    sharding.check_divides(mesh, **sizes | {'num_heads': (6, 3)})


def test_batch_is_split_by_row_over_data_and_fsdp():
  x_BxL = np.arange(16).reshape(8, 2)
  placed = sharding.place_batch(make(2, 2, 2), {'tokens': x_BxL})['tokens']
  np.testing.assert_array_equal(placed, x_BxL)
  shards = [np.asarray(shard.data) for shard in placed.addressable_shards]
  assert {shard.shape for shard in shards} == {(2, 2)}
  assert {shard[0, 0] for shard in shards} == {0, 4, 8, 12}
