"""Families of models at Hugging Face: names of fields and of tensors.

Each is one Family, read in both directions: hf_config.py reads and writes its
config.json, pretrained.py its tensors.
"""

import dataclasses
import re

from w2s_jax.models import hf_tensors
from w2s_jax.tasks import chess


@dataclasses.dataclass(frozen=True)
class Family:
  """How `transformers` stores the models of one model_type."""

  architecture: str  # class name of the written model in `transformers`
  prefix: str  # of the trunk's tensors inside a larger model
  rows: tuple  # of hf_tensors, without the prefix; () if names are our paths
  ignored: dict  # regex of names that are skipped -> why
  sizes: dict  # field of TransformerConfig -> field of config.json
  activation: str  # field of config.json
  fixed: dict  # fields of TransformerConfig, the same for the whole family
  only: dict  # field of config.json -> the one implemented value
  defaults: dict  # field of config.json -> its value if absent
  output: str = ''  # name of an untied output table
  full_every: int | None = None  # default, if windows alternate
  renamed: tuple = ()  # (part of an old name, its replacement)


_BERT = Family(
  architecture='BertModel',
  prefix='bert.',
  rows=(
    *hf_tensors.embedding('embeddings.word_embeddings', 'token_embed'),
    *hf_tensors.embedding('embeddings.position_embeddings', 'position_embed'),
    *hf_tensors.embedding('embeddings.token_type_embeddings', 'type_embed'),
    *hf_tensors.norm('embeddings.LayerNorm', 'embed_norm'),
    *(
      row
      for name in ('query', 'key', 'value')
      for row in hf_tensors.linear(
        f'encoder.layer.{{i}}.attention.self.{name}',
        f'layer_{{i}}/attention/{name}',
      )
    ),
    *hf_tensors.linear(
      'encoder.layer.{i}.attention.output.dense', 'layer_{i}/attention/out'
    ),
    *hf_tensors.norm(
      'encoder.layer.{i}.attention.output.LayerNorm', 'layer_{i}/attention_norm'
    ),
    *hf_tensors.linear(
      'encoder.layer.{i}.intermediate.dense', 'layer_{i}/mlp/up'
    ),
    *hf_tensors.linear('encoder.layer.{i}.output.dense', 'layer_{i}/mlp/down'),
    *hf_tensors.norm(
      'encoder.layer.{i}.output.LayerNorm', 'layer_{i}/mlp_norm'
    ),
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
    *hf_tensors.embedding('wte', 'token_embed'),
    *hf_tensors.embedding('wpe', 'position_embed'),
    *hf_tensors.norm('h.{i}.ln_1', 'layer_{i}/attention_norm'),
    *hf_tensors.fused('h.{i}.attn.c_attn', hf_tensors.THIRDS),
    *hf_tensors.linear(
      'h.{i}.attn.c_proj', 'layer_{i}/attention/out', layout=hf_tensors.AS_IS
    ),
    *hf_tensors.norm('h.{i}.ln_2', 'layer_{i}/mlp_norm'),
    *hf_tensors.linear(
      'h.{i}.mlp.c_fc', 'layer_{i}/mlp/up', layout=hf_tensors.AS_IS
    ),
    *hf_tensors.linear(
      'h.{i}.mlp.c_proj', 'layer_{i}/mlp/down', layout=hf_tensors.AS_IS
    ),
    *hf_tensors.norm('ln_f', 'final_norm'),
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
    *hf_tensors.embedding('embed_in', 'token_embed'),
    *hf_tensors.norm('layers.{i}.input_layernorm', 'layer_{i}/attention_norm'),
    *hf_tensors.fused('layers.{i}.attention.query_key_value', hf_tensors.HEADS),
    *hf_tensors.linear('layers.{i}.attention.dense', 'layer_{i}/attention/out'),
    *hf_tensors.norm(
      'layers.{i}.post_attention_layernorm', 'layer_{i}/mlp_norm'
    ),
    *hf_tensors.linear('layers.{i}.mlp.dense_h_to_4h', 'layer_{i}/mlp/up'),
    *hf_tensors.linear('layers.{i}.mlp.dense_4h_to_h', 'layer_{i}/mlp/down'),
    *hf_tensors.norm('final_layer_norm', 'final_norm'),
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
  """Returns the family of Llama or of a successor.

  Args:
    architecture: class name in `transformers`.
    qkv_bias: query, key and value have biases.
    qk_norm: queries and keys are normalised.
    after: norms follow each block, too.
    **has: fields of Family; dicts are added to those of Llama.
  """
  mlp_norm = 'pre_feedforward' if after else 'post_attention'
  rows = (
    *hf_tensors.embedding('embed_tokens', 'token_embed'),
    *hf_tensors.norm(
      'layers.{i}.input_layernorm', 'layer_{i}/attention_norm', False
    ),
    *hf_tensors.norm(
      f'layers.{{i}}.{mlp_norm}_layernorm', 'layer_{i}/mlp_norm', False
    ),
    *hf_tensors.norm('norm', 'final_norm', False),
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
    rows += hf_tensors.linear(
      f'layers.{{i}}.{new}', f'layer_{{i}}/{ours}', bias
    )
  norms = {}
  if qk_norm:
    norms['self_attn.q_norm'] = 'attention/query_norm'
    norms['self_attn.k_norm'] = 'attention/key_norm'
  if after:
    norms['post_attention_layernorm'] = 'attention_out_norm'
    norms['post_feedforward_layernorm'] = 'mlp_out_norm'
  for new, ours in norms.items():
    rows += hf_tensors.norm(f'layers.{{i}}.{new}', f'layer_{{i}}/{ours}', False)
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

# Our own board models; tensor names are the paths of the parameters.
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
      'attn_logit_softcapping': None,  # `transformers` ignores it
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
  """Returns {stored name: Row} of all tensors of a trunk of this config."""
  rows = list(family.rows)
  if not config.tied:
    rows += hf_tensors.embedding(family.output, 'output_embed')
  found = {}
  for row in rows:
    for i in range(config.num_layers if '{i}' in row.stored else 1):
      paths = tuple(path.format(i=i) for path in row.paths)
      found[row.stored.format(i=i)] = hf_tensors.Row(
        row.stored, paths, row.layout
      )
  return found


def plain_name(family, name):
  """Returns a stored name as in `table`, or None if it is ignored."""
  name = name.removeprefix(family.prefix)
  for old, new in family.renamed:
    name = name.replace(old, new)
  if any(re.fullmatch(regex, name) for regex in family.ignored):
    return None
  return name
