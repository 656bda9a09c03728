"""Families of models at Hugging Face: config.json and names of tensors.

Each family is one `Family`, read in both directions: its table says where each
stored tensor goes, and what is written under which name.
"""

import dataclasses
import re
from typing import Callable
from typing import NamedTuple

import numpy as np

from w2s_jax import errors
from w2s_jax.models import presets
from w2s_jax.tasks import chess

_ACTIVATIONS = {
  'relu': 'relu',
  'gelu': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'silu': 'silu',
}


class Layout(NamedTuple):
  """How one stored tensor holds parameters."""

  split: Callable  # (tensor, config) -> an array for each parameter
  join: Callable  # (arrays, config) -> tensor


def _split_heads(tensor, config):
  """Of GPT-NeoX: query, key and value of the first head, of the second, ..."""
  by_head = tensor.reshape(config.num_heads, 3, -1, *tensor.shape[1:])
  return [by_head[:, i].reshape(-1, *tensor.shape[1:]).T for i in range(3)]


def _join_heads(arrays, config):
  parts = [x.T.reshape(config.num_heads, -1, *x.T.shape[1:]) for x in arrays]
  return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[2:])


AS_IS = Layout(lambda x, config: [x], lambda arrays, config: arrays[0])
TRANSPOSED = Layout(lambda x, config: [x.T], lambda arrays, config: arrays[0].T)
_THIRDS = Layout(
  lambda x, config: np.split(x, 3, axis=-1),
  lambda arrays, config: np.concatenate(arrays, axis=-1),
)
_HEADS = Layout(_split_heads, _join_heads)


class Row(NamedTuple):
  """Names may hold a '{i}', the number of a layer."""

  stored: str
  paths: tuple
  layout: Layout = AS_IS


def embedding(stored, path):
  return (Row(f'{stored}.weight', (f'{path}/embedding',)),)


def norm(stored, path, bias=True):
  scale = Row(f'{stored}.weight', (f'{path}/scale',))
  return (scale, Row(f'{stored}.bias', (f'{path}/bias',)))[: 1 + bias]


def linear(stored, path, bias=True, layout=TRANSPOSED):
  """A torch Linear stores [out, in], a Conv1D of GPT-2 [in, out]."""
  kernel = Row(f'{stored}.weight', (f'{path}/kernel',), layout)
  return (kernel, Row(f'{stored}.bias', (f'{path}/bias',)))[: 1 + bias]


def _fused(stored, layout):
  """Query, key and value of a layer in one tensor."""
  return tuple(
    Row(
      f'{stored}.{name}',
      tuple(
        f'layer_{{i}}/attention/{part}/{leaf}'
        for part in ('query', 'key', 'value')
      ),
      layout,
    )
    for name, leaf in (('weight', 'kernel'), ('bias', 'bias'))
  )


@dataclasses.dataclass(frozen=True)
class Family:
  architecture: str  # what `transformers` calls the model that is written
  prefix: str  # of the names of the trunk, where it sits in a larger model
  rows: tuple  # names without the prefix; () where they are our own paths
  ignored: dict  # regex of a name that needs no place -> why
  sizes: dict  # our config field -> field of config.json
  activation: str  # its field of config.json
  fixed: dict  # our config fields that hold for the whole family
  only: dict  # field of config.json -> the one value that is implemented
  defaults: dict  # field of config.json -> its value where it is absent
  output: str = ''  # name of an output table that is not tied
  full_every: int = 0  # where layers with and without a window alternate
  renamed: tuple = ()  # (part of an old name, its new form)


_BERT = Family(
  architecture='BertModel',
  prefix='bert.',
  rows=(
    *embedding('embeddings.word_embeddings', 'token_embed'),
    *embedding('embeddings.position_embeddings', 'position_embed'),
    *embedding('embeddings.token_type_embeddings', 'type_embed'),
    *norm('embeddings.LayerNorm', 'embed_norm'),
    *(
      row
      for name in ('query', 'key', 'value')
      for row in linear(
        f'encoder.layer.{{i}}.attention.self.{name}',
        f'layer_{{i}}/attention/{name}',
      )
    ),
    *linear(
      'encoder.layer.{i}.attention.output.dense', 'layer_{i}/attention/out'
    ),
    *norm(
      'encoder.layer.{i}.attention.output.LayerNorm', 'layer_{i}/attention_norm'
    ),
    *linear('encoder.layer.{i}.intermediate.dense', 'layer_{i}/mlp/up'),
    *linear('encoder.layer.{i}.output.dense', 'layer_{i}/mlp/down'),
    *norm('encoder.layer.{i}.output.LayerNorm', 'layer_{i}/mlp_norm'),
  ),
  ignored={
    r'embeddings\.position_ids': 'a constant',
    r'pooler\.dense\.(weight|bias)': 'mean pooling replaces it',
    r'cls\..*': 'pretraining heads; ours replaces them',
  },
  sizes=dict(
    vocab_size='vocab_size',
    max_positions='max_position_embeddings',
    embed_dim='hidden_size',
    num_layers='num_hidden_layers',
    num_heads='num_attention_heads',
    mlp_dim='intermediate_size',
    norm_eps='layer_norm_eps',
    type_vocab_size='type_vocab_size',
  ),
  activation='hidden_act',
  fixed=dict(causal=False, norm='post', pooling='mean'),
  only=dict(
    position_embedding_type='absolute',
    is_decoder=False,
    add_cross_attention=False,
  ),
  defaults={},
  renamed=(
    ('LayerNorm.gamma', 'LayerNorm.weight'),
    ('LayerNorm.beta', 'LayerNorm.bias'),
  ),
)

_CAUSAL = dict(causal=True, norm='pre', pooling='last')

_GPT2 = Family(
  architecture='GPT2LMHeadModel',
  prefix='transformer.',
  rows=(
    *embedding('wte', 'token_embed'),
    *embedding('wpe', 'position_embed'),
    *norm('h.{i}.ln_1', 'layer_{i}/attention_norm'),
    *_fused('h.{i}.attn.c_attn', _THIRDS),
    *linear('h.{i}.attn.c_proj', 'layer_{i}/attention/out', layout=AS_IS),
    *norm('h.{i}.ln_2', 'layer_{i}/mlp_norm'),
    *linear('h.{i}.mlp.c_fc', 'layer_{i}/mlp/up', layout=AS_IS),
    *linear('h.{i}.mlp.c_proj', 'layer_{i}/mlp/down', layout=AS_IS),
    *norm('ln_f', 'final_norm'),
  ),
  ignored={r'h\.\d+\.attn\.(bias|masked_bias)': 'the causal mask, a constant'},
  sizes=dict(
    vocab_size='vocab_size',
    max_positions='n_positions',
    embed_dim='n_embd',
    num_layers='n_layer',
    num_heads='n_head',
    mlp_dim='n_inner',
    norm_eps='layer_norm_epsilon',
    tied='tie_word_embeddings',
  ),
  activation='activation_function',
  fixed=_CAUSAL,
  only=dict(
    scale_attn_weights=True,
    scale_attn_by_inverse_layer_idx=False,
    add_cross_attention=False,
  ),
  defaults=dict(tie_word_embeddings=True),
  output='lm_head',
)

_SIZES = dict(
  vocab_size='vocab_size',
  max_positions='max_position_embeddings',
  embed_dim='hidden_size',
  num_layers='num_hidden_layers',
  num_heads='num_attention_heads',
  mlp_dim='intermediate_size',
  rope_scaling='rope_scaling',
  tied='tie_word_embeddings',
)

_NEOX = Family(
  architecture='GPTNeoXForCausalLM',
  prefix='gpt_neox.',
  rows=(
    *embedding('embed_in', 'token_embed'),
    *norm('layers.{i}.input_layernorm', 'layer_{i}/attention_norm'),
    *_fused('layers.{i}.attention.query_key_value', _HEADS),
    *linear('layers.{i}.attention.dense', 'layer_{i}/attention/out'),
    *norm('layers.{i}.post_attention_layernorm', 'layer_{i}/mlp_norm'),
    *linear('layers.{i}.mlp.dense_h_to_4h', 'layer_{i}/mlp/up'),
    *linear('layers.{i}.mlp.dense_4h_to_h', 'layer_{i}/mlp/down'),
    *norm('final_layer_norm', 'final_norm'),
  ),
  ignored={
    r'layers\.\d+\.attention\.(bias|masked_bias)': 'the causal mask',
    r'layers\.\d+\.attention\.rotary_emb\.inv_freq': 'a constant',
  },
  sizes=_SIZES
  | dict(
    norm_eps='layer_norm_eps',
    parallel='use_parallel_residual',
    rotary_fraction='rotary_pct',
    rope_base='rotary_emb_base',
  ),
  activation='hidden_act',
  fixed=_CAUSAL,
  only=dict(attention_bias=True),
  defaults=dict(
    use_parallel_residual=True,
    rotary_pct=0.25,
    rotary_emb_base=10_000,
    tie_word_embeddings=False,
  ),
  output='embed_out',
)


def _llama(architecture, *, qkv_bias=False, qk_norm=False, after=False, **has):
  """Llama and what came after it.

  Args:
    qkv_bias, qk_norm, after: its layers have such tensors, the last being norms
      after each block.
    has: fields of Family, beyond or in place of those of Llama.
  """
  mlp_norm = 'pre_feedforward' if after else 'post_attention'
  rows = (
    *embedding('embed_tokens', 'token_embed'),
    *norm('layers.{i}.input_layernorm', 'layer_{i}/attention_norm', False),
    *norm(f'layers.{{i}}.{mlp_norm}_layernorm', 'layer_{i}/mlp_norm', False),
    *norm('norm', 'final_norm', False),
  )
  for new, ours, bias in (
    ('self_attn.q_proj', 'attention/query', qkv_bias),
    ('self_attn.k_proj', 'attention/key', qkv_bias),
    ('self_attn.v_proj', 'attention/value', qkv_bias),
    ('self_attn.o_proj', 'attention/out', False),
    ('mlp.gate_proj', 'mlp/gate', False),
    ('mlp.up_proj', 'mlp/up', False),
    ('mlp.down_proj', 'mlp/down', False),
  ):
    rows += linear(f'layers.{{i}}.{new}', f'layer_{{i}}/{ours}', bias)
  norms = {}
  if qk_norm:
    norms['self_attn.q_norm'] = 'attention/query_norm'
    norms['self_attn.k_norm'] = 'attention/key_norm'
  if after:
    norms['post_attention_layernorm'] = 'attention_out_norm'
    norms['post_feedforward_layernorm'] = 'mlp_out_norm'
  for new, ours in norms.items():
    rows += norm(f'layers.{{i}}.{new}', f'layer_{{i}}/{ours}', False)
  sizes = _SIZES | dict(
    num_kv_heads='num_key_value_heads',
    head_dim='head_dim',
    norm_eps='rms_norm_eps',
    rope_base='rope_theta',
  )
  fixed = _CAUSAL | dict(
    norm='both' if after else 'pre',
    norm_kind='rms',
    gated=True,
    biases='qkv' if qkv_bias else 'none',
    qk_norm=qk_norm,
    rotary_fraction=1.0,
  )
  only = dict(attention_bias=False, mlp_bias=False, partial_rotary_factor=1.0)
  defaults = dict(rope_theta=10_000, tie_word_embeddings=False)
  return Family(
    architecture=architecture,
    prefix='model.',
    rows=rows,
    ignored={r'layers\.\d+\.self_attn\.rotary_emb\.inv_freq': 'a constant'},
    sizes=sizes | has.pop('sizes', {}),
    activation=has.pop('activation', 'hidden_act'),
    fixed=fixed | has.pop('fixed', {}),
    only=only | has.pop('only', {}),
    defaults=defaults | has.pop('defaults', {}),
    output='lm_head',
    **has,
  )


_GEMMA = dict(
  after=True,
  activation='hidden_activation',
  fixed=dict(norm_offset=1.0, embed_scale=True),
)
_GEMMA_SIZES = dict(
  query_scalar='query_pre_attn_scalar',
  logits_cap='final_logit_softcapping',
  window='sliding_window',
)

# Our own: names are the paths of the parameters.
_BOARD = Family(
  architecture='',
  prefix='transformer/',
  rows=(),
  ignored={r'head_.+': 'read by load_head'},
  sizes={
    name: name
    for name in (
      *('vocab_size', 'embed_dim', 'num_layers', 'num_heads', 'mlp_dim'),
      'norm_eps',
    )
  },
  activation='activation',
  fixed=dict(
    max_positions=None, causal=False, norm='pre', pooling='mean', reads='board'
  ),
  only=dict(vocab_size=chess.VOCAB_SIZE),
  defaults={},
)

FAMILIES = {
  'bert': _BERT,
  'gpt2': _GPT2,
  'gpt_neox': _NEOX,
  'llama': _llama('LlamaForCausalLM'),
  'mistral': _llama('MistralForCausalLM', sizes=dict(window='sliding_window')),
  'qwen2': _llama(
    'Qwen2ForCausalLM', qkv_bias=True, only=dict(use_sliding_window=False)
  ),
  'qwen3': _llama(
    'Qwen3ForCausalLM', qk_norm=True, only=dict(use_sliding_window=False)
  ),
  'gemma2': _llama(
    'Gemma2ForCausalLM',
    **_GEMMA,
    sizes=_GEMMA_SIZES | dict(attention_cap='attn_logit_softcapping'),
    only=dict(use_bidirectional_attention=False),
    defaults=dict(tie_word_embeddings=True),
    full_every=2,
  ),
  'gemma3_text': _llama(
    'Gemma3ForCausalLM',
    **_GEMMA,
    qk_norm=True,
    sizes=_GEMMA_SIZES | dict(window_rope_base='rope_local_base_freq'),
    only={
      'attn_logit_softcapping': None,  # `transformers` takes no notice of it
      'use_bidirectional_attention': False,
      'rope_type of sliding_attention': 'default',
    },
    defaults=dict(
      tie_word_embeddings=True,
      rope_theta=1_000_000,
      rope_local_base_freq=10_000,
    ),
    full_every=6,
  ),
  'w2s_board': _BOARD,
}


def table(family, config):
  """{stored name: Row} of all tensors of a trunk, for this config."""
  rows = list(family.rows)
  if not config.tied:
    rows += embedding(family.output, 'output_embed')
  found = {}
  for row in rows:
    for i in range(config.num_layers if '{i}' in row.stored else 1):
      paths = tuple(path.format(i=i) for path in row.paths)
      found[row.stored.format(i=i)] = Row(row.stored, paths, row.layout)
  return found


def plain_name(family, name):
  """A stored name as in `table`, or None where the tensor needs no place."""
  name = name.removeprefix(family.prefix)
  for old, new in family.renamed:
    name = name.replace(old, new)
  if any(re.fullmatch(regex, name) for regex in family.ignored):
    return None
  return name


# Fields of ours that a config.json may leave out or set to null.
_OPTIONAL = (
  *('num_kv_heads', 'head_dim', 'query_scalar', 'attention_cap', 'logits_cap'),
  *('window', 'rope_scaling'),
)


def read(stored, path):
  """(TransformerConfig, Family) of what a config.json holds.

  Args:
    path: of the file, for messages.

  Raises:
    ValueError: a model or a field value that is not implemented.
  """

  def check(field, value, supported):
    if value not in supported:
      raise errors.UserError(
        f'{path}: {field} = {value!r} is not supported; '
        f'supported: {", ".join(map(repr, supported))}.'
      )

  check('model_type', stored.get('model_type'), list(FAMILIES))
  family = FAMILIES[stored['model_type']]
  stored = {k: v for k, v in stored.items() if v is not None}
  stored = family.defaults | _with_older_rope_fields(stored, family)
  for field, value in family.only.items():
    check(field, stored.get(field, value), [value])
  check(family.activation, stored.get(family.activation), list(_ACTIVATIONS))
  if family is _GPT2 and 'n_embd' in stored:
    stored.setdefault('n_inner', 4 * stored['n_embd'])
  sizes = {ours: stored.get(theirs) for ours, theirs in family.sizes.items()}
  absent = [
    family.sizes[ours]
    for ours, size in sizes.items()
    if size is None and ours not in _OPTIONAL
  ]
  if absent:
    raise errors.UserError(f'{path} lacks {", ".join(absent)}.')
  if scaling := sizes.get('rope_scaling'):
    kind = scaling.get('rope_type', scaling.get('type', 'default'))
    check('rope_scaling type', kind, list(_SCALINGS))
    trained = {_SCALINGS['llama3'][-1]: sizes['max_positions']}
    scaling = trained | scaling
    values = tuple(scaling.get(name) for name in _SCALINGS[kind])
    if None in values:
      raise errors.UserError(
        f'{path}: rope_scaling lacks one of {_SCALINGS[kind]}.'
      )
    sizes['rope_scaling'] = values or None
  layer_types = stored.get('layer_types', [])
  if family.full_every:
    sizes['full_every'] = stored.get(
      'sliding_window_pattern', family.full_every
    )
    if _FULL in layer_types:
      sizes['full_every'] = 1 + layer_types.index(_FULL)
    elif len(layer_types) >= sizes['full_every']:
      sizes['full_every'] = None
  is_float = {
    field.name: field.type in (float, float | None)
    for field in dataclasses.fields(presets.TransformerConfig)
  }
  config = presets.TransformerConfig(
    activation=_ACTIVATIONS[stored[family.activation]],
    **{
      name: float(x) if is_float[name] and x is not None else x
      for name, x in sizes.items()
    },
    **family.fixed,
  )
  if layer_types:
    check('layer_types', layer_types, [_layer_types(config)])
  return config, family


_FULL = 'full_attention'
_SCALINGS = {
  'default': (),
  'linear': ('factor',),
  'llama3': (
    'factor',
    'low_freq_factor',
    'high_freq_factor',
    'original_max_position_embeddings',
  ),
}


def _layer_types(config):
  return [
    'sliding_attention' if config.has_window(i) else _FULL
    for i in range(config.num_layers)
  ]


def _with_older_rope_fields(stored, family):
  """Newer files nest them under `rope_parameters`, perhaps by kind of layer."""
  nested = stored.get('rope_parameters')
  if nested is None:
    return stored
  full = nested.get(_FULL, nested)
  flat = {family.sizes['rope_base']: full['rope_theta'], 'rope_scaling': full}
  if 'partial_rotary_factor' in full:
    name = family.sizes.get('rotary_fraction', 'partial_rotary_factor')
    flat[name] = full['partial_rotary_factor']
  if 'window_rope_base' in family.sizes:
    window = nested['sliding_attention']
    flat[family.sizes['window_rope_base']] = window['rope_theta']
    flat['rope_type of sliding_attention'] = window['rope_type']
  return {**stored, **flat}


def write(config):
  """(Family, fields of config.json) of the first family with such a model.

  Raises:
    ValueError: none has.
  """
  plain = dataclasses.replace(
    config, dropout=0.0, dtype='float32', param_dtype='float32', remat=False
  )
  for name, family in FAMILIES.items():
    if all(getattr(plain, k) == value for k, value in family.fixed.items()):
      fields = {'model_type': name, **_fields(family, plain)}
      if read(fields, name)[0] == plain:
        return family, fields
  raise errors.UserError(
    f'no family among {", ".join(FAMILIES)} has models like {config}.'
  )


def _fields(family, config):
  ours = dataclasses.asdict(config) | dict(
    num_kv_heads=config.kv_heads,
    head_dim=config.head_width,
    query_scalar=config.query_width,
    rope_scaling=None,
  )
  for kind, names in _SCALINGS.items():
    if config.rope_scaling and len(config.rope_scaling) == len(names):
      scaling = dict(zip(names, config.rope_scaling))
      ours['rope_scaling'] = {'rope_type': kind, **scaling}
  activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  fields = {theirs: ours[name] for name, theirs in family.sizes.items()}
  fields[family.activation] = activations[config.activation]
  if family.architecture:
    fields['architectures'] = [family.architecture]
  if family.full_every:
    fields['layer_types'] = _layer_types(config)
    fields['sliding_window_pattern'] = config.full_every
  return fields
