"""Deviation of attention in one kernel from einsum in float32.

Shapes as in w2s_jax/models/transformer.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import table
from experiments.benchmarks import training
from w2s_jax.models import attention
from w2s_jax.models import presets


def rows(options):
  """Yields a row for each kind of mask."""
  for name in cases(options):
    yield from training.guarded(name, row, options, name)


def cases(options):
  """Returns {name: (config, window)}."""
  decoder = dataclasses.replace(
    presets.PRESETS['tiny-decoder'], num_heads=8, head_dim=64, dtype='bfloat16'
  )
  grouped = dataclasses.replace(decoder, num_kv_heads=2)
  return {
    'encoder with padding': (dataclasses.replace(decoder, causal=False), None),
    'decoder': (decoder, None),
    'decoder with shared keys': (grouped, None),
    'decoder with a window': (decoder, 4 if options.small else 96),
  }


def row(options, name):
  """Yields the largest deviation of outputs and gradients in bfloat16."""
  config, window = cases(options)[name]
  on_gpu = options.mesh.devices.flat[0].platform == 'gpu'
  implementation = 'cudnn' if on_gpu else 'xla'
  found = deviations(
    config,
    window=window,
    num_tokens=16 if options.small else 256,
    implementation=implementation,
  )
  fused, einsum = (max(found[key].values()) for key in ('fused', 'einsum'))
  # A wrong mask deviates by its whole size, and rounding by 2 % at most.
  verdict = 'equal but for rounding' if fused < 0.05 else 'DIFFERS'
  yield table.Row(
    'd',
    f'{name}: deviation of {implementation} from float32',
    [fused],
    '%',
    f'{verdict}: einsum in bfloat16 deviates by {einsum:.2%}',
    details=found,
  )


def deviations(config, *, window, num_tokens, implementation):
  """Returns {'fused' or 'einsum': {array: deviation relative to its maximum}}.

  Of the outputs and of the gradients by queries, keys and values, for rows that
  are full, half full, of one token and empty.
  """
  rng = np.random.default_rng(0)
  length_B = np.array([num_tokens, num_tokens // 2, 1, 0], np.int32)
  heads = [
    jnp.asarray(rng.normal(size=(4, n, num_tokens, 64)), jnp.bfloat16)
    for n in (config.num_heads, config.kv_heads, config.kv_heads)
  ]
  real_Bx1xLx1 = (np.arange(num_tokens) < length_B[:, None])[:, None, :, None]
  weight_BxHxLxK = rng.normal(size=heads[0].shape) * real_Bx1xLx1

  def outcome(function, heads, **kwargs):
    def loss(heads):
      out = function(config, *heads, length=length_B, window=window, **kwargs)
      out_BxHxLxK = out.astype(jnp.float32) * real_Bx1xLx1
      return jnp.sum(weight_BxHxLxK * out_BxHxLxK), out_BxHxLxK

    (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(heads)
    arrays = dict(
      zip(('outputs', 'queries', 'keys', 'values'), (out, *gradients))
    )
    return {name: x.astype(jnp.float32) for name, x in arrays.items()}

  @jax.jit
  def all_three(heads):
    with jax.default_matmul_precision('highest'):
      exact = outcome(attention.einsum, [x.astype(jnp.float32) for x in heads])
    return {
      'exact': exact,
      'einsum': outcome(attention.einsum, heads),
      'fused': outcome(attention.fused, heads, implementation=implementation),
    }

  found = jax.tree.map(np.asarray, all_three(heads))
  exact = found.pop('exact')

  def deviation(x, name):
    return float(np.abs(x - exact[name]).max() / np.abs(exact[name]).max())

  return {
    key: {name: deviation(x, name) for name, x in arrays.items()}
    for key, arrays in found.items()
  }
