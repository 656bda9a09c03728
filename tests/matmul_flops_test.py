"""FLOPs of the matmuls of traced programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import speed
from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import losses
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.models import attention
from w2s_jax.models import heads
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.runtime import matmul_flops

import tiny

BATCH, LENGTH = 4, 12
X, W = jnp.ones((3, 4)), jnp.ones((4, 4))
ONE = 2 * 3 * 4 * 4


def count(function, *arguments):
  return matmul_flops.count(jax.make_jaxpr(function)(*arguments).jaxpr)


def scanned(x, w):
  return jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0]


def branched(x, w):
  return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)


@pytest.mark.parametrize(
  'function, matmuls',
  [
    (lambda x, w: x + 1, 0),
    (lambda x, w: x @ w, 1),
    (lambda x, w: jax.jit(jnp.matmul)(x, w) + x @ w, 2),
    (lambda x, w: jax.vmap(lambda x: x @ w)(x), 1),
    (scanned, 5),
    (lambda x, w: jax.lax.map(lambda x: x @ w, x[:, None]), 1),
    (branched, 2),
    (jax.grad(lambda x, w: (x @ w).sum(), (0, 1)), 3),
    (jax.grad(lambda x, w: scanned(x, w).sum(), (0, 1)), 15),
    # Each product is computed again, but for the last, which no gradient needs.
    (jax.grad(jax.checkpoint(lambda x, w: scanned(x, w).sum()), (0, 1)), 15),
  ],
)
def test_matmuls_of(function, matmuls):
  assert count(function, X, W) == matmuls * ONE


def flops_of(gradients, preset, *, freeze='', lora=None, **fields):
  """FLOPs of the logits of a model of one layer, or of their gradients."""
  config = dataclasses.replace(presets.PRESETS[preset], num_layers=1, **fields)
  model = text_heads.Classifier(config, num_classes=3)
  shapes = heads.parameter_shapes(model)
  trainable, frozen = adapt.split(shapes, freeze=freeze, lora=lora)
  inputs = (
    jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32),
    jax.ShapeDtypeStruct((BATCH,), jnp.int32),
  )

  def total(trainable, *inputs):
    params = {'params': adapt.merge(trainable, frozen)}
    key = jax.random.key(0)
    return model.apply(params, *inputs, rngs={'dropout': key}).sum()

  counted = count(jax.grad(total) if gradients else total, trainable, *inputs)
  sizes = dict(batch=BATCH, length=LENGTH, num_classes=3)
  return counted, speed.flops(speed.matmuls(config, **sizes))


@pytest.mark.parametrize('remat', ['', 'nothing_saveable'])
@pytest.mark.parametrize('preset', ['gpt2', 'tiny-encoder'])
def test_full_training_is_three_forward_passes_with_remat_too(preset, remat):
  forward, expected = flops_of(False, preset, remat=remat)
  assert forward == expected
  assert flops_of(True, preset, remat=remat)[0] == 3 * expected


@pytest.mark.parametrize('loss', [losses.xent, losses.logconf])
def test_a_batch_in_pieces_needs_what_the_whole_needs(loss):
  recipe = tiny.RECIPE._replace(total_steps=6, loss=loss)
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)
  mesh = tiny.one_device()

  def flops(pieces):
    ours = recipe._replace(accumulate=pieces)
    init_state, step = train.make_step(tiny.network(), ours, mesh)
    shapes = heads.parameter_shapes(tiny.network())
    state = jax.eval_shape(init_state, shapes)
    with jax.set_mesh(mesh):
      return count(step, state, {}, batch, 0, ours.numbers())

  assert flops(1) == flops(4) > 0


def test_attention_by_cudnn_counts_as_by_einsum(monkeypatch):
  cudnn = pytest.importorskip('jax._src.cudnn.fused_attention_stablehlo')
  monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(cudnn, 'check_compute_capability', lambda _: True)
  query = jax.ShapeDtypeStruct((2, 64, 4, 16), jnp.bfloat16)
  keys = jax.ShapeDtypeStruct((2, 64, 2, 16), jnp.bfloat16)

  def counts(implementation):
    def total(*arrays):
      attended = jax.nn.dot_product_attention(
        *arrays, is_causal=True, implementation=implementation
      )
      return attended.astype(jnp.float32).sum()

    arrays = query, keys, keys
    gradients = jax.grad(jax.checkpoint(total), (0, 1, 2))
    return count(total, *arrays), count(gradients, *arrays)

  assert counts('cudnn') == counts('xla') == (2**19 * 4, 2**19 * 12)


@pytest.mark.parametrize('devices', [1, 8])
def test_splash_attention_counts_as_einsum(devices):
  config = dataclasses.replace(
    presets.PRESETS['tiny-decoder'], num_heads=4, num_kv_heads=2
  )
  shapes = [
    jax.ShapeDtypeStruct((8, heads, 128, config.head_width), jnp.bfloat16)
    for heads in (4, 2, 2)
  ]
  length_B = jax.ShapeDtypeStruct((8,), jnp.int32)

  def counts(function):
    def total(length_B, *heads):
      attended = function(config, *heads, length=length_B, window=None)
      return attended.astype(jnp.float32).sum()

    gradients = jax.grad(jax.checkpoint(total), (1, 2, 3))
    mesh = sharding.make_mesh(
      data=devices // min(devices, 4),
      fsdp=min(devices, 2),
      tensor=min(devices, 2),
      devices=jax.devices()[:devices],
    )
    with jax.set_mesh(mesh):
      return np.array([count(f, length_B, *shapes) for f in (total, gradients)])

  splash, einsum = counts(attention.splash), counts(attention.einsum)
  assert splash[0] == einsum[0] > 0
  # The gradient needs the dot product of each output with its own, too.
  assert einsum[1] < splash[1] < 1.002 * einsum[1]
