"""Scaled dot-product attention: einsum on every chip, cuDNN on NVIDIA GPUs.

Shapes as in transformer.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax import errors
from w2s_jax.models import matmul

KINDS = ('auto', 'einsum', 'cudnn')


def attend(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows):
  """Returns the attended values: [B, H, L, K].

  Args:
    config: of the trunk. Its field `attention` is one of KINDS; 'auto' is
      cuDNN where it can compute this attention, else einsum.
    q_BxHxLxK, k_BxGxMxK, v_BxGxMxK: queries, keys and values. Heads of queries
      that share keys and values are adjacent.
    **rows: length, window and first_B, which define the mask: see `einsum`.

  Raises:
    errors.UserError: config.attention is unknown, or is 'cudnn' where cuDNN
      cannot compute it.
  """
  if config.attention not in KINDS:
    raise errors.UserError(
      f'attention={config.attention!r} must be one of {", ".join(KINDS)}.'
    )
  # With a cache, rows are at different positions: cuDNN has no mask for that.
  if config.attention == 'einsum' or rows['first_B'] is not None:
    return einsum(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)
  obstacle = _obstacle_to_cudnn(config, rows['length'])
  if obstacle is None:
    del rows['first_B']
    return fused(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)
  if config.attention == 'cudnn':
    raise errors.UserError(
      f"attention='cudnn' {obstacle}; use 'auto' or 'einsum'."
    )
  return einsum(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)


def _obstacle_to_cudnn(config, length):
  """Returns why cuDNN cannot compute this attention, or None if it can."""
  device, capability = jax.devices()[0], 0.0
  if device.device_kind.startswith('NVIDIA'):
    capability = float(device.compute_capability)
  widest = 256 if capability >= 9 else 128
  width = config.head_width
  obstacles = (
    (capability < 8, 'needs an NVIDIA GPU of compute capability 8.0 or above'),
    (
      config.dtype not in ('bfloat16', 'float16'),
      f"needs dtype='bfloat16', not {config.dtype!r}",
    ),
    (
      width % 8 or width > widest,
      f'needs a head width of at most {widest} and a multiple of 8, not '
      f'{width}',
    ),
    (config.attention_cap is not None, 'cannot cap attention scores'),
    (length.ndim != 1, 'cannot keep the texts of one row apart'),
  )
  return next((why for found, why in obstacles if found), None)


def fused(
  config,
  q_BxHxLxK,
  k_BxGxLxK,
  v_BxGxLxK,
  *,
  length,
  window,
  implementation='cudnn',
):
  """Attention in one kernel, without the matrix of scores in memory.

  Args:
    config, q_BxHxLxK, k_BxGxLxK, v_BxGxLxK: as of `attend`.
    length, window: as of `einsum`, with one text per row.
    implementation: of jax.nn.dot_product_attention. 'xla' is the same function
      on all chips, with the matrix of scores.
  """
  length_B = None
  if not config.causal:
    # At least 1, so that a padding row (length 0) is not NaN.
    length_B = jnp.maximum(length, 1).astype(jnp.int32)
  out_BxLxHxK = jax.nn.dot_product_attention(
    *(x.swapaxes(1, 2) for x in (q_BxHxLxK, k_BxGxLxK, v_BxGxLxK)),
    scale=config.query_width**-0.5,
    is_causal=config.causal,
    key_value_seq_lengths=length_B,
    local_window_size=None if window is None else (window - 1, 0),
    implementation=implementation,
  )
  return out_BxLxHxK.swapaxes(1, 2)


def einsum(
  config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, *, length, window, first_B=None
):
  """Attention with a float32 softmax over a matrix of scores.

  Args:
    config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK: as of `attend`.
    length: tokens of each row [B], or of each of its S texts [B, S].
    window: number of keys that a query of a decoder sees; None: all.
    first_B: with a cache, the position of the first query of each row.
  """
  shape = q_BxHxLxK.shape
  position_BxL = positions(shape[2], first_B)
  mask_BxHxLxM = attention_mask(
    position_BxL,
    length,
    k_BxGxMxK.shape[2],
    causal=config.causal,
    window=window,
  )
  # Heads that share keys and values are reshaped into one with more queries.
  grouped = (shape[0], config.kv_heads, -1, shape[-1])
  scores_BxGxQxM = _product(
    config,
    'bgqk,bgmk->bgqm',
    (q_BxHxLxK * config.query_width**-0.5).reshape(grouped),
    k_BxGxMxK,
    dtype=jnp.float32,
  )
  scores_BxHxLxM = scores_BxGxQxM.reshape(*shape[:3], -1)
  scores_BxHxLxM = cap(scores_BxHxLxM, config.attention_cap)
  # Finite, so that a padding row (length 0, every key masked) is not NaN.
  lowest = jnp.finfo(jnp.float32).min
  scores_BxHxLxM = jnp.where(mask_BxHxLxM, scores_BxHxLxM, lowest)
  weights_BxHxLxM = nn.softmax(scores_BxHxLxM).astype(v_BxGxMxK.dtype)
  weights_BxGxQxM = weights_BxHxLxM.reshape(scores_BxGxQxM.shape)
  out = _product(
    config,
    'bgqm,bgmk->bgqk',
    weights_BxGxQxM,
    v_BxGxMxK,
    dtype=v_BxGxMxK.dtype,
  )
  return out.reshape(shape)


def _product(config, equation, x, y, *, dtype):
  if config.matmul_dtype:
    return matmul.rounded(equation, x, y)
  return jnp.einsum(equation, x, y, preferred_element_type=dtype)


def positions(num_tokens, first_B):
  """Returns the position of each token: [B, L], or [1, L] without a cache."""
  position_BxL = jnp.arange(num_tokens)[None]
  return position_BxL if first_B is None else position_BxL + first_B[:, None]


def attention_mask(position_BxL, length, num_keys, *, causal, window):
  """Returns which of M keys each query attends to: bool, broadcasts to BxHxLxM.

  With one text per row a decoder needs no length: padding is on the right, so
  the causal mask hides it from real tokens.
  """
  key_1x1xM = jnp.arange(num_keys)[None, None]
  if length.ndim == 1 and not causal:
    return (key_1x1xM < length[:, None, None])[:, None]
  mask_BxLxM = True
  if length.ndim == 2:
    text_BxL, _ = texts_before(length, num_keys)
    mask_BxLxM = text_BxL[:, :, None] == text_BxL[:, None]
  if causal:
    query_BxLx1 = position_BxL[:, :, None]
    mask_BxLxM &= key_1x1xM <= query_BxLx1
    if window is not None:
      mask_BxLxM &= key_1x1xM > query_BxLx1 - window
  return mask_BxLxM[:, None]


def texts_before(length_BxS, num_tokens):
  """Returns, for each position, the texts that end before it and their tokens.

  Both are [B, L].
  """
  end_BxSx1 = jnp.cumsum(length_BxS, axis=1)[:, :, None]
  passed_BxSxL = jnp.arange(num_tokens)[None, None] >= end_BxSx1
  tokens_BxSxL = passed_BxSxL * length_BxS[:, :, None]
  return jnp.sum(passed_BxSxL, axis=1), jnp.sum(tokens_BxSxL, axis=1)


def cap(x, limit):
  """Returns x, its size smoothly limited; None: no limit."""
  return x if limit is None else limit * jnp.tanh(x / limit)
