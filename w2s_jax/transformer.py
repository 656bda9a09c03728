"""One transformer in Flax Linen, used as pure functions.

The same trunk is a BERT-style encoder, a GPT-2 decoder or an encoder of chess
boards, by its config.
Sequences are padded on the right; what is padding follows from `length_B`
alone, never from a token id.

A decoder also continues texts: with `first_B` it takes new tokens from that
place of each row on, and finds the keys and values of those before them in the
Flax collection 'cache', see decoding.py.

Shapes: B batch, L length, T = B * L tokens, D embed, H heads, K head width,
M width of the cache, F hidden width of the MLP, V vocabulary, P positions, R
states of any kind.
"""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax import boards
from w2s_jax import sharding
from w2s_jax.tasks import chess

_ACTIVATIONS = {
  'relu': nn.relu,
  'gelu': functools.partial(nn.gelu, approximate=False),
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Everything that defines a trunk.

  With norm='post' (BERT) the embeddings are normalised and nothing follows the
  last layer; with norm='pre' (GPT-2) it is the other way round.
  """

  vocab_size: int
  max_positions: int  # 0: no position table, as tokens say where they stand
  embed_dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  causal: bool
  norm: Literal['pre', 'post']
  activation: Literal['gelu', 'gelu_tanh', 'relu']
  norm_eps: float
  pooling: Literal['mean', 'last']  # over the real tokens
  reads: Literal['text', 'board'] = 'text'
  type_vocab_size: int = 0
  dropout: float = 0.0  # on the embeddings and on each residual branch
  dtype: str = 'float32'  # of the activations; parameters are float32


def _encoder(**sizes):
  return TransformerConfig(
    causal=False,
    norm='post',
    activation='gelu',
    norm_eps=1e-12,
    pooling='mean',
    type_vocab_size=2,
    **sizes,
  )


def _decoder(**sizes):
  return TransformerConfig(
    causal=True,
    norm='pre',
    activation='gelu_tanh',
    norm_eps=1e-5,
    pooling='last',
    **sizes,
  )


def _gpt2(embed_dim, num_layers, num_heads):
  return _decoder(
    vocab_size=50257,
    max_positions=1024,
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    mlp_dim=4 * embed_dim,
  )


def _board(embed_dim, num_layers, num_heads):
  return TransformerConfig(
    vocab_size=chess.VOCAB_SIZE,
    max_positions=0,
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    mlp_dim=4 * embed_dim,
    causal=False,
    norm='pre',
    activation='relu',
    norm_eps=1e-5,
    pooling='mean',
    reads='board',
  )


_TINY = dict(
  vocab_size=1024,
  max_positions=128,
  embed_dim=32,
  num_layers=2,
  num_heads=4,
  mlp_dim=64,
)

PRESETS = {
  'minilm-l6': _encoder(
    vocab_size=30522,
    max_positions=512,
    embed_dim=384,
    num_layers=6,
    num_heads=12,
    mlp_dim=1536,
  ),
  'bert-base': _encoder(
    vocab_size=30522,
    max_positions=512,
    embed_dim=768,
    num_layers=12,
    num_heads=12,
    mlp_dim=3072,
  ),
  'gpt2': _gpt2(embed_dim=768, num_layers=12, num_heads=12),
  'gpt2-medium': _gpt2(embed_dim=1024, num_layers=24, num_heads=16),
  'gpt2-large': _gpt2(embed_dim=1280, num_layers=36, num_heads=20),
  'gpt2-xl': _gpt2(embed_dim=1600, num_layers=48, num_heads=25),
  'board-xs': _board(embed_dim=16, num_layers=2, num_heads=2),
  'board-s': _board(embed_dim=32, num_layers=3, num_heads=4),
  'board-m': _board(embed_dim=64, num_layers=4, num_heads=4),
  'board-l': _board(embed_dim=128, num_layers=4, num_heads=4),
  'tiny-encoder': _encoder(**_TINY),
  'tiny-decoder': _decoder(**_TINY),
}


def _dense(config, features, name):
  return nn.Dense(
    features,
    kernel_init=nn.initializers.normal(0.02),
    dtype=config.dtype,
    name=name,
  )


def _norm(config, name):
  # Statistics are float32 in Flax whatever the dtype.
  return nn.LayerNorm(epsilon=config.norm_eps, dtype=config.dtype, name=name)


def attention_mask(length_B, num_positions, *, causal):
  """Which keys a query may see: bool, broadcastable to BxHxLxL.

  A decoder needs no lengths: padding is on the right, so no real token sees
  any of it.
  """
  position_L = jnp.arange(num_positions)
  if causal:
    return (position_L[None, :] <= position_L[:, None])[None, None]
  return (position_L[None, :] < length_B[:, None])[:, None, None]


def _cache_mask(first_B, num_new, width):
  """As attention_mask, of new tokens from first_B on over a whole cache."""
  query_BxL = first_B[:, None] + jnp.arange(num_new)[None]
  key_M = jnp.arange(width)
  return (key_M[None, None] <= query_BxL[:, :, None])[:, None]


class Attention(nn.Module):
  """Multi-head self-attention with a float32 softmax."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x_TxD, mask_BxHxLxL, shape, first_B):
    batch_size, num_positions = shape
    embed_dim, num_heads = self.config.embed_dim, self.config.num_heads

    def heads(name):
      x = _dense(self.config, embed_dim, name)(x_TxD)
      x_BxLxHxK = x.reshape(batch_size, num_positions, num_heads, -1)
      return x_BxLxHxK.transpose(0, 2, 1, 3)

    q_BxHxLxK, k_BxHxLxK, v_BxHxLxK = map(heads, ('query', 'key', 'value'))
    if first_B is not None:  # M positions of the cache in place of the L
      k_BxHxLxK = self._remember('key', k_BxHxLxK, first_B)
      v_BxHxLxK = self._remember('value', v_BxHxLxK, first_B)
      mask_BxHxLxL = _cache_mask(first_B, num_positions, k_BxHxLxK.shape[2])
    scores_BxHxLxL = jnp.einsum(
      'bhqk,bhmk->bhqm',
      q_BxHxLxK * q_BxHxLxK.shape[-1] ** -0.5,
      k_BxHxLxK,
      preferred_element_type=jnp.float32,
    )
    # Finite, so that a padding row (length 0, no key at all) is no NaN.
    lowest = jnp.finfo(jnp.float32).min
    scores_BxHxLxL = jnp.where(mask_BxHxLxL, scores_BxHxLxL, lowest)
    weights_BxHxLxL = nn.softmax(scores_BxHxLxL).astype(v_BxHxLxK.dtype)
    out_BxHxLxK = jnp.einsum('bhqm,bhmk->bhqk', weights_BxHxLxL, v_BxHxLxK)
    out_TxD = out_BxHxLxK.transpose(0, 2, 1, 3).reshape(-1, embed_dim)
    return _dense(self.config, embed_dim, 'out')(out_TxD)

  def _remember(self, name, new_BxHxLxK, first_B):
    """Puts what is new into the cache, from first_B on; returns all of it."""

    def write(past_HxMxK, new_HxLxK, first):
      return jax.lax.dynamic_update_slice(past_HxMxK, new_HxLxK, (0, first, 0))

    past_BxHxMxK = self.get_variable('cache', name)
    known_BxHxMxK = jax.vmap(write)(past_BxHxMxK, new_BxHxLxK, first_B)
    self.put_variable('cache', name, known_BxHxMxK)
    return known_BxHxMxK


class Mlp(nn.Module):
  config: TransformerConfig

  @nn.compact
  def __call__(self, x_TxD):
    hidden_TxF = _dense(self.config, self.config.mlp_dim, 'up')(x_TxD)
    hidden_TxF = _ACTIVATIONS[self.config.activation](hidden_TxF)
    return _dense(self.config, self.config.embed_dim, 'down')(hidden_TxF)


class Layer(nn.Module):
  """Attention and MLP, each on a residual branch."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x_TxD, mask_BxHxLxL, shape, deterministic, first_B):
    attention = functools.partial(
      Attention(self.config, name='attention'),
      mask_BxHxLxL=mask_BxHxLxL,
      shape=shape,
      first_B=first_B,
    )
    attention_norm = _norm(self.config, 'attention_norm')
    mlp = Mlp(self.config, name='mlp')
    mlp_norm = _norm(self.config, 'mlp_norm')
    dropout = nn.Dropout(self.config.dropout, deterministic=deterministic)
    if self.config.norm == 'pre':
      x_TxD += dropout(attention(attention_norm(x_TxD)))
      return x_TxD + dropout(mlp(mlp_norm(x_TxD)))
    x_TxD = attention_norm(x_TxD + dropout(attention(x_TxD)))
    return mlp_norm(x_TxD + dropout(mlp(x_TxD)))


class Transformer(nn.Module):
  """The trunk: tokens_BxL and length_B to hidden states_BxLxD in `dtype`.

  States at padding positions are finite and mean nothing.

  Raises:
    ValueError: L is above `max_positions` (when traced).
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True, first_B=None):
    config = self.config
    x_BxLxD = self._embed(tokens_BxL, length_B, first_B)
    # Tokens side by side from here on: measured a sixth faster on a CPU.
    x_TxD = x_BxLxD.reshape(-1, config.embed_dim)
    if config.norm == 'post':
      x_TxD = _norm(config, 'embed_norm')(x_TxD)
    x_TxD = nn.Dropout(config.dropout, deterministic=deterministic)(x_TxD)
    mask = attention_mask(length_B, tokens_BxL.shape[1], causal=config.causal)
    for i in range(config.num_layers):
      x_TxD = sharding.constrain_batch(x_TxD)
      layer = Layer(config, name=f'layer_{i}')
      x_TxD = layer(x_TxD, mask, tokens_BxL.shape, deterministic, first_B)
    if config.norm == 'pre':
      x_TxD = _norm(config, 'final_norm')(x_TxD)
    return sharding.constrain_batch(x_TxD).reshape(x_BxLxD.shape)

  def _embed(self, tokens_BxL, length_B, first_B):
    config = self.config
    num_positions = tokens_BxL.shape[1]
    if 0 < config.max_positions < num_positions:
      raise ValueError(
        f'A batch of length {num_positions} does not fit the '
        f'{config.max_positions} positions of the model: lower the maximum '
        'length of the data.'
      )

    def table(size, name):
      init = nn.initializers.normal(0.02)
      embed = nn.Embed(size, config.embed_dim, embedding_init=init, name=name)
      # Whole on every device: a lookup in a split table does not partition.
      return sharding.gather(embed.embedding.astype(config.dtype))

    # Ids outside the vocabulary become NaN instead of some other token.
    token_VxD = table(config.vocab_size, 'token_embed')
    x_BxLxD = jnp.take(token_VxD, tokens_BxL, axis=0, mode='fill')
    if config.max_positions:
      position_PxD = table(config.max_positions, 'position_embed')
      if first_B is None:
        x_BxLxD += position_PxD[None, :num_positions]
      else:
        position_BxL = first_B[:, None] + jnp.arange(num_positions)[None]
        x_BxLxD += jnp.take(position_PxD, position_BxL, axis=0, mode='clip')
    if config.type_vocab_size:  # our inputs are one segment: type 0 everywhere
      x_BxLxD += table(config.type_vocab_size, 'type_embed')[None, :1]
    if config.reads == 'board':  # a piece also says who attacks it, and whom it
      attacks_BxLxL = boards.attacks(tokens_BxL, length_B).astype(config.dtype)

      def of_kind(name):
        kind_KxD = table(chess.NUM_KINDS, name)
        return jnp.take(kind_KxD, tokens_BxL // 64, axis=0, mode='fill')

      x_BxLxD += attacks_BxLxL @ of_kind('attacked_embed')
      x_BxLxD += attacks_BxLxL.swapaxes(1, 2) @ of_kind('attacker_embed')
    return x_BxLxD


def pool(x_BxLxD, length_B, pooling):
  """Hidden states to one float32 vector a row: pooled_BxD, 0 for no tokens."""
  position_1xL = jnp.arange(x_BxLxD.shape[1])[None]
  length_Bx1 = length_B[:, None]
  if pooling == 'mean':
    weight_BxL = (position_1xL < length_Bx1) / jnp.maximum(length_Bx1, 1)
  else:
    weight_BxL = position_1xL == length_Bx1 - 1
  return jnp.sum(weight_BxL[:, :, None] * x_BxLxD.astype(jnp.float32), axis=1)


def next_token_logits(x_RxD, params):
  """Float32 logits_RxV of the token after each state, by a trunk's params.

  The output of a language model is its token embedding, as in GPT-2.
  """
  table_VxD = sharding.gather(params['token_embed']['embedding'])
  return jnp.matmul(
    x_RxD.astype(jnp.float32), table_VxD.T, precision=jax.lax.Precision.HIGHEST
  )
