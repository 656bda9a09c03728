"""Transformer trunk in Flax Linen: encoders, decoders and chess encoders.

The config decides whether it is a BERT-style encoder, a decoder (GPT-2,
GPT-NeoX, Llama, Mistral, Qwen, Gemma) or an encoder of chess boards. Sequences
are padded on the right; padding follows from `length_B` alone, never from a
token id. A row may hold S concatenated texts: with `length_BxS` masks and
positions keep them apart.

For decoding with a cache, `first_B` is the position of the first new token of
each row; keys and values of the positions before it are in the Flax collection
'cache', see language_model.py.

Shapes: B batch, L length, T = B * L tokens, D embed, H heads, G heads of keys
and values, K head width, M positions that have keys, F hidden width of the MLP,
V vocabulary, P positions, X angles of a rotary embedding, R states of any kind
or the rank of LoRA, E outputs.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import adapt
from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import attention
from w2s_jax.models import chess_attacks
from w2s_jax.models import matmul
from w2s_jax.models import presets
from w2s_jax.tasks import chess

# Matmuls on TPU are bfloat16 by default; outputs are not.
EXACT = jax.lax.Precision.HIGHEST
_ACTIVATIONS = {
  'relu': nn.relu,
  'gelu': functools.partial(nn.gelu, approximate=False),
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
  'silu': nn.silu,
}


class Dense(nn.Dense):
  """Linear map, with a low-rank update if there are factors of LoRA beside it.

  y = x @ kernel + bias + scale * (x @ A) @ B, see adapt.py.
  """

  def __call__(self, x_TxD):
    y_TxE = super().__call__(x_TxD)
    if not self.has_variable('params', f'kernel{adapt.A}'):
      return y_TxE
    a_DxR, b_RxE, scale = (
      self.get_variable('params', f'kernel{suffix}')
      for suffix in (adapt.A, adapt.B, adapt.SCALE)
    )
    x_TxD, a_DxR, b_RxE = (z.astype(y_TxE.dtype) for z in (x_TxD, a_DxR, b_RxE))
    # The scale is stored beside the factors but not trained.
    scale = jax.lax.stop_gradient(scale)
    change_TxE = jnp.matmul(
      x_TxD @ a_DxR, b_RxE, preferred_element_type=jnp.float32
    )
    return (y_TxE + scale * change_TxE).astype(y_TxE.dtype)


def _dense(config, path, features):
  """Returns the linear map of a path in a layer, such as 'attention/out'."""
  _, name = path.split('/')
  qkv = name in ('query', 'key', 'value')
  return Dense(
    features,
    use_bias=config.biases == 'all' or (config.biases == 'qkv' and qkv),
    kernel_init=nn.initializers.normal(0.02),
    dtype=config.dtype,
    param_dtype=config.param_dtype,
    dot_general=functools.partial(_matmul, config, path),
    name=name,
  )


def _matmul(config, path, x_TxD, kernel_DxE, *_, **__):
  kernel_DxE = sharding.gather_kernel(f'{path}/kernel', kernel_DxE)
  if config.matmul_dtype:
    return matmul.rounded('td,de->te', x_TxD, kernel_DxE)
  return x_TxD @ kernel_DxE


class RmsNorm(nn.Module):
  """Over the last axis, in float32."""

  config: presets.TransformerConfig

  @nn.compact
  def __call__(self, x):
    offset = self.config.norm_offset
    start = nn.initializers.constant(1.0 - offset)
    shape = x.shape[-1:]
    scale_D = self.param('scale', start, shape, self.config.param_dtype)
    scale = jnp.expand_dims(scale_D, range(x.ndim - 1)).astype(jnp.float32)
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(x**2, axis=-1, keepdims=True)
    x *= jax.lax.rsqrt(mean_square + self.config.norm_eps)
    return (x * (offset + scale)).astype(self.config.dtype)


def _norm(config, name):
  if config.norm_kind == 'rms':
    return RmsNorm(config, name=name)
  # Statistics are float32 in Flax whatever the dtype.
  return nn.LayerNorm(
    epsilon=config.norm_eps,
    dtype=config.dtype,
    param_dtype=config.param_dtype,
    name=name,
  )


def rotary_frequencies(config, *, window):
  """Returns the rotary frequencies, in radians per position: [X].

  Args:
    config: of the trunk.
    window: whether the layer has a window.
  """
  width = int(config.head_width * config.rotary_fraction)
  exponent_X = np.arange(0, width, 2) / width
  if window and config.window_rope_base is not None:
    return config.window_rope_base**-exponent_X
  frequency_X = config.rope_base**-exponent_X
  if config.rope_scaling is None:
    return frequency_X
  factor, *bounds = config.rope_scaling
  if not bounds:
    return frequency_X / factor
  # Llama 3.1: high frequencies stay; low ones, whose period exceeds the trained
  # length, are divided by the factor; those between are interpolated.
  low, high, trained = bounds
  turns_X = trained * frequency_X / (2 * np.pi)
  kept_X = np.clip((turns_X - low) / (high - low), 0, 1)
  return frequency_X * (kept_X + (1 - kept_X) / factor)


def _rotate(x_BxHxLxK, position_BxL, frequency_X):
  """Rotates feature i of each head with feature i + X, in float32."""
  frequency_1x1xX = frequency_X.astype(np.float32)[None, None]
  angle_BxLxX = position_BxL[:, :, None] * frequency_1x1xX
  cos, sin = jnp.cos(angle_BxLxX)[:, None], jnp.sin(angle_BxLxX)[:, None]
  size = len(frequency_X)
  first, second, rest = jnp.split(x_BxHxLxK, (size, 2 * size), axis=-1)
  turned = first * cos - second * sin, second * cos + first * sin
  turned = [x.astype(rest.dtype) for x in turned]
  return jnp.concatenate([*turned, rest], axis=-1)


class Attention(nn.Module):
  """Multi-head self-attention, see attention.py."""

  config: presets.TransformerConfig
  window: bool

  @nn.compact
  def __call__(self, x_TxD, length, first_B, shape):
    config = self.config
    q_BxHxLxK = self._heads('query', config.num_heads, x_TxD, shape)
    k_BxGxLxK = self._heads('key', config.kv_heads, x_TxD, shape)
    v_BxGxMxK = self._heads('value', config.kv_heads, x_TxD, shape)
    if config.rotary_fraction is not None:
      position_BxL = attention.positions(shape[1], first_B)
      frequency_X = rotary_frequencies(config, window=self.window)
      q_BxHxLxK = _rotate(q_BxHxLxK, position_BxL, frequency_X)
      k_BxGxLxK = _rotate(k_BxGxLxK, position_BxL, frequency_X)
    k_BxGxMxK = k_BxGxLxK
    if first_B is not None:
      k_BxGxMxK = self._remember('key', k_BxGxLxK, first_B)
      v_BxGxMxK = self._remember('value', v_BxGxMxK, first_B)
    out_BxHxLxK = attention.attend(
      config,
      q_BxHxLxK,
      k_BxGxMxK,
      v_BxGxMxK,
      length=length,
      window=config.window if self.window else None,
      first_B=first_B,
    )
    out_TxD = out_BxHxLxK.transpose(0, 2, 1, 3).reshape(len(x_TxD), -1)
    return _dense(config, 'attention/out', config.embed_dim)(out_TxD)

  def _heads(self, name, num_heads, x_TxD, shape):
    """Queries, keys or values: [B, number, L, K]."""
    x = _dense(
      self.config, f'attention/{name}', num_heads * self.config.head_width
    )(x_TxD)
    x_BxLxHxK = x.reshape(*shape, num_heads, -1)
    if self.config.qk_norm and name != 'value':
      x_BxLxHxK = RmsNorm(self.config, name=f'{name}_norm')(x_BxLxHxK)
    return x_BxLxHxK.transpose(0, 2, 1, 3)

  def _remember(self, name, new_BxGxLxK, first_B):
    """Writes new entries into the cache from first_B on; returns all of it."""

    def write(past_GxMxK, new_GxLxK, first):
      return jax.lax.dynamic_update_slice(past_GxMxK, new_GxLxK, (0, first, 0))

    past_BxGxMxK = self.get_variable('cache', name)
    known_BxGxMxK = jax.vmap(write)(past_BxGxMxK, new_BxGxLxK, first_B)
    self.put_variable('cache', name, known_BxGxMxK)
    return known_BxGxMxK


class Mlp(nn.Module):
  config: presets.TransformerConfig

  @nn.compact
  def __call__(self, x_TxD):
    config = self.config
    activation = _ACTIVATIONS[config.activation]
    hidden_TxF = _dense(config, 'mlp/up', config.mlp_dim)(x_TxD)
    if config.gated:
      hidden_TxF *= activation(
        _dense(config, 'mlp/gate', config.mlp_dim)(x_TxD)
      )
    else:
      hidden_TxF = activation(hidden_TxF)
    return _dense(config, 'mlp/down', config.embed_dim)(hidden_TxF)


class Layer(nn.Module):
  """Attention and MLP, each on a residual branch: [T, D] to [T, D]."""

  config: presets.TransformerConfig
  window: bool

  @nn.compact
  def __call__(self, x_TxD, length, first_B, shape, deterministic):
    config = self.config
    attend = functools.partial(
      Attention(config, self.window, name='attention'),
      length=length,
      first_B=first_B,
      shape=shape,
    )
    mlp = Mlp(config, name='mlp')
    attention_norm = _norm(config, 'attention_norm')
    mlp_norm = _norm(config, 'mlp_norm')
    dropout = nn.Dropout(config.dropout, deterministic=deterministic)
    if config.norm == 'post':
      x_TxD = attention_norm(x_TxD + dropout(attend(x_TxD)))
      return mlp_norm(x_TxD + dropout(mlp(x_TxD)))
    change_TxD = attend(attention_norm(x_TxD))
    if config.norm == 'both':
      change_TxD = _norm(config, 'attention_out_norm')(change_TxD)
    attended_TxD = x_TxD + dropout(change_TxD)
    change_TxD = mlp(mlp_norm(x_TxD if config.parallel else attended_TxD))
    if config.norm == 'both':
      change_TxD = _norm(config, 'mlp_out_norm')(change_TxD)
    return attended_TxD + dropout(change_TxD)


def _policy(config):
  policies = jax.checkpoint_policies
  policy = getattr(policies, config.remat)
  if config.remat != 'dots_saveable':
    return policy
  # What the kernel makes is the result of matmuls, too.
  kernel = policies.save_only_these_names(attention.SPLASH_RESULTS)
  return policies.save_from_both_policies(policy, kernel)


class Transformer(nn.Module):
  """Trunk: tokens_BxL to hidden states_BxLxD in `dtype`.

  `length` is [B], or [B, S] if rows hold S texts. States at padding positions
  are finite but meaningless.

  Raises:
    errors.UserError: L is above `max_positions` per text (when traced).
  """

  config: presets.TransformerConfig

  @nn.compact
  def __call__(self, tokens_BxL, length, deterministic=True, first_B=None):
    config = self.config
    x_BxLxD = self._embed(tokens_BxL, length, first_B)
    # [T, D] from here on: a sixth faster on CPU than [B, L, D].
    x_TxD = x_BxLxD.reshape(-1, config.embed_dim)
    if config.norm == 'post':
      x_TxD = _norm(config, 'embed_norm')(x_TxD)
    x_TxD = nn.Dropout(config.dropout, deterministic=deterministic)(x_TxD)
    rows = length, first_B, tokens_BxL.shape, deterministic
    if self.has_variable('params', 'layers'):
      x_TxD = self._scan(x_TxD, *rows)
    else:
      layer_class = Layer
      if config.remat:
        layer_class = nn.remat(
          Layer, static_argnums=(4, 5), policy=_policy(config)
        )
      for i in range(config.num_layers):
        x_TxD = sharding.constrain_batch(x_TxD)
        layer = layer_class(config, config.has_window(i), name=f'layer_{i}')
        x_TxD = layer(x_TxD, *rows)
    if config.norm != 'post':
      x_TxD = _norm(config, 'final_norm')(x_TxD)
    return sharding.constrain_batch(x_TxD).reshape(x_BxLxD.shape)

  def _scan(self, x_TxD, length, first_B, shape, deterministic):
    """All layers of a stack, see stacking.py."""
    config = self.config
    layer = Layer(config, config.has_window(0), parent=None)
    dropout = None
    if config.dropout and not deterministic:
      dropout = self.make_rng('dropout')

    def apply(x_TxD, stacked):
      params, i = stacked
      rngs = {}
      if dropout is not None:
        rngs['dropout'] = jax.random.fold_in(dropout, i)
      x_TxD = sharding.constrain_batch(x_TxD)
      rows = length, first_B, shape, deterministic
      return layer.apply({'params': params}, x_TxD, *rows, rngs=rngs), None

    if config.remat:
      apply = jax.checkpoint(apply, policy=_policy(config), prevent_cse=False)
    stack = self.get_variable('params', 'layers')
    x_TxD, _ = jax.lax.scan(apply, x_TxD, (stack, np.arange(config.num_layers)))
    return x_TxD

  def _embed(self, tokens_BxL, length, first_B):
    config, limit = self.config, self.config.max_positions
    num_tokens = tokens_BxL.shape[1]
    check_length(config, math.ceil(num_tokens * len(length) / length.size))

    def table(size, name):
      embed = nn.Embed(
        size,
        config.embed_dim,
        embedding_init=nn.initializers.normal(0.02),
        param_dtype=config.param_dtype,
        name=name,
      )
      return embed.embedding.astype(config.dtype)

    token_VxD = table(config.vocab_size, 'token_embed')
    x_BxLxD = sharding.look_up(token_VxD, tokens_BxL)
    if config.embed_scale:
      x_BxLxD *= jnp.asarray(config.embed_dim**0.5, config.dtype)
    if limit is not None and config.rotary_fraction is None:
      position_PxD = sharding.gather(table(limit, 'position_embed'))
      if first_B is None and length.ndim == 1:
        x_BxLxD += position_PxD[None, :num_tokens]
      else:
        position_BxL = attention.positions(num_tokens, first_B)
        if length.ndim == 2:
          position_BxL -= attention.texts_before(length, num_tokens)[1]
        x_BxLxD += jnp.take(position_PxD, position_BxL, axis=0, mode='clip')
    if config.type_vocab_size:  # inputs are one segment, of type 0
      type_KxD = sharding.gather(table(config.type_vocab_size, 'type_embed'))
      x_BxLxD += type_KxD[None, :1]
    if config.reads == 'board':  # attackers and targets of each piece
      attacks_BxLxL = chess_attacks.attacks(tokens_BxL, length).astype(
        config.dtype
      )

      def of_kind(name):
        kind_KxD = table(chess.NUM_KINDS, name)
        return sharding.look_up(kind_KxD, tokens_BxL // 64)

      x_BxLxD += attacks_BxLxL @ of_kind('attacked_embed')
      x_BxLxD += attacks_BxLxL.swapaxes(1, 2) @ of_kind('attacker_embed')
    if not config.tied:  # read by next_token_logits only
      table(config.vocab_size, 'output_embed')
    return x_BxLxD


def check_length(config, num_tokens):
  """Raises errors.UserError if the positions are too few for such a text."""
  limit = config.max_positions
  if limit is not None and num_tokens > limit:
    raise errors.UserError(
      f'A text of length {num_tokens} does not fit the {limit} positions of '
      'the model: lower the maximum length of the data.'
    )


@functools.lru_cache(maxsize=64)
def parameter_shapes(config):
  """Returns a nested dict of jax.ShapeDtypeStruct; do not modify it.

  All layers are alike: one of them is traced.
  """
  one = dataclasses.replace(config, num_layers=min(1, config.num_layers))

  def params():  # nothing is computed: a mesh in scope may not be attached
    row = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    return Transformer(one).init(jax.random.key(0), *row)['params']

  shapes = jax.eval_shape(params)
  if layer := shapes.pop('layer_0', None):
    shapes |= {f'layer_{i}': layer for i in range(config.num_layers)}
  return dict(sorted(shapes.items()))  # as JAX orders a dict


def pool(x_BxLxD, length, pooling):
  """Pools hidden states to one float32 vector per text, 0 for an empty text.

  Args:
    x_BxLxD: hidden states.
    length: [B], or [B, S] if rows hold S texts.
    pooling: 'mean' over the real tokens, or the 'last' of them.

  Returns:
    pooled_BxD or pooled_BxSxD.
  """
  place_1x1xL = jnp.arange(x_BxLxD.shape[1])[None, None]
  length_BxSx1 = length.reshape(len(length), -1, 1)
  end_BxSx1 = jnp.cumsum(length_BxSx1, axis=1)
  inside_BxSxL = place_1x1xL < end_BxSx1
  inside_BxSxL &= place_1x1xL >= end_BxSx1 - length_BxSx1
  if pooling == 'mean':
    weight_BxSxL = inside_BxSxL / jnp.maximum(length_BxSx1, 1)
  else:
    weight_BxSxL = inside_BxSxL & (place_1x1xL == end_BxSx1 - 1)
  x_Bx1xLxD = x_BxLxD[:, None].astype(jnp.float32)
  pooled_BxSxD = jnp.sum(weight_BxSxL[..., None] * x_Bx1xLxD, axis=2)
  return pooled_BxSxD.reshape(*length.shape, -1)


def output_table(params):
  """Returns the embedding_VxD of a trunk that scores the next token."""
  return params.get('output_embed', params['token_embed'])['embedding']


def next_token_logits(x_RxD, params, config):
  """Returns float32 logits_RxV of the token after each state x_RxD.

  R may be several axes. Of states in bfloat16 the products are exact and summed
  in float32, in one pass of a TPU in place of six for float32.
  """
  table_VxD = sharding.gather(output_table(params)).astype(x_RxD.dtype)
  logits_RxV = jnp.matmul(
    x_RxD,
    table_VxD.T,
    precision=EXACT if x_RxD.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  return attention.cap(logits_RxV, config.logits_cap)
