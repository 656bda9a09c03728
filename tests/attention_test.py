"""Attention in kernels against einsum, and what they are refused for."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from w2s_jax import population
from w2s_jax import sharding
from w2s_jax.models import attention
from w2s_jax.models import heads as heads_lib
from w2s_jax.models import model as model_lib
from w2s_jax.models import presets
from w2s_jax.models import stacking
from w2s_jax.models import text_heads
from w2s_jax.runtime import matmul_flops
from w2s_jax.tasks import registry

import tiny

LENGTHS = np.array([9, 4, 1, 0])
DECODER = dataclasses.replace(presets.PRESETS['tiny-decoder'], num_heads=4)
CASES = {
  'encoder': (presets.PRESETS['tiny-encoder'], None),
  'decoder': (DECODER, None),
  'window': (DECODER, 3),
  'grouped': (dataclasses.replace(DECODER, num_kv_heads=2), None),
  'scaled': (dataclasses.replace(DECODER, query_scalar=3, num_kv_heads=1), 2),
}


def heads_of(config, seed=0, *, length=LENGTHS):
  """Queries, keys and values of rows of these lengths, padding included."""
  rng = np.random.default_rng(seed)
  width = length.reshape(len(length), -1).sum(1).max()
  shape = len(length), width, config.head_width
  return [
    jnp.asarray(rng.normal(size=(shape[0], n, *shape[1:])), jnp.float32)
    for n in (config.num_heads, config.kv_heads, config.kv_heads)
  ]


def assert_as_einsum(function, config, *, length, window):
  """Of real tokens outcome and gradients are those of einsum."""
  heads = heads_of(config, length=length)
  tokens_Bx1 = length.reshape(len(length), -1).sum(1)[:, None]
  real_BxL = np.arange(heads[0].shape[2]) < tokens_Bx1
  weights_BxHxLxK = np.random.default_rng(1).normal(size=heads[0].shape)
  weights_BxHxLxK *= real_BxL[:, None, :, None]

  def outcome(function):
    def loss(heads):
      out_BxHxLxK = function(config, *heads, length=length, window=window)
      return jnp.sum(weights_BxHxLxK * out_BxHxLxK), out_BxHxLxK

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(heads)

  (_, found), gradients = outcome(function)
  (_, expected), expected_gradients = outcome(attention.einsum)
  assert np.isfinite(found).all()  # in padding rows, too
  found, expected = (x.swapaxes(1, 2)[real_BxL] for x in (found, expected))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for x, y in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)
    assert np.abs(y).max() > 1e-3


@pytest.mark.parametrize('name', CASES)
def test_fused_attention_and_its_gradients_are_those_of_einsum(name):
  config, window = CASES[name]
  fused = functools.partial(attention.fused, implementation='xla')
  assert_as_einsum(fused, config, length=LENGTHS, window=window)


INTERPRETED = functools.partial(attention.splash, interpret=True)
# One row is of more tokens than a block has, and not of whole blocks.
ROWS = np.array([140, 97, 1, 0])
TEXTS = np.array([[60, 30], [140, 0], [1, 127], [0, 0]])


@pytest.mark.parametrize(
  'config, length, window',
  [
    (presets.PRESETS['tiny-encoder'], ROWS, None),
    (presets.PRESETS['tiny-encoder'], TEXTS, None),
    (dataclasses.replace(DECODER, attention_cap=0.5), ROWS, None),
    (dataclasses.replace(DECODER, num_kv_heads=2), TEXTS, 70),
    (dataclasses.replace(DECODER, query_scalar=3, num_kv_heads=1), ROWS, 3),
  ],
  ids=['encoder', 'encoder-texts', 'capped', 'grouped-texts-window', 'scaled'],
)
def test_splash_attention_and_its_gradients_are_those_of_einsum(
  config, length, window
):
  assert_as_einsum(INTERPRETED, config, length=length, window=window)


def kernels(function, *args):
  """Names of the Pallas kernels that a function calls."""

  def named(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'pallas_call':
        yield equation.params['name'].split('_')[2]  # splash_mha_fwd_...
      elif equation.outvars:  # XLA drops what nobody reads
        for inner in matmul_flops.jaxprs_in(equation.params):
          yield from named(inner)

  return sorted(named(jax.make_jaxpr(function)(*args).jaxpr))


def test_splash_attention_leaves_short_rows_to_einsum():
  def attended(length):
    heads = heads_of(DECODER, length=length)
    splash = functools.partial(attention.splash, DECODER, window=None)
    return kernels(functools.partial(splash, length=length), *heads)

  assert attended(np.array([127, 1])) == []
  assert attended(np.array([128, 1])) == ['fwd']
  with jax.set_mesh(sharding.make_mesh(fsdp=2, tensor=2)):  # data=2
    assert attended(np.array([128])) == []
    assert attended(np.array([128, 1, 1, 1])) == ['fwd']


@pytest.fixture
def device(monkeypatch):
  """Replaces the first device, and what the kernels return by zeros."""

  def become(kind='NVIDIA H100 80GB HBM3', capability='9.0'):
    device = types.SimpleNamespace(
      device_kind=kind, compute_capability=capability
    )
    monkeypatch.setattr(attention.jax, 'devices', lambda: [device])

  def kernel(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, *, length, window):
    return jnp.zeros_like(q_BxHxLxK)

  monkeypatch.setattr(attention, 'fused', kernel)
  monkeypatch.setattr(attention, 'splash', kernel)
  return become


def is_kernel(*, length=LENGTHS, first_B=None, **fields):
  config = dataclasses.replace(DECODER, **{'dtype': 'bfloat16'} | fields)
  heads = [x.astype(config.dtype) for x in heads_of(config)]
  out_BxHxLxK = attention.attend(
    config, *heads, length=length, window=None, first_B=first_B
  )
  return not np.any(out_BxHxLxK)


def test_cudnn_is_chosen_where_it_can_compute_the_attention(device):
  device()
  assert is_kernel() and is_kernel(attention='cudnn')
  assert is_kernel(dtype='float16') and is_kernel(head_dim=256)
  assert not is_kernel(attention='einsum')
  for attend in ('auto', 'cudnn'):  # decoding
    assert not is_kernel(attention=attend, first_B=np.zeros(4, np.int32))
  device('NVIDIA A100-SXM4-40GB', '8.0')
  assert is_kernel(head_dim=128) and not is_kernel(head_dim=256)


def test_splash_is_chosen_on_a_tpu(device):
  device('TPU v5 lite')
  for attend in ('auto', 'splash'):
    assert is_kernel(attention=attend)
    assert is_kernel(attention=attend, dtype='float32')
    assert is_kernel(attention=attend, head_dim=12, attention_cap=50.0)
    assert is_kernel(attention=attend, length=LENGTHS[:, None])
    assert not is_kernel(attention=attend, first_B=np.zeros(4, np.int32))
  assert not is_kernel(attention='einsum')


def test_devices_of_the_mesh_decide_and_not_those_attached(device):
  with jax.set_mesh(sharding.make_mesh(data=4, tensor=2)):
    device()
    assert not is_kernel()  # on CPUs
    with pytest.raises(ValueError, match='needs an NVIDIA GPU'):
      is_kernel(attention='cudnn')
  kind = jax.sharding.AbstractDevice('TPU v5', num_cores=1, platform='tpu')
  mesh = jax.sharding.AbstractMesh((1, 1), ('data', 'fsdp'))
  with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=kind)):
    assert sharding.device_kind() == 'TPU v5'
    config = dataclasses.replace(DECODER, attention='splash')
    heads = heads_of(config)
    assert not np.any(
      attention.attend(
        config, *heads, length=LENGTHS, window=None, first_B=None
      )
    )


@pytest.mark.parametrize(
  'choice, kind, fields, message',
  [
    ('cudnn', 'cpu', {}, 'needs an NVIDIA GPU of compute capability 8.0'),
    ('cudnn', 'Tesla T4', {}, 'needs an NVIDIA GPU of compute capability 8.0'),
    (
      *('cudnn', 'NVIDIA H200', {'dtype': 'float32'}),
      "needs dtype='bfloat16', not 'float",
    ),
    ('cudnn', 'NVIDIA H200', {'head_dim': 12}, 'multiple of 8, not 12'),
    ('cudnn', 'NVIDIA H200', {'head_dim': 512}, 'at most 256 and .* not 512'),
    ('cudnn', 'NVIDIA H200', {'attention_cap': 50.0}, 'cannot cap'),
    (
      *('cudnn', 'NVIDIA H200', {'length': LENGTHS[:, None]}),
      'texts of one row apart',
    ),
    ('splash', 'cpu', {}, "needs a TPU, v4 or later, not .* kind 'cpu'"),
    ('splash', 'TPU v3', {}, "needs a TPU, v4 or later, not .* kind 'TPU v3'"),
    (
      *('splash', 'TPU v4', {'dtype': 'float32', 'matmul_dtype': 'bfloat16'}),
      "needs matmul_dtype='', not 'bfloat16'",
    ),
  ],
)
def test_what_a_kernel_cannot_compute_is_einsum_or_refused(
  device, choice, kind, fields, message
):
  device(kind)
  assert not is_kernel(**fields)
  with pytest.raises(
    ValueError, match=f"attention='{choice}' .*{message}.*use"
  ):
    is_kernel(attention=choice, **fields)


@pytest.fixture
def interpreted(monkeypatch):
  """Attention as on a TPU, its kernel interpreted."""
  monkeypatch.setattr(sharding, 'device_kind', lambda: 'TPU v5')
  monkeypatch.setattr(attention, 'splash', INTERPRETED)


def gradients_of(mesh=None, **fields):
  """(function, arguments): the gradients of a classifier on a decoder.

  Without a mesh the parameters are shapes.
  """
  config = dataclasses.replace(
    DECODER, max_positions=128, num_kv_heads=2, num_layers=2, **fields
  )
  model = text_heads.Classifier(config, 2)
  params = heads_lib.parameter_shapes(model)
  if mesh:
    params = tiny.random_params(model, mesh, head=1.0)
  params = stacking.stack(params, config)
  tokens_BxL = np.random.default_rng(0).integers(1, 64, (4, 128))
  length_B = np.array([128, 100, 50, 7])

  def loss(params, tokens_BxL):
    logits_BxC = model.apply({'params': params}, tokens_BxL, length_B)
    return jnp.mean(logits_BxC**2)

  return jax.grad(loss), (params, tokens_BxL)


@pytest.mark.parametrize(
  'members', [pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_on_a_mesh_splash_has_the_gradients_of_einsum(
  members, interpreted, monkeypatch
):
  """Through a scan over layers that are computed again; one model, or two."""
  monkeypatch.setattr(stacking, 'MIN_LAYERS', 2)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  if members > 1:
    mesh = population.mesh_of(mesh, members)

  def gradients(kind):
    function, args = gradients_of(mesh, attention=kind, remat='dots_saveable')
    if members > 1:
      function = jax.vmap(function, (None, 0), spmd_axis_name='population')
      tokens_BxL = args[1]
      args = args[0], np.stack([tokens_BxL, tokens_BxL[:, ::-1]])
    return jax.jit(function)(*args)

  with jax.set_mesh(mesh):
    found, expected = gradients('splash'), gradients('einsum')
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
  attention_gradients = expected['transformer']['layers']['attention']
  assert np.abs(attention_gradients['query']['kernel']).max() > 1e-3


@pytest.mark.parametrize(
  'remat, again',
  [('', 0), ('dots_saveable', 0), ('nothing_saveable', 1)],
)
def test_the_kernel_runs_again_where_nothing_is_saved(
  remat, again, interpreted
):
  function, args = gradients_of(remat=remat)
  each_layer = ['dkv', 'dq', *['fwd'] * (1 + again)]
  assert kernels(function, *args) == sorted(2 * each_layer)


def test_a_tpu_can_run_the_kernels(monkeypatch):
  """As far as they are compiled without one: shapes of blocks are checked."""
  monkeypatch.setattr(sharding, 'device_kind', lambda: 'TPU v5')
  for fields in ({'head_dim': 12}, {'head_dim': 64, 'dtype': 'bfloat16'}):
    function, args = gradients_of(**fields)
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=('tpu',))
    assert lowered.as_text().count('tpu_custom_call') >= 3


@pytest.mark.parametrize(
  'choice, message',
  [
    ('flash', "attention='flash' must be one of auto, einsum, cudnn, splash"),
    ('cudnn', "attention='cudnn' needs an NVIDIA GPU .*'auto' or 'einsum'"),
    ('splash', "attention='splash' needs a TPU, .*'auto' or 'einsum'"),
  ],
)
def test_a_model_with_impossible_attention_is_not_built(choice, message):
  spec = base.model(weights='random:tiny-decoder', num_layers=1)
  spec.attention = choice
  with pytest.raises(ValueError, match=message):
    model_lib.build(spec, registry.find('synthetic'))


def test_only_a_choice_of_attention_is_recorded():
  spec = base.model(weights='random:tiny-decoder', num_layers=1)

  def recorded():
    model = model_lib.build(spec, registry.find('synthetic'))
    return model.identity['architecture']

  assert 'attention' not in recorded()
  spec.attention = 'einsum'
  assert recorded()['attention'] == 'einsum'
