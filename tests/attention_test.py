"""Attention in one kernel against einsum, and what it is refused for."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from w2s_jax.models import attention
from w2s_jax.models import model as model_lib
from w2s_jax.models import presets
from w2s_jax.tasks import registry

LENGTHS = np.array([9, 4, 1, 0])
DECODER = dataclasses.replace(presets.PRESETS['tiny-decoder'], num_heads=4)
CASES = {
  'encoder': (presets.PRESETS['tiny-encoder'], None),
  'decoder': (DECODER, None),
  'window': (DECODER, 3),
  'grouped': (dataclasses.replace(DECODER, num_kv_heads=2), None),
  'scaled': (dataclasses.replace(DECODER, query_scalar=3, num_kv_heads=1), 2),
}


def heads_of(config, seed=0):
  """Queries, keys and values of LENGTHS, padding included."""
  rng = np.random.default_rng(seed)
  shape = len(LENGTHS), LENGTHS.max(), config.head_width
  return [
    jnp.asarray(rng.normal(size=(shape[0], n, *shape[1:])), jnp.float32)
    for n in (config.num_heads, config.kv_heads, config.kv_heads)
  ]


@pytest.mark.parametrize('name', CASES)
def test_fused_attention_and_its_gradients_are_those_of_einsum(name):
  config, window = CASES[name]
  real_BxL = np.arange(LENGTHS.max()) < LENGTHS[:, None]
  weights_BxHxLxK = np.random.default_rng(1).normal(
    size=heads_of(config)[0].shape
  )
  weights_BxHxLxK *= real_BxL[:, None, :, None]

  def outcome(function, **kwargs):
    def loss(heads):
      out_BxHxLxK = function(
        config, *heads, length=LENGTHS, window=window, **kwargs
      )
      return jnp.sum(weights_BxHxLxK * out_BxHxLxK), out_BxHxLxK

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(heads_of(config))

  (_, found), gradients = outcome(attention.fused, implementation='xla')
  (_, expected), expected_gradients = outcome(attention.einsum)
  assert np.isfinite(found).all()  # in padding rows, too
  found, expected = (x.swapaxes(1, 2)[real_BxL] for x in (found, expected))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for x, y in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)
    assert np.abs(y).max() > 1e-3


@pytest.fixture
def gpu(monkeypatch):
  """Replaces the first device by a GPU, and what `fused` returns by zeros."""

  def become(kind='NVIDIA H100 80GB HBM3', capability='9.0'):
    device = types.SimpleNamespace(
      device_kind=kind, compute_capability=capability
    )
    monkeypatch.setattr(attention.jax, 'devices', lambda: [device])

  def fused(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, *, length, window):
    return jnp.zeros_like(q_BxHxLxK)

  monkeypatch.setattr(attention, 'fused', fused)
  return become


def is_fused(*, length=LENGTHS, first_B=None, **fields):
  config = dataclasses.replace(DECODER, **{'dtype': 'bfloat16'} | fields)
  heads = [x.astype(config.dtype) for x in heads_of(config)]
  out_BxHxLxK = attention.attend(
    config, *heads, length=length, window=None, first_B=first_B
  )
  return not np.any(out_BxHxLxK)


def test_cudnn_is_chosen_where_it_can_compute_the_attention(gpu):
  gpu()
  assert is_fused() and is_fused(attention='cudnn')
  assert is_fused(dtype='float16') and is_fused(head_dim=256)
  assert not is_fused(attention='einsum')
  for attend in ('auto', 'cudnn'):  # decoding
    assert not is_fused(attention=attend, first_B=np.zeros(4, np.int32))
  gpu('NVIDIA A100-SXM4-40GB', '8.0')
  assert is_fused(head_dim=128) and not is_fused(head_dim=256)


@pytest.mark.parametrize(
  'kind, fields, message',
  [
    ('cpu', {}, 'needs an NVIDIA GPU of compute capability 8.0'),
    ('Tesla T4', {}, 'needs an NVIDIA GPU of compute capability 8.0'),
    ('NVIDIA H200', {'dtype': 'float32'}, "needs dtype='bfloat16', not 'float"),
    ('NVIDIA H200', {'head_dim': 12}, 'multiple of 8, not 12'),
    ('NVIDIA H200', {'head_dim': 512}, 'at most 256 and .* not 512'),
    ('NVIDIA H200', {'attention_cap': 50.0}, 'cannot cap'),
    ('NVIDIA H200', {'length': LENGTHS[:, None]}, 'texts of one row apart'),
  ],
)
def test_what_cudnn_cannot_compute_is_einsum_or_refused(
  gpu, kind, fields, message
):
  gpu(kind)
  assert not is_fused(**fields)
  with pytest.raises(ValueError, match=f"attention='cudnn' .*{message}.*use"):
    is_fused(attention='cudnn', **fields)


@pytest.mark.parametrize(
  'choice, message',
  [
    ('flash', "attention='flash' must be one of auto, einsum, cudnn"),
    ('cudnn', "attention='cudnn' needs an NVIDIA GPU .*'auto' or 'einsum'"),
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
