import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import heads
from w2s_jax import pretrained
from w2s_jax import sharding
from w2s_jax import transformer

ENCODER = transformer.PRESETS['tiny-encoder']
DECODER = transformer.PRESETS['tiny-decoder']
LENGTHS = np.array([7, 1, 5, 9])


def tokens_of(lengths, *, width, seed=0):
  rng = np.random.default_rng(seed)
  tokens_BxL = rng.integers(1, 1024, (len(lengths), width)).astype(np.int32)
  return np.where(np.arange(width) < lengths[:, None], tokens_BxL, 0)


def random_params(config, *, num_classes=3, seed=0):
  """Every parameter random, biases and the zero head included."""
  model = heads.Classifier(config, num_classes)
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
  apply = jitted(heads.Classifier(config, num_classes))
  return apply({'params': params}, tokens_BxL, length_B, **kwargs)


def states_of(config, params, tokens_BxL, length_B):
  apply = jitted(transformer.Transformer(config))
  return apply({'params': params['transformer']}, tokens_BxL, length_B)


BOTH = pytest.mark.parametrize('config', [ENCODER, DECODER], ids=['enc', 'dec'])


@BOTH
def test_only_a_decoder_hides_later_tokens(config):
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


def test_decoder_gradient_reaches_no_later_position():
  params = random_params(DECODER)
  tokens_BxL = tokens_of(np.array([8]), width=8)

  def fifth_state(positions_PxD):
    trunk = {
      **params['transformer'],
      'position_embed': {'embedding': positions_PxD},
    }
    states_BxLxD = states_of(
      DECODER, {'transformer': trunk}, tokens_BxL, np.array([8])
    )
    return jnp.sum(states_BxLxD[0, 4] ** 3)

  positions_PxD = params['transformer']['position_embed']['embedding']
  gradient_PxD = jax.jit(jax.grad(fifth_state))(positions_PxD)
  gradient_P = np.abs(gradient_PxD).max(axis=1)
  assert (gradient_P[:5] > 1e-3).all()
  assert not gradient_P[5:].any()


@BOTH
def test_padding_changes_nothing(config):
  params = random_params(config)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  logits_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  wider_BxL = np.pad(tokens_BxL, ((0, 2), (0, 7)))
  lengths = np.append(LENGTHS, [0, 0])
  padding_BxL = np.arange(16) >= lengths[:, None]
  for filler in (0, 17):  # what stands in the padding does not matter
    filled_BxL = np.where(padding_BxL, filler, wider_BxL)
    padded_BxC = logits_of(config, params, filled_BxL, lengths)
    np.testing.assert_allclose(padded_BxC[:4], logits_BxC, atol=1e-5)
    assert np.isfinite(padded_BxC[4:]).all()


@BOTH
def test_token_zero_is_a_token(config):
  params = random_params(config)
  tokens_BxL = np.array([[5, 6, 0], [5, 6, 0]], np.int32)
  logits_BxC = logits_of(config, params, tokens_BxL, np.array([2, 3]))
  assert np.abs(logits_BxC[0] - logits_BxC[1]).max() > 1e-3


@BOTH
def test_rows_do_not_mix(config):
  params = random_params(config)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  order = np.array([2, 0, 3, 1])
  logits_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  permuted_BxC = logits_of(config, params, tokens_BxL[order], LENGTHS[order])
  np.testing.assert_allclose(permuted_BxC, logits_BxC[order], atol=1e-5)


def test_pool_takes_real_tokens_only():
  x_BxLxD = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
  x_BxLxD[0, 3:] = 1e6
  length_B = np.array([3, 5, 0])
  mean_BxD = transformer.pool(x_BxLxD, length_B, 'mean')
  last_BxD = transformer.pool(x_BxLxD, length_B, 'last')
  np.testing.assert_allclose(mean_BxD[0], x_BxLxD[0, :3].mean(0), atol=1e-5)
  np.testing.assert_allclose(mean_BxD[1], x_BxLxD[1].mean(0), atol=1e-5)
  np.testing.assert_array_equal(last_BxD[:2], x_BxLxD[[0, 1], [2, 4]])
  assert not np.any(mean_BxD[2]) and not np.any(last_BxD[2])


@BOTH
def test_gradients_reach_every_parameter_and_skip_padding_rows(config):
  params = random_params(config)
  tokens_BxL = tokens_of(np.array([7, 9, 0]), width=9)
  tokens_BxL[2] = 1000  # a token of the padding row only
  weight_Bx1 = np.array([[1.0], [1.0], [0.0]])

  def loss(params):
    length_B = np.array([7, 9, 0])
    logits_BxC = logits_of(config, params, tokens_BxL, length_B)
    return jnp.sum(weight_Bx1 * jax.nn.log_softmax(logits_BxC)[:, :1])

  gradients = jax.jit(jax.grad(loss))(params)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
  embedding_VxD = gradients['transformer']['token_embed']['embedding']
  assert not np.any(embedding_VxD[1000])
  for path, g in jax.tree_util.tree_leaves_with_path(gradients):
    if "['key']['bias']" not in jax.tree_util.keystr(path):  # softmax drops it
      assert np.abs(g).max() > 1e-6, path


@pytest.mark.parametrize(
  'preset, published',
  [
    ('minilm-l6', 22_713_216 - (384 * 384 + 384)),  # without the pooler
    ('bert-base', 109_482_240 - (768 * 768 + 768)),  # without the pooler
    ('gpt2', 124_439_808),
    ('gpt2-medium', 354_823_168),
    ('gpt2-large', 774_030_080),
    ('gpt2-xl', 1_557_611_200),
  ],
)
def test_preset_has_the_published_number_of_parameters(preset, published):
  shapes = pretrained.parameter_shapes(transformer.PRESETS[preset])
  assert sum(np.prod(shape) for shape in shapes.values()) == published


@BOTH
def test_dropout_only_when_asked(config):
  params = random_params(config)
  config = dataclasses.replace(config, dropout=0.5)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  quiet_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  default = dataclasses.replace(config, dropout=0.0)
  same_BxC = logits_of(
    default, params, tokens_BxL, LENGTHS, deterministic=False
  )
  np.testing.assert_array_equal(quiet_BxC, same_BxC)
  noisy = [
    logits_of(
      config,
      params,
      tokens_BxL,
      LENGTHS,
      deterministic=False,
      rngs={'dropout': jax.random.key(seed)},
    )
    for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(noisy[0], noisy[1])
  assert np.abs(noisy[0] - noisy[2]).max() > 1e-3
  assert np.abs(noisy[0] - quiet_BxC).max() > 1e-3


@BOTH
def test_bfloat16_trunk_stays_close_and_logits_are_float32(config):
  params = random_params(config)
  tokens_BxL = tokens_of(LENGTHS, width=9)
  half = dataclasses.replace(config, dtype='bfloat16')
  assert states_of(half, params, tokens_BxL, LENGTHS).dtype == jnp.bfloat16
  exact_BxC = logits_of(config, params, tokens_BxL, LENGTHS)
  half_BxC = logits_of(half, params, tokens_BxL, LENGTHS)
  assert half_BxC.dtype == jnp.float32
  # bfloat16 has 8 bits: 0.4 % a rounding, a few of them in a row.
  bound = 0.02 * np.abs(exact_BxC).max()
  np.testing.assert_allclose(half_BxC, exact_BxC, atol=bound)


def test_head_starts_at_zero_or_from_token_rows():
  model = heads.Classifier(ENCODER, 2)
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


def test_too_long_a_batch_is_an_error():
  tokens_BxL = np.zeros((1, 129), np.int32)
  with pytest.raises(ValueError, match='length 129 does not fit the 128'):
    logits_of(ENCODER, random_params(ENCODER), tokens_BxL, np.array([129]))


def test_token_outside_the_vocabulary_is_not_taken_for_another():
  params = random_params(ENCODER)
  tokens_BxL = np.array([[5, 1024], [5, 1023]], np.int32)
  logits_BxC = logits_of(ENCODER, params, tokens_BxL, np.array([2, 2]))
  assert np.isnan(logits_BxC[0]).all()
  assert np.isfinite(logits_BxC[1]).all()


@pytest.mark.parametrize(
  'config, data, fsdp, tensor', [(ENCODER, 2, 4, 1), (DECODER, 2, 2, 2)]
)
def test_sharded_equals_one_device(config, data, fsdp, tensor, capfd):
  params = random_params(config, num_classes=2)
  lengths = np.arange(16) % 10
  batch = tokens_of(lengths, width=9), lengths

  def loss(params, batch):
    logits_BxC = logits_of(config, params, *batch)
    return -jnp.mean(jax.nn.log_softmax(logits_BxC)[:, 0])

  expected = jax.jit(jax.value_and_grad(loss))(params, batch)
  mesh = sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor)
  shardings = sharding.tree_sharding(mesh, params)
  with jax.set_mesh(mesh):
    found = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))(
      jax.device_put(params, shardings), sharding.place_batch(mesh, batch)
    )
  kernel = found[1]['transformer']['layer_0']['mlp']['up']['kernel']
  assert kernel.addressable_data(0).size == kernel.size // (fsdp * tensor)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(x, y, atol=1e-5)
  assert 'Involuntary full rematerialization' not in capfd.readouterr().err
