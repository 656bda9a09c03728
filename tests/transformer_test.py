"""The transformer: masks, padding, parameter counts; see also gradients."""

import dataclasses
import functools
import math

import hf_families_test
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.models import heads
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import text_heads
from w2s_jax.models import transformer

ENCODER = presets.PRESETS['tiny-encoder']
DECODER = presets.PRESETS['tiny-decoder']
LENGTHS = np.array([7, 1, 5, 9])


def tokens_of(lengths, *, width, seed=0):
  rng = np.random.default_rng(seed)
  tokens_BxL = rng.integers(1, 1024, (len(lengths), width)).astype(np.int32)
  return np.where(np.arange(width) < lengths[:, None], tokens_BxL, 0)


@functools.cache
def random_params(config, *, num_classes=3, seed=0):
  """Returns random parameters, also for biases and the zero head."""
  model = text_heads.Classifier(config, num_classes)
  tokens_BxL = jnp.zeros((1, 2), jnp.int32)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), tokens_BxL, jnp.ones(1, jnp.int32)
  )
  rng = np.random.default_rng(seed)

  def sample(path, x):
    center = jax.tree_util.keystr(path).endswith("['scale']")
    return jnp.asarray(center + 0.1 * rng.normal(size=x.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(sample, shapes['params'])


@functools.cache
def jitted(model):
  return jax.jit(model.apply, static_argnames='deterministic')


def logits_of(config, params, tokens_BxL, length_B, **kwargs):
  num_classes = params['head']['kernel'].shape[1]
  apply = jitted(text_heads.Classifier(config, num_classes))
  return apply({'params': params}, tokens_BxL, length_B, **kwargs)


def states_of(config, params, tokens_BxL, length_B):
  apply = jitted(transformer.Transformer(config))
  return apply({'params': params['transformer']}, tokens_BxL, length_B)


BOTH = pytest.mark.parametrize('config', [ENCODER, DECODER], ids=['enc', 'dec'])
DECODERS = {k: x for k, x in hf_families_test.TINY.items() if x.causal}
EACH_DECODER = pytest.mark.parametrize('family', DECODERS)


def family_tokens(width, seed=0):
  return tokens_of(LENGTHS, width=width, seed=seed) % 60


@BOTH
def test_only_decoders_are_causal(config):
  params = random_params(config)
  tokens_BxL = tokens_of(np.array([9, 9]), width=9)
  changed_BxL = tokens_BxL.copy()
  changed_BxL[:, 5:] = 1023 - changed_BxL[:, 5:]
  length_B = np.array([9, 9])
  before_BxLxD = states_of(config, params, tokens_BxL, length_B)
  after_BxLxD = states_of(config, params, changed_BxL, length_B)
  moved_L = np.abs(before_BxLxD - after_BxLxD).max(axis=(0, 2)) > 1e-4
  assert moved_L[5:].all()
  assert moved_L[:5].all() != config.causal
  assert moved_L[:5].any() != config.causal


@BOTH
def test_padding_does_not_change_logits(config):
  params = random_params(config)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  logits_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  wider_BxL = np.pad(tokens_BxL, ((0, 2), (0, 7)))
  lengths = np.append(LENGTHS, [0, 0])
  padding_BxL = np.arange(16) >= lengths[:, None]
  for filler in (0, 17):  # any token id may be in the padding
    filled_BxL = np.where(padding_BxL, filler, wider_BxL)
    padded_BxC = logits_of(config, params, filled_BxL, lengths)
    np.testing.assert_allclose(padded_BxC[:4], logits_BxC, atol=1e-5)
    assert np.isfinite(padded_BxC[4:]).all()


@BOTH
def test_token_zero_is_not_padding(config):
  params = random_params(config)
  tokens_BxL = np.array([[5, 6, 0], [5, 6, 0]], np.int32)
  logits_BxC = logits_of(config, params, tokens_BxL, np.array([2, 3]))
  assert np.abs(logits_BxC[0] - logits_BxC[1]).max() > 1e-3


@BOTH
def test_rows_are_independent(config):
  params = random_params(config)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  order = np.array([2, 0, 3, 1])
  logits_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  permuted_BxC = logits_of(config, params, tokens_BxL[order], LENGTHS[order])
  np.testing.assert_allclose(permuted_BxC, logits_BxC[order], atol=1e-5)


def test_pool_ignores_padding():
  x_BxLxD = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
  x_BxLxD[0, 3:] = 1e6
  length_B = np.array([3, 5, 0])
  mean_BxD = transformer.pool(x_BxLxD, length_B, 'mean')
  last_BxD = transformer.pool(x_BxLxD, length_B, 'last')
  np.testing.assert_allclose(mean_BxD[0], x_BxLxD[0, :3].mean(0), atol=1e-5)
  np.testing.assert_allclose(mean_BxD[1], x_BxLxD[1].mean(0), atol=1e-5)
  np.testing.assert_array_equal(last_BxD[:2], x_BxLxD[[0, 1], [2, 4]])
  assert not np.any(mean_BxD[2]) and not np.any(last_BxD[2])


@pytest.mark.parametrize(
  'preset, published',
  [
    ('minilm-l6', 22_713_216 - (384 * 384 + 384)),  # without the pooler
    ('bert-base', 109_482_240 - (768 * 768 + 768)),  # without the pooler
    ('bert-large', 335_141_888 - (1024 * 1024 + 1024)),
    ('gpt2', 124_439_808),
    ('gpt2-medium', 354_823_168),
    ('gpt2-large', 774_030_080),
    ('gpt2-xl', 1_557_611_200),
    ('pythia-14m', 14_067_712),
    ('pythia-31m', 30_494_720),
    ('pythia-70m', 70_426_624),
    ('pythia-160m', 162_322_944),
    ('pythia-410m', 405_334_016),
    ('pythia-1b', 1_011_781_632),
    ('pythia-1.4b', 1_414_647_808),
    ('pythia-2.8b', 2_775_208_960),
    ('pythia-6.9b', 6_857_302_016),
    ('pythia-12b', 11_846_072_320),
    ('llama-2-7b', 6_738_415_616),
    ('llama-2-13b', 13_015_864_320),
    ('llama-2-70b', 68_976_648_192),
    ('llama-3-8b', 8_030_261_248),
    ('llama-3-70b', 70_553_706_496),
    ('llama-3.2-1b', 1_235_814_400),
    ('llama-3.2-3b', 3_212_749_824),
    ('mistral-7b-v0.1', 7_241_732_096),
    ('qwen1.5-0.5b', 463_987_712),
    ('qwen1.5-1.8b', 1_836_828_672),
    ('qwen1.5-4b', 3_950_369_280),
    ('qwen1.5-7b', 7_721_324_544),
    ('qwen1.5-14b', 14_167_290_880),
    ('qwen1.5-32b', 32_512_218_112),
    ('qwen1.5-72b', 72_287_920_128),
    ('qwen2.5-0.5b', 494_032_768),
    ('qwen2.5-1.5b', 1_543_714_304),
    ('qwen2.5-3b', 3_085_938_688),
    ('qwen2.5-7b', 7_615_616_512),
    ('qwen2.5-14b', 14_770_033_664),
    ('qwen2.5-32b', 32_763_876_352),
    ('qwen2.5-72b', 72_706_203_648),
    ('qwen3-0.6b', 596_049_920),
    ('qwen3-1.7b', 1_720_574_976),
    ('qwen3-4b', 4_022_468_096),
    ('qwen3-8b', 8_190_735_360),
    ('qwen3-14b', 14_768_307_200),
    ('qwen3-32b', 32_762_123_264),
    ('gemma-2-2b', 2_614_341_888),
    ('gemma-2-9b', 9_241_705_984),
    ('gemma-2-27b', 27_227_128_320),
    ('gemma-3-270m', 268_098_176),
    ('gemma-3-1b', 999_885_952),
    ('smollm2-135m', 134_515_008),
    ('smollm2-360m', 361_821_120),
    ('smollm2-1.7b', 1_711_376_384),
  ],
)
def test_preset_has_the_published_number_of_parameters(preset, published):
  config = presets.PRESETS[preset]
  # Counts one layer for all: tracing all of them takes minutes.
  short = dataclasses.replace(config, num_layers=1)
  total = 0
  for path, shape in pretrained.parameter_shapes(short).items():
    total += math.prod(shape) * (config.num_layers if 'layer_0' in path else 1)
  assert total == published


def test_head_is_initialized_to_zero_or_token_rows():
  model = text_heads.Classifier(ENCODER, 2)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  init = jax.jit(model.init)
  params = init(jax.random.key(0), tokens_BxL, LENGTHS)['params']
  assert not np.any(logits_of(ENCODER, params, tokens_BxL, LENGTHS))

  changed = heads.head_from_token_rows(params, [15, 16])
  embedding_VxD = params['transformer']['token_embed']['embedding']
  np.testing.assert_array_equal(
    changed['head']['kernel'].T, embedding_VxD[np.array([15, 16])]
  )
  assert changed['transformer'] is params['transformer']
  assert not np.any(params['head']['kernel'])
  for bad in ([15], [15, 1024]):
    with pytest.raises(ValueError, match='2 classes needs .* below 1024'):
      heads.head_from_token_rows(params, bad)


@EACH_DECODER
def test_padding_does_not_change_logits_of_any_decoder(family):
  config = DECODERS[family]
  params = random_params(config)
  tokens_BxL = family_tokens(9)
  logits_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  for filler in (0, 17):
    wider_BxL = np.pad(tokens_BxL, ((0, 0), (0, 3)))
    padding_BxL = np.arange(12) >= LENGTHS[:, None]
    filled_BxL = np.where(padding_BxL, filler, wider_BxL)
    padded_BxC = logits_of(config, params, filled_BxL, LENGTHS)
    np.testing.assert_allclose(padded_BxC, logits_BxC, atol=1e-5)


@pytest.mark.parametrize('family', hf_families_test.TINY)
def test_texts_of_a_row_are_independent(family):
  config = hf_families_test.TINY[family]
  params = random_params(config)
  texts = [(5, 4), (1, 9), (9, 0), (0, 3)]
  tokens_BxL = tokens_of(np.full(4, 12), width=12) % 60
  length_Bx2 = np.array(texts)
  together_BxLxD = states_of(config, params, tokens_BxL, length_Bx2)
  pooled_Bx2xD = transformer.pool(together_BxLxD, length_Bx2, config.pooling)
  for b, lengths in enumerate(texts):
    for s, (start, length) in enumerate(zip((0, lengths[0]), lengths)):
      if not length:
        assert not pooled_Bx2xD[b, s].any()
        continue
      inside = slice(start, start + length)
      alone_1xL = np.zeros((1, 9), np.int32)
      alone_1xL[0, :length] = tokens_BxL[b, inside]
      length_1 = np.array([length])
      alone_1xLxD = states_of(config, params, alone_1xL, length_1)
      np.testing.assert_allclose(
        together_BxLxD[b, inside], alone_1xLxD[0, :length], atol=1e-5
      )
      pooled_1xD = transformer.pool(alone_1xLxD, length_1, config.pooling)
      np.testing.assert_allclose(pooled_Bx2xD[b, s], pooled_1xD[0], atol=1e-5)


@EACH_DECODER
def test_decoder_attention_is_causal_and_windowed(family):
  """In one layer a token attends to all before it, or to a window of three."""
  config = dataclasses.replace(DECODERS[family], num_layers=1)
  params = random_params(config)
  tokens_BxL = np.arange(9)[None] + np.zeros((9, 1), np.int32)
  changed_BxL = np.where(np.eye(9, dtype=bool), 50, tokens_BxL)
  length_B = np.full(9, 9)
  before, after = (
    states_of(config, params, x, length_B) for x in (tokens_BxL, changed_BxL)
  )
  seen_BxL = np.abs(before - after).max(axis=2) > 1e-6
  distance_BxL = np.arange(9)[None] - np.arange(9)[:, None]
  reach = config.window or 9
  expected_BxL = (0 <= distance_BxL) & (distance_BxL < reach)
  np.testing.assert_array_equal(seen_BxL, expected_BxL)


def test_windowed_layers_of_presets():
  def windows(preset, num_layers):
    config = presets.PRESETS[preset]
    return [config.has_window(i) for i in range(num_layers)]

  assert windows('gemma-2-2b', 4) == [True, False, True, False]
  assert windows('gemma-3-1b', 7) == 5 * [True] + [False, True]
  assert windows('mistral-7b-v0.1', 2) == [True, True]
  assert windows('llama-3-8b', 2) == [False, False]


def test_rotary_frequencies_of_llama_3():
  config = presets.PRESETS['llama-3.1-8b']
  plain_X = 500_000.0 ** -(np.arange(0, 128, 2) / 128)
  found_X = transformer.rotary_frequencies(config, window=False)
  length_X = 2 * np.pi / plain_X
  fast_X, slow_X = length_X < 8192 / 4, length_X > 8192
  np.testing.assert_allclose(found_X[fast_X], plain_X[fast_X])
  np.testing.assert_allclose(found_X[slow_X], plain_X[slow_X] / 8)
  between_X = ~fast_X & ~slow_X
  assert between_X.sum() > 3 and (np.diff(found_X) < 0).all()
  ratio_X = found_X[between_X] / plain_X[between_X]
  assert ((1 / 8 < ratio_X) & (ratio_X < 1)).all()


def test_batch_beyond_the_maximum_length_is_an_error():
  tokens_BxL = np.zeros((1, 129), np.int32)
  with pytest.raises(ValueError, match='length 129 does not fit the 128'):
    logits_of(ENCODER, random_params(ENCODER), tokens_BxL, np.array([129]))


def test_token_outside_the_vocabulary_gives_nan():
  params = random_params(ENCODER)
  tokens_BxL = np.array([[5, 1024], [5, 1023]], np.int32)
  logits_BxC = logits_of(ENCODER, params, tokens_BxL, np.array([2, 2]))
  assert np.isnan(logits_BxC[0]).all()
  assert np.isfinite(logits_BxC[1]).all()
