"""Scaled dot-product attention: einsum on every chip, kernels on some.

Kernels do not write the matrix of scores to memory: that of cuDNN on NVIDIA
GPUs, and on TPUs the splash (sparse flash) attention of JAX, in Pallas. Shapes
as in transformer.py.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import matmul

KINDS = ('auto', 'einsum', 'cudnn', 'splash')
# The name, for jax.checkpoint_policies, of what the backward pass of splash
# attention reads beside queries, keys and values.
SPLASH_RESULTS = 'splash_attention'
# A kernel on a TPU works on blocks of tokens; lengths are multiples of this.
_BLOCK = 128
_LARGEST_BLOCK = 512


def attend(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows):
  """Returns the attended values: [B, H, L, K].

  Args:
    config: of the trunk. Its field `attention` is one of KINDS; 'auto' is a
      kernel where one can compute this attention, else einsum.
    q_BxHxLxK, k_BxGxMxK, v_BxGxMxK: queries, keys and values. Heads of queries
      that share keys and values are adjacent.
    **rows: length, window and first_B, which define the mask: see `einsum`.

  Raises:
    errors.UserError: config.attention is unknown, or is a kernel that cannot
      compute it.
  """
  if config.attention not in KINDS:
    raise errors.UserError(
      f'attention={config.attention!r} must be one of {", ".join(KINDS)}.'
    )
  # With a cache, rows are at different positions: no kernel has such a mask.
  if config.attention == 'einsum' or rows['first_B'] is not None:
    return einsum(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)
  kernels = {
    'cudnn': (_obstacle_to_cudnn, fused),
    'splash': (_obstacle_to_splash, splash),
  }
  for name, (obstacle_to, kernel) in kernels.items():
    if config.attention in ('auto', name):
      obstacle = obstacle_to(config, rows['length'])
      if obstacle is None:
        del rows['first_B']
        return kernel(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)
      if config.attention == name:
        raise errors.UserError(
          f"attention='{name}' {obstacle}; use 'auto' or 'einsum'."
        )
  return einsum(config, q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, **rows)


def _obstacle_to_cudnn(config, length):
  """Returns why cuDNN cannot compute this attention, or None if it can."""
  capability = 0.0
  if sharding.device_kind().startswith('NVIDIA'):
    # A mesh does not tell; GPUs that programs are traced for are attached.
    capability = float(getattr(jax.devices()[0], 'compute_capability', 0))
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


def _obstacle_to_splash(config, length):
  """Returns why splash attention cannot compute this, or None if it can."""
  del length  # of one text a row, or of several
  kind = sharding.device_kind()
  able = kind.startswith('TPU') and kind not in ('TPU v2', 'TPU v3')
  obstacles = (
    (not able, f'needs a TPU, v4 or later, not a device of kind {kind!r}'),
    (
      config.matmul_dtype,
      f"needs matmul_dtype='', not {config.matmul_dtype!r}: a TPU rounds what "
      'matmuls read anyway',
    ),
  )
  return next((why for found, why in obstacles if found), None)


def splash(
  config,
  q_BxHxLxK,
  k_BxGxLxK,
  v_BxGxLxK,
  *,
  length,
  window,
  interpret=False,
):
  """Splash attention: skips blocks of scores that a mask or window hides.

  Sums and the softmax are float32. What the products read is float32 or
  bfloat16, as `dtype`; a TPU rounds float32 there by default, as in einsum.

  Lengths are padded to multiples of a block. Rows shorter than one are left to
  einsum: they would be mostly padding, and their scores are small. So is a
  batch that the mesh does not divide, as the one row that the shapes of
  parameters are inferred with.

  Args:
    config, q_BxHxLxK, k_BxGxLxK, v_BxGxLxK: as of `attend`.
    length, window: as of `einsum`.
    interpret: whether to interpret the kernel, on any device.
  """
  batch_size, _, num_tokens, _ = q_BxHxLxK.shape
  if num_tokens < _BLOCK or batch_size % sharding.batch_ways():
    heads = q_BxHxLxK, k_BxGxLxK, v_BxGxLxK
    return einsum(config, *heads, length=length, window=window)
  from jax.experimental.pallas.ops.tpu import splash_attention

  missing = -num_tokens % _BLOCK

  def attend_shard(heads, length):
    heads = [jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) for x in heads]
    texts = None
    if not config.causal or length.ndim == 2:
      # Padding is a text of its own, so that its queries have keys to see.
      length_BxS = length.reshape(len(length), -1)
      text_BxL, _ = texts_before(length_BxS, num_tokens + missing)
      texts = splash_attention.SegmentIds(text_BxL, text_BxL)
    kernel = _splash_kernel(
      config, window, heads[0].shape[1:3], interpret=interpret
    )
    return jax.vmap(kernel)(*heads, texts)[:, :, :num_tokens]

  scaled_BxHxLxK = q_BxHxLxK * config.query_width**-0.5
  return sharding.map_heads(
    attend_shard, (scaled_BxHxLxK, k_BxGxLxK, v_BxGxLxK), length
  )


def _splash_kernel(config, window, shape, *, interpret):
  """Returns the kernel for one row of (heads, tokens) queries."""
  # Imported here, for it takes a second.
  from jax.experimental.pallas.ops.tpu import splash_attention

  num_heads, num_tokens = shape
  mask = _splash_mask(num_tokens, causal=config.causal, window=window)
  # Large blocks keep the matrix units of a TPU busy.
  sizes = range(_BLOCK, _LARGEST_BLOCK + 1, _BLOCK)
  block = max(size for size in sizes if num_tokens % size == 0)
  names = 'q kv kv_compute q_dkv kv_dkv kv_dkv_compute q_dq kv_dq'.split()
  return splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([mask] * num_heads),
    block_sizes=splash_attention.BlockSizes(
      **{f'block_{name}': block for name in names}
    ),
    attn_logits_soft_cap=config.attention_cap,
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=SPLASH_RESULTS,
    interpret=interpret,
  )


@functools.lru_cache(maxsize=64)
def _splash_mask(num_tokens, *, causal, window):
  """Returns the same mask for layers that are alike.

  JAX traces and compiles a kernel once for each mask object.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention

  square = num_tokens, num_tokens
  if not causal:
    return splash_attention.FullMask(square)
  if window is None:
    return splash_attention.CausalMask(square)
  return splash_attention.LocalMask(square, (window - 1, 0), offset=0)


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
