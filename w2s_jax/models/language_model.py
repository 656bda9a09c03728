"""Language modeling: the next-token head, packed rows, greedy decoding.

heads.py has the protocol that the head fulfils. Shapes as in transformer.py; N
tokens to decode.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import batching
from w2s_jax import sharding
from w2s_jax.models import presets
from w2s_jax.models import transformer

_MOST_LOGITS = 2**26  # of one piece, on a device


class LanguageModel(nn.Module):
  """Nats of the next tokens of packed texts, for generative fine-tuning.

  Float32 [R, 2] for R = B * L tokens: nats, and whether the token is the most
  likely one. Logits over a large vocabulary are in memory for some positions at
  a time only, and computed again in the backward pass. The output table is that
  of the trunk.
  """

  config: presets.TransformerConfig
  num_classes: int = 0  # there are no classes but the vocabulary

  DECODES = False
  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    params = trunk.variables['params']
    next_BxL = jnp.roll(tokens_BxL, -1, axis=1)  # the last one has no weight

    def score(piece):
      x_BxlxD, next_Bxl = piece
      logits_BxlxV = transformer.next_token_logits(x_BxlxD, params, self.config)
      nats_Bxl = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits_BxlxV, next_Bxl
      )
      right_Bxl = jnp.argmax(logits_BxlxV, -1) == next_Bxl
      return jnp.stack([nats_Bxl, right_Bxl], -1)

    pieces = num_pieces(tokens_BxL.shape, self.config.vocab_size)
    if pieces == 1:
      return score((x_BxLxD, next_BxL)).reshape(-1, 2)

    def cut(x_BxL):
      """Positions, and not rows, which are divided among the devices."""
      shape = len(x_BxL), pieces, -1, *x_BxL.shape[2:]
      return x_BxL.reshape(shape).swapaxes(0, 1)

    scores_PxBxlx2 = jax.lax.map(
      jax.checkpoint(score), (cut(x_BxLxD), cut(next_BxL))
    )
    return scores_PxBxlx2.swapaxes(0, 1).reshape(-1, 2)

  def dummy_inputs(self, length):
    return np.zeros((1, length), np.int32), np.ones(1, np.int32)

  def targets(self, batch):
    """Returns no labels, which the scores are compared with already."""
    place_L = jnp.arange(1, batch['tokens'].shape[1] + 1)
    weight_BxL = place_L[None] < batch['length'][:, None]
    return None, weight_BxL.reshape(-1).astype(jnp.float32)

  def answer(self, tokens_BxL, length_B):
    """Returns [B, 2]: sum of nats after the first token, number of tokens."""
    _, weight_R = self.targets({'tokens': tokens_BxL, 'length': length_B})
    nats_R = self(tokens_BxL, length_B)[:, 0]
    sums = jnp.stack([nats_R * weight_R, weight_R])
    return sums.reshape(2, len(tokens_BxL), -1).sum(-1).T


def num_pieces(shape, vocab_size):
  """Returns the number of equal pieces of L positions that are scored in turn.

  So many that the float32 logits of one are at most 256 MiB on a device, if L
  can be halved so often.

  Args:
    shape: (B, L) of the global batch.
    vocab_size: V.
  """
  batch_size, length = shape
  floats = batch_size * length * vocab_size / sharding.batch_ways()
  pieces = 1
  while floats / pieces > _MOST_LOGITS and length % (2 * pieces) == 0:
    pieces *= 2
  return pieces


def pack(tokenizer, texts, *, max_length):
  """Packs texts into rows of max_length tokens; the last may be shorter.

  Texts are concatenated, each after the BOS token if the tokenizer asks for one
  and before an end token, so that nothing is truncated and only the last row is
  padded.
  """
  start = np.array(tokenizer.special_ids()[0], np.int32)
  end = np.array([tokenizer.end_id()], np.int32)
  texts = tokenizer.encode_whole(texts)
  stream = np.concatenate([x for text in texts for x in (start, text, end)])
  starts = range(0, len(stream), max_length)
  return batching.Rows([stream[i : i + max_length] for i in starts])


def empty_cache(config, *, batch_size, width):
  """Returns a key-value cache of a trunk with room for `width` tokens a row.

  It is the Flax collection 'cache' of a Transformer: keys and values of each
  layer, [B, G, width, K]. A token attends to the positions up to its own.
  """
  shape = batch_size, config.kv_heads, width, config.head_width
  zeros_BxGxMxK = sharding.constrain_batch(jnp.zeros(shape, config.dtype))
  layer = {'attention': {'key': zeros_BxGxMxK, 'value': zeros_BxGxMxK}}
  return {f'layer_{i}': layer for i in range(config.num_layers)}


def greedy_decode(config, params, tokens_BxL, length_B, *, num_tokens):
  """Decodes the most likely continuation of each prompt, with a cache.

  Args:
    config: of the trunk, which must be causal.
    params: of the trunk.
    tokens_BxL: prompts, padded on the right.
    length_B: of each prompt; with num_tokens it must fit the positions of the
      model.
    num_tokens: N.

  Returns:
    Int32 tokens [B, N]; each row continues at its own length.
  """
  trunk = transformer.Transformer(config, parent=None)
  batch_size, prompt_width = tokens_BxL.shape

  def read(cache, tokens_BxL, first_B, last_B):
    """Returns the cache with the new tokens and the token after [:, last]."""
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
  (_, last_B), tokens_NxB = jax.lax.scan(
    step, first, jnp.arange(num_tokens - 1)
  )
  return jnp.vstack([tokens_NxB, last_B[None]]).T
