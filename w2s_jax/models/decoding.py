"""Greedy continuation of texts by a causal trunk with a key-value cache.

The cache is the Flax collection 'cache' of a Transformer: for each layer the
keys and values of M positions, of which a token sees those up to its own.

Shapes as in transformer.py.
"""

import jax
import jax.numpy as jnp

from w2s_jax import sharding
from w2s_jax.models import transformer


def empty_cache(config, *, batch_size, width):
  """Of a trunk, with room for `width` tokens a row."""
  shape = batch_size, config.kv_heads, width, config.head_width
  zeros_BxGxMxK = sharding.constrain_batch(jnp.zeros(shape, config.dtype))
  layer = {'attention': {'key': zeros_BxGxMxK, 'value': zeros_BxGxMxK}}
  return {f'layer_{i}': layer for i in range(config.num_layers)}


def greedy(config, params, tokens_BxL, length_B, *, num_tokens):
  """What most likely follows each prompt: int32 tokens [B, num_tokens].

  Args:
    config, params: of the trunk.
    tokens_BxL, length_B: prompts, padded on the right; each row goes on at its
      own length, which with num_tokens must fit the positions of the model.
  """
  trunk = transformer.Transformer(config, parent=None)
  batch_size, prompt_width = tokens_BxL.shape

  def read(cache, tokens_BxL, first_B, last_B):
    """(cache with the tokens from first_B on, the one after tokens[last])."""
    x_BxLxD, written = trunk.apply(
      {'params': params, 'cache': cache},
      tokens_BxL,
      length_B,
      first_B=first_B,
      mutable='cache',
    )
    x_BxD = jnp.take_along_axis(x_BxLxD, last_B[:, None, None], axis=1)[:, 0]
    logits_BxV = transformer.next_token_logits(x_BxD, params, config)
    return written.get('cache', {}), jnp.argmax(logits_BxV, axis=-1)

  def step(carry, t):
    cache, token_B = carry
    carry = read(cache, token_B[:, None], length_B + t, zero_B)
    return carry, token_B

  zero_B = jnp.zeros_like(length_B)
  width = prompt_width + num_tokens - 1
  cache = empty_cache(config, batch_size=batch_size, width=width)
  first = read(cache, tokens_BxL, zero_B, length_B - 1)
  (_, last_B), tokens_TxB = jax.lax.scan(
    step, first, jnp.arange(num_tokens - 1)
  )
  return jnp.vstack([tokens_TxB, last_B[None]]).T
