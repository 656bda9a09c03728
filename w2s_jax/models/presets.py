"""TransformerConfig, and presets with the sizes of published models.

The sizes are those of the published config.json files; a test compares the
number of parameters of each with the published one.
"""

import dataclasses
from typing import Literal

from w2s_jax.tasks import chess

# Policies of jax.checkpoint_policies: nothing, or results of matmuls.
REMAT = (
  'nothing_saveable',
  'dots_saveable',
  'dots_with_no_batch_dims_saveable',
)

MATMUL = '', 'bfloat16'


@dataclasses.dataclass(frozen=True, eq=False)
class TransformerConfig:
  """Defines a trunk; the defaults are those of GPT-2 and BERT.

  `norm` places the norms of a layer before each of its two blocks ('pre'),
  after the sum with the residual ('post'), or before and after each block
  ('both'). Only with 'post' are the embeddings normalised, and the last states
  not. Configs are equal if they define the same model: a default may be None or
  spelled out, and a tuple may be a list, as after JSON.
  """

  vocab_size: int
  max_positions: int | None  # None: no limit and no table of positions
  embed_dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  causal: bool
  norm: Literal['pre', 'post', 'both']
  activation: Literal['gelu', 'gelu_tanh', 'relu', 'silu']
  norm_eps: float
  pooling: Literal['mean', 'last']  # over the real tokens
  reads: Literal['text', 'board'] = 'text'
  type_vocab_size: int = 0  # 0: no table of types
  dropout: float = 0.0  # on the embeddings and on each residual branch
  dtype: str = 'float32'  # of the activations
  param_dtype: str = 'float32'
  # Of what the matmuls of the layers read: one of MATMUL, '' is `dtype`.
  matmul_dtype: str = ''
  # What of a layer the backward pass finds in memory: a name of REMAT; '' all.
  remat: str = ''
  # See attention.py.
  attention: Literal['auto', 'einsum', 'cudnn', 'splash'] = 'auto'
  norm_kind: Literal['layer', 'rms'] = 'layer'
  norm_offset: float = 0.0  # added to the scale of an RMS norm
  parallel: bool = False  # attention and MLP of a layer read the same states
  gated: bool = False  # MLP: activation(gate) * up in place of activation(up)
  biases: Literal['all', 'qkv', 'none'] = 'all'
  num_kv_heads: int | None = None  # None: num_heads
  head_dim: int | None = None  # None: embed_dim / num_heads
  qk_norm: bool = False  # RMS norms on each query and key
  query_scalar: int | None = None  # scores / sqrt(it); None: head_dim
  attention_cap: float | None = None  # cap * tanh(score / cap); None: no cap
  logits_cap: float | None = None  # the same, on the next-token logits
  rotary_fraction: float | None = None  # of each head; None: learned positions
  rope_base: float = 10_000.0
  rope_scaling: tuple | None = None  # (factor,), or 4 as in Llama 3.1
  window: int | None = None  # keys that a query sees, its own too; None: all
  full_every: int | None = None  # every so many layers, one without a window
  window_rope_base: float | None = None  # with a window; None: rope_base
  embed_scale: bool = False  # token embeddings times sqrt(embed_dim)
  tied: bool = True  # the output table is the token table

  @property
  def kv_heads(self):
    return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

  @property
  def head_width(self):
    if self.head_dim is None:
      return self.embed_dim // self.num_heads
    return self.head_dim

  @property
  def query_width(self):
    """Attention scores are divided by its square root."""
    return self.head_width if self.query_scalar is None else self.query_scalar

  def has_window(self, layer):
    if self.window is None:
      return False
    return self.full_every is None or (layer + 1) % self.full_every != 0

  def _spelled_out(self):
    fields = vars(self) | {
      'num_kv_heads': self.kv_heads,
      'head_dim': self.head_width,
      'query_scalar': self.query_width,
      'rope_scaling': tuple(self.rope_scaling or ()),
    }
    return tuple(fields.items())

  def __eq__(self, other):
    if not isinstance(other, TransformerConfig):
      return NotImplemented
    return self._spelled_out() == other._spelled_out()

  def __hash__(self):
    return hash(self._spelled_out())


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


def _bert(embed_dim, num_layers, num_heads):
  return _encoder(
    vocab_size=30522,
    max_positions=512,
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    mlp_dim=4 * embed_dim,
  )


def _decoder(**fields):
  defaults = dict(
    causal=True,
    norm='pre',
    activation='gelu_tanh',
    norm_eps=1e-5,
    pooling='last',
  )
  return TransformerConfig(**defaults | fields)


def _gpt2(embed_dim, num_layers, num_heads):
  return _decoder(
    vocab_size=50257,
    max_positions=1024,
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    mlp_dim=4 * embed_dim,
  )


def _pythia(embed_dim, num_layers, num_heads, vocab_size=50304):
  return _decoder(
    vocab_size=vocab_size,
    max_positions=2048,
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    mlp_dim=4 * embed_dim,
    activation='gelu',
    parallel=True,
    rotary_fraction=0.25,
    tied=False,
  )


def _llama(embed_dim, num_layers, num_heads, num_kv_heads, mlp_dim, **fields):
  """Returns the config of Llama 2, with `fields` of its successors."""
  defaults = dict(
    vocab_size=32000,
    max_positions=4096,
    activation='silu',
    norm_kind='rms',
    gated=True,
    biases='none',
    rotary_fraction=1.0,
    tied=False,
  )
  return _decoder(
    embed_dim=embed_dim,
    num_layers=num_layers,
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    mlp_dim=mlp_dim,
    **defaults | fields,
  )


def _llama3(*sizes, **fields):
  defaults = dict(vocab_size=128256, max_positions=8192, rope_base=500_000.0)
  return _llama(*sizes, **defaults | fields)


def _llama31(*sizes, factor, **fields):
  scaling = factor, 1.0, 4.0, 8192
  return _llama3(*sizes, max_positions=131_072, rope_scaling=scaling, **fields)


def _qwen(*sizes, **fields):
  """Returns the config of Qwen 1.5 or 2.5."""
  defaults = dict(
    vocab_size=152_064,
    max_positions=32_768,
    norm_eps=1e-6,
    biases='qkv',
    rope_base=1_000_000.0,
  )
  return _llama(*sizes, **defaults | fields)


def _qwen3(*sizes, head_dim=128, **fields):
  defaults = dict(
    vocab_size=151_936, max_positions=40_960, biases='none', qk_norm=True
  )
  return _qwen(*sizes, head_dim=head_dim, **defaults | fields)


def _gemma2(*sizes, head_dim=256, **fields):
  defaults = dict(
    vocab_size=256_000,
    max_positions=8192,
    norm='both',
    norm_eps=1e-6,
    norm_offset=1.0,
    activation='gelu_tanh',
    attention_cap=50.0,
    logits_cap=30.0,
    window=4096,
    full_every=2,
    embed_scale=True,
    tied=True,
  )
  return _llama(*sizes, head_dim=head_dim, **defaults | fields)


def _gemma3(*sizes, **fields):
  return _gemma2(
    *sizes,
    vocab_size=262_144,
    max_positions=32_768,
    attention_cap=None,
    logits_cap=None,
    qk_norm=True,
    window=512,
    full_every=6,
    rope_base=1_000_000.0,
    window_rope_base=10_000.0,
    **fields,
  )


def _smollm2(*sizes, **fields):
  defaults = dict(
    vocab_size=49_152, max_positions=8192, rope_base=100_000.0, tied=True
  )
  return _llama(*sizes, **defaults | fields)


def _board(embed_dim, num_layers, num_heads):
  return TransformerConfig(
    vocab_size=chess.VOCAB_SIZE,
    max_positions=None,
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

# Embeddings of hashed words, a norm, and their mean: no layers, no positions.
# Random at first, so its errors are no errors of a pretrained student.
_BAG = TransformerConfig(
  vocab_size=1024,
  max_positions=None,
  embed_dim=32,
  num_layers=0,
  num_heads=1,
  mlp_dim=32,
  causal=False,
  norm='post',
  activation='gelu',
  norm_eps=1e-12,
  pooling='mean',
)

# Sizes: width, layers, heads; then key-value heads (None: as many), MLP width.
PRESETS = {
  'minilm-l6': _bert(384, 6, 12),
  'bert-base': _bert(768, 12, 12),
  'bert-large': _bert(1024, 24, 16),
  'gpt2': _gpt2(768, 12, 12),
  'gpt2-medium': _gpt2(1024, 24, 16),
  'gpt2-large': _gpt2(1280, 36, 20),
  'gpt2-xl': _gpt2(1600, 48, 25),
  'pythia-14m': _pythia(128, 6, 4),
  'pythia-31m': _pythia(256, 6, 8),
  'pythia-70m': _pythia(512, 6, 8),
  'pythia-160m': _pythia(768, 12, 12),
  'pythia-410m': _pythia(1024, 24, 16),
  'pythia-1b': _pythia(2048, 16, 8),
  'pythia-1.4b': _pythia(2048, 24, 16),
  'pythia-2.8b': _pythia(2560, 32, 32),
  'pythia-6.9b': _pythia(4096, 32, 32, vocab_size=50432),
  'pythia-12b': _pythia(5120, 36, 40, vocab_size=50688),
  'llama-2-7b': _llama(4096, 32, 32, None, 11008),
  'llama-2-13b': _llama(5120, 40, 40, None, 13824),
  'llama-2-70b': _llama(8192, 80, 64, 8, 28672),
  'llama-3-8b': _llama3(4096, 32, 32, 8, 14336),
  'llama-3-70b': _llama3(8192, 80, 64, 8, 28672),
  'llama-3.1-8b': _llama31(4096, 32, 32, 8, 14336, factor=8.0),
  'llama-3.1-70b': _llama31(8192, 80, 64, 8, 28672, factor=8.0),
  'llama-3.2-1b': _llama31(2048, 16, 32, 8, 8192, factor=32.0, tied=True),
  'llama-3.2-3b': _llama31(3072, 28, 24, 8, 8192, factor=32.0, tied=True),
  'mistral-7b-v0.1': _llama(
    4096, 32, 32, 8, 14336, max_positions=32_768, window=4096
  ),
  'qwen1.5-0.5b': _qwen(
    1024, 24, 16, None, 2816, vocab_size=151_936, tied=True
  ),
  'qwen1.5-1.8b': _qwen(2048, 24, 16, None, 5504, vocab_size=151_936),
  'qwen1.5-4b': _qwen(
    2560, 40, 20, None, 6912, vocab_size=151_936, rope_base=5_000_000.0
  ),
  'qwen1.5-7b': _qwen(4096, 32, 32, None, 11008, vocab_size=151_936),
  'qwen1.5-14b': _qwen(5120, 40, 40, None, 13696),
  'qwen1.5-32b': _qwen(5120, 64, 40, 8, 27392),
  'qwen1.5-72b': _qwen(8192, 80, 64, None, 24576),
  'qwen2.5-0.5b': _qwen(896, 24, 14, 2, 4864, vocab_size=151_936, tied=True),
  'qwen2.5-1.5b': _qwen(
    *(1536, 28, 12, 2, 8960),
    vocab_size=151_936,
    max_positions=131_072,
    tied=True,
  ),
  'qwen2.5-3b': _qwen(2048, 36, 16, 2, 11008, vocab_size=151_936, tied=True),
  'qwen2.5-7b': _qwen(3584, 28, 28, 4, 18944, max_positions=131_072),
  'qwen2.5-14b': _qwen(
    5120, 48, 40, 8, 13824, max_positions=131_072, norm_eps=1e-5
  ),
  'qwen2.5-32b': _qwen(
    5120, 64, 40, 8, 27648, max_positions=131_072, norm_eps=1e-5
  ),
  'qwen2.5-72b': _qwen(
    8192, 80, 64, 8, 29568, max_positions=131_072, norm_eps=1e-5
  ),
  'qwen3-0.6b': _qwen3(1024, 28, 16, 8, 3072, tied=True),
  'qwen3-1.7b': _qwen3(2048, 28, 16, 8, 6144, tied=True),
  'qwen3-4b': _qwen3(2560, 36, 32, 8, 9728, tied=True),
  'qwen3-8b': _qwen3(4096, 36, 32, 8, 12288),
  'qwen3-14b': _qwen3(5120, 40, 40, 8, 17408),
  'qwen3-32b': _qwen3(5120, 64, 64, 8, 25600),
  'gemma-2-2b': _gemma2(2304, 26, 8, 4, 9216),
  'gemma-2-9b': _gemma2(3584, 42, 16, 8, 14336),
  'gemma-2-27b': _gemma2(
    4608, 46, 32, 16, 36864, head_dim=128, query_scalar=144
  ),
  'gemma-3-270m': _gemma3(640, 18, 4, 1, 2048),
  'gemma-3-1b': _gemma3(1152, 26, 4, 1, 6912),
  'smollm2-135m': _smollm2(576, 30, 9, 3, 1536),
  'smollm2-360m': _smollm2(960, 32, 15, 5, 2560),
  'smollm2-1.7b': _smollm2(2048, 24, 32, None, 8192, rope_base=130_000.0),
  'board-xs': _board(16, 2, 2),
  'board-s': _board(32, 3, 4),
  'board-m': _board(64, 4, 4),
  'board-l': _board(128, 4, 4),
  'bag': _BAG,
  'tiny-encoder': _encoder(**_TINY),
  'tiny-decoder': _decoder(**_TINY),
}
