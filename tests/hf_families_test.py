import dataclasses
import json

import pytest

from w2s_jax.models import hf_config
from w2s_jax.models import presets

PRESETS = presets.PRESETS
_SIZES = dict(
  vocab_size=60,
  max_positions=24,
  embed_dim=16,
  num_layers=2,
  num_heads=4,
  mlp_dim=24,
)
_GROUPED = _SIZES | dict(num_kv_heads=2)


def _tiny(preset, **fields):
  return dataclasses.replace(PRESETS[preset], **fields)


# One small model for each that differs; every feature matters at this size.
TINY = {
  'bert': _tiny('bert-base', **_SIZES),
  'gpt2': _tiny('gpt2', **_SIZES),
  'gpt_neox': _tiny('pythia-70m', **_SIZES, rotary_fraction=0.5),
  'in sequence': _tiny('pythia-70m', **_SIZES, parallel=False),
  'llama': _tiny('llama-3-8b', **_GROUPED, rope_base=100.0),
  'llama 3.1': _tiny(
    'llama-3.2-1b',
    **_GROUPED,
    rope_base=100.0,
    rope_scaling=(8.0, 1.0, 4.0, 16),
  ),
  'linear': _tiny('llama-2-7b', **_GROUPED, head_dim=6, rope_scaling=(4.0,)),
  'mistral': _tiny('mistral-7b-v0.1', **_GROUPED, window=3),
  'qwen2': _tiny('qwen2.5-0.5b', **_GROUPED),
  'qwen3': _tiny('qwen3-8b', **_GROUPED, head_dim=6),
  'gemma2': _tiny(
    'gemma-2-27b',
    **_GROUPED,
    head_dim=6,
    query_scalar=7,
    window=3,
    attention_cap=2.0,
    logits_cap=3.0,
  ),
  'gemma3': _tiny(
    'gemma-3-1b',
    **_GROUPED | dict(num_layers=3),
    head_dim=6,
    window=3,
    full_every=3,
    rope_scaling=(4.0,),
  ),
}

LLAMA_32_1B = dict(
  architectures=['LlamaForCausalLM'],
  attention_bias=False,
  attention_dropout=0.0,
  bos_token_id=128000,
  eos_token_id=128001,
  head_dim=64,
  hidden_act='silu',
  hidden_size=2048,
  initializer_range=0.02,
  intermediate_size=8192,
  max_position_embeddings=131072,
  mlp_bias=False,
  model_type='llama',
  num_attention_heads=32,
  num_hidden_layers=16,
  num_key_value_heads=8,
  pretraining_tp=1,
  rms_norm_eps=1e-5,
  rope_scaling=dict(
    factor=32.0,
    high_freq_factor=4.0,
    low_freq_factor=1.0,
    original_max_position_embeddings=8192,
    rope_type='llama3',
  ),
  rope_theta=500000.0,
  tie_word_embeddings=True,
  vocab_size=128256,
)
GEMMA_3_1B = dict(
  attn_logit_softcapping=None,
  cache_implementation='hybrid',
  final_logit_softcapping=None,
  head_dim=256,
  hidden_activation='gelu_pytorch_tanh',
  hidden_size=1152,
  intermediate_size=6912,
  max_position_embeddings=32768,
  model_type='gemma3_text',
  num_attention_heads=4,
  num_hidden_layers=26,
  num_key_value_heads=1,
  query_pre_attn_scalar=256,
  rms_norm_eps=1e-6,
  rope_local_base_freq=10000,
  rope_scaling=None,
  rope_theta=1000000,
  sliding_window=512,
  sliding_window_pattern=6,
  vocab_size=262144,
)
PYTHIA_70M = dict(
  hidden_act='gelu',
  hidden_size=512,
  intermediate_size=2048,
  layer_norm_eps=1e-5,
  max_position_embeddings=2048,
  model_type='gpt_neox',
  num_attention_heads=8,
  num_hidden_layers=6,
  rotary_emb_base=10000,
  rotary_pct=0.25,
  tie_word_embeddings=False,
  use_parallel_residual=True,
  vocab_size=50304,
)
QWEN25_7B = dict(
  hidden_act='silu',
  hidden_size=3584,
  intermediate_size=18944,
  max_position_embeddings=131072,
  max_window_layers=28,
  model_type='qwen2',
  num_attention_heads=28,
  num_hidden_layers=28,
  num_key_value_heads=4,
  rms_norm_eps=1e-6,
  rope_theta=1000000.0,
  sliding_window=131072,
  tie_word_embeddings=False,
  use_sliding_window=False,
  vocab_size=152064,
)


def read(stored):
  return hf_config.read(stored, 'config.json')[0]


@pytest.mark.parametrize(
  'preset, stored',
  [
    ('llama-3.2-1b', LLAMA_32_1B),
    ('gemma-3-1b', GEMMA_3_1B),
    ('pythia-70m', PYTHIA_70M),
    ('qwen2.5-7b', QWEN25_7B),
  ],
)
def test_a_preset_is_what_the_published_config_says(preset, stored):
  assert read(stored) == PRESETS[preset]


def newer(stored, base, **kinds):
  """Nests the rotary fields as newer versions of `transformers` do."""
  stored = dict(stored)
  full = {'rope_type': 'default', 'rope_theta': stored.pop(base)}
  full |= stored.pop('rope_scaling', None) or {}
  if 'rotary_pct' in stored:
    full['partial_rotary_factor'] = stored.pop('rotary_pct')
  nested = {'full_attention': full, **kinds} if kinds else full
  return stored | {'rope_parameters': nested}


def test_older_and_newer_fields_of_rotary_positions_say_the_same():
  llama = newer(LLAMA_32_1B, 'rope_theta')
  assert read(llama) == PRESETS['llama-3.2-1b']
  pythia = newer(PYTHIA_70M, 'rotary_emb_base')
  assert read(pythia) == PRESETS['pythia-70m']
  window = {'rope_type': 'default', 'rope_theta': 10_000.0}
  gemma = newer(GEMMA_3_1B, 'rope_theta', sliding_attention=window)
  del gemma['rope_local_base_freq'], gemma['sliding_window_pattern']
  gemma['layer_types'] = 4 * [*5 * ['sliding_attention'], 'full_attention']
  gemma['layer_types'] += 2 * ['sliding_attention']
  assert read(gemma) == PRESETS['gemma-3-1b']
  gemma['layer_types'][0] = 'full_attention'
  with pytest.raises(ValueError, match="layer_types = .'full_attention', 'sli"):
    read(gemma)


@pytest.mark.parametrize(
  'stored, changes, says',
  [
    (LLAMA_32_1B, {'model_type': 't5'}, "model_type = 't5'.*'bert', 'gpt2'"),
    (LLAMA_32_1B, {'attention_bias': True}, 'attention_bias = True'),
    (LLAMA_32_1B, {'mlp_bias': True}, 'mlp_bias = True'),
    (LLAMA_32_1B, {'hidden_act': 'xielu'}, "hidden_act = 'xielu'.*'silu'"),
    (
      LLAMA_32_1B,
      {'rope_scaling': {'type': 'yarn', 'factor': 4.0}},
      "rope_scaling type = 'yarn'.*'linear', 'llama3'",
    ),
    (
      LLAMA_32_1B,
      {'rope_scaling': {'rope_type': 'llama3', 'factor': 4.0}},
      'rope_scaling lacks one of .*low_freq_factor',
    ),
    (LLAMA_32_1B, {'partial_rotary_factor': 0.5}, 'partial_rotary_factor'),
    (LLAMA_32_1B, {'hidden_size': None}, 'lacks hidden_size'),
    (QWEN25_7B, {'use_sliding_window': True}, 'use_sliding_window = True'),
    (
      GEMMA_3_1B,
      {'use_bidirectional_attention': True},
      'use_bidirectional_attention = True',
    ),
    (
      GEMMA_3_1B,
      {'attn_logit_softcapping': 50.0},
      'attn_logit_softcapping = 50.0',
    ),
    (PYTHIA_70M, {'attention_bias': False}, 'attention_bias = False'),
  ],
)
def test_what_is_not_implemented_is_named(stored, changes, says):
  with pytest.raises(ValueError, match=f'config.json:? {says}'):
    read(stored | changes)


@pytest.mark.parametrize(
  'preset, name',
  [
    ('bert-base', 'bert'),
    ('gpt2', 'gpt2'),
    ('tiny-decoder', 'gpt2'),
    ('pythia-1b', 'gpt_neox'),
    ('llama-3.2-1b', 'llama'),
    ('smollm2-135m', 'llama'),
    ('mistral-7b-v0.1', 'mistral'),
    ('qwen1.5-0.5b', 'qwen2'),
    ('qwen3-0.6b', 'qwen3'),
    ('gemma-2-2b', 'gemma2'),
    ('gemma-3-270m', 'gemma3_text'),
    ('board-s', 'w2s_board'),
  ],
)
def test_a_config_finds_its_family(preset, name):
  _, fields = hf_config.write(PRESETS[preset])
  assert fields['model_type'] == name


@pytest.mark.parametrize('name', [*TINY, *sorted(PRESETS.keys() - {'bag'})])
def test_config_there_and_back(name):
  config = TINY.get(name) or PRESETS[name]
  _, fields = hf_config.write(
    dataclasses.replace(
      config, remat='dots_saveable', dropout=0.1, dtype='bfloat16'
    )
  )
  assert read(fields) == config


def test_how_matmuls_are_computed_is_not_in_a_config():
  config = dataclasses.replace(TINY['llama'], matmul_dtype='bfloat16')
  assert hf_config.write(config) == hf_config.write(TINY['llama'])


def test_what_is_absent_is_none():
  sliding = {'layer_types': 26 * ['sliding_attention']}
  config = read(GEMMA_3_1B | sliding)
  assert config.full_every is None and config.has_window(25)
  assert read(hf_config.write(config)[1]) == config
  for absent in (None, {}, {'rope_type': 'default'}):
    config = read(LLAMA_32_1B | {'rope_scaling': absent})
    assert config.rope_scaling is None and config.window is None
  config = read(LLAMA_32_1B | {'num_key_value_heads': None, 'head_dim': None})
  assert (config.kv_heads, config.head_width) == (32, 64)


def test_a_model_of_no_family_is_refused():
  config = dataclasses.replace(TINY['gpt2'], norm_kind='rms')
  with pytest.raises(ValueError, match="no family .*norm_kind='rms'"):
    hf_config.write(config)
  with pytest.raises(ValueError, match='no family .*max_positions=None'):
    hf_config.write(PRESETS['bag'])


def test_equal_models_are_equal_configs():
  config = TINY['qwen2']
  assert dataclasses.replace(config, head_dim=4, query_scalar=4) == config
  default = dataclasses.replace(config, num_kv_heads=None)
  spelled_out = dataclasses.replace(config, num_kv_heads=4)
  assert spelled_out == default and hash(spelled_out) == hash(default)
  assert default != config and default != 'a config'


@pytest.mark.parametrize('name', [*TINY, *PRESETS])
def test_a_config_is_whole_in_json(name):
  config = TINY.get(name) or PRESETS[name]
  fields = json.loads(json.dumps(dataclasses.asdict(config)))
  again = presets.TransformerConfig(**fields)
  assert again == config and hash(again) == hash(config)
  for field in fields:
    value = (99.0,) if field == 'rope_scaling' else 99
    assert dataclasses.replace(config, **{field: value}) != config, field
