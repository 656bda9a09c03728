"""Matmuls rounded to bfloat16, alone and in a model."""

import collections
import dataclasses
import pathlib

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from w2s_jax import sharding
from w2s_jax.models import matmul
from w2s_jax.models import model as model_lib
from w2s_jax.tasks import registry

import tiny


def normal(*shape):
  return jnp.asarray(
    np.random.default_rng(len(shape)).normal(size=shape), jnp.float32
  )


def rounded(x):
  return np.asarray(x.astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize(
  'equation, x, y',
  [
    ('td,de->te', normal(5, 7), normal(7, 3)),
    ('bgqk,bgmk->bgqm', normal(2, 3, 5, 7), normal(2, 3, 4, 7)),
    ('bgqm,bgmk->bgqk', normal(2, 3, 5, 4), normal(2, 3, 4, 7)),
  ],
)
def test_inputs_and_gradients_are_rounded_and_sums_are_not(equation, x, y):
  out, pull = jax.vjp(lambda x, y: matmul.rounded(equation, x, y), x, y)
  assert out.dtype == jnp.float32
  expected = np.einsum(equation, rounded(x), rounded(y))
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  change = normal(*out.shape)
  exact, exact_pull = jax.vjp(lambda x, y: jnp.einsum(equation, x, y), x, y)
  assert np.abs(out - exact).max() > 1e-4  # so this test can fail
  for found, wanted in zip(pull(change), exact_pull(change)):
    assert found.dtype == jnp.float32
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert 1e-4 < error < 1e-2


def test_no_matmul_of_a_training_step_reads_float32():
  """Neither forwards nor backwards, but for the head."""

  def dots(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'dot_general':
        yield tuple(str(x.aval.dtype) for x in equation.invars)
      for sub in jax.extend.core.jaxprs_in_params(equation.params):
        yield from dots(sub)

  def traced(**fields):
    network = tiny.network(**fields)
    params = tiny.random_params(network, tiny.one_device())
    tokens, length = np.ones((2, 8), np.int32), np.array([8, 5])

    def loss(params):
      return jnp.sum(network.apply({'params': params}, tokens, length) ** 2)

    found = dots(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    return collections.Counter(found)

  (plain,) = traced().items()
  of_head = 3  # one forwards, two backwards
  assert traced(matmul_dtype='bfloat16') == {
    ('float32', 'float32'): of_head,
    ('bfloat16', 'bfloat16'): plain[1] - of_head,
  }


def test_a_model_stays_near_its_float32_outputs():
  network = tiny.network()
  near = dataclasses.replace(
    network,
    config=dataclasses.replace(network.config, matmul_dtype='bfloat16'),
  )
  params = tiny.random_params(network, tiny.one_device(), head=1.0)
  tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
  expected, found = (
    x.apply({'params': params}, tokens, np.array([8, 5]))
    for x in (network, near)
  )
  error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
  assert 1e-5 < error < 2e-2


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'matmul_dtype': 'float16'},
      "matmul_dtype='float16': use 'auto', '' or 'bfloat16'",
    ),
    (
      {'matmul_dtype': 'bfloat16', 'dtype': 'bfloat16'},
      "matmul_dtype='bfloat16' needs dtype='float32', not 'bfloat16'",
    ),
  ],
)
def test_wrong_fields_are_refused(fields, message):
  c = base.model(weights='random:tiny-encoder')
  c.update(fields)
  with pytest.raises(ValueError, match=message):
    model_lib.build(c, registry.TASKS['synthetic'])


def test_rounding_is_part_of_a_recipe_and_its_absence_is_not():
  c = base.model(weights='random:tiny-encoder')
  identity = model_lib.build(c, registry.TASKS['synthetic']).identity
  assert 'matmul_dtype' not in identity['architecture']
  c.matmul_dtype = 'bfloat16'
  identity = model_lib.build(c, registry.TASKS['synthetic']).identity
  assert identity['architecture']['matmul_dtype'] == 'bfloat16'


@pytest.mark.parametrize(
  'expected, dtype, flags, device, processor',
  [
    ('bfloat16', 'float32', '', 'cpu', 'avx512f avx512_bf16'),
    ('', 'float32', '', 'cpu', 'avx512f'),
    ('', 'float32', '', 'TPU v5', 'avx512f avx512_bf16'),
    ('', 'bfloat16', '', 'cpu', 'avx512f avx512_bf16'),
    ('', 'float32', '--xla_cpu_max_isa=AVX512', 'cpu', 'avx512_bf16'),
  ],
)
def test_rounding_by_default_where_it_is_faster(
  expected, dtype, flags, device, processor, monkeypatch
):
  monkeypatch.setenv('XLA_FLAGS', flags)
  monkeypatch.setattr(sharding, 'device_kind', lambda: device)
  monkeypatch.setattr(pathlib.Path, 'exists', lambda path: True)
  monkeypatch.setattr(pathlib.Path, 'read_text', lambda path: processor)
  c = base.model(weights='random:tiny-encoder')
  c.dtype = dtype
  model = model_lib.build(c, registry.TASKS['synthetic'])
  assert model.network.config.matmul_dtype == expected
  recorded = model.identity['architecture'].get('matmul_dtype', '')
  assert recorded == expected
