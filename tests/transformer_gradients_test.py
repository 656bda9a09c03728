"""The transformer in training: gradients, dropout, dtypes, remat, sharding."""

import dataclasses

import hf_families_test
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformer_test import BOTH
from transformer_test import DECODER
from transformer_test import DECODERS
from transformer_test import ENCODER
from transformer_test import family_tokens
from transformer_test import jitted
from transformer_test import LENGTHS
from transformer_test import logits_of
from transformer_test import random_params
from transformer_test import states_of
from transformer_test import tokens_of

from w2s_jax import sharding
from w2s_jax.models import text_heads
from w2s_jax.models import transformer


def test_decoder_gradient_is_zero_at_later_positions():
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
def test_gradients_reach_every_parameter_and_skip_padding_rows(config):
  params = random_params(config)
  tokens_BxL = tokens_of(np.array([7, 9, 0]), width=9)
  tokens_BxL[2] = 1000  # a token that only the padding row has
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


@BOTH
def test_dropout_is_off_by_default(config):
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
  # bfloat16 has 8 significant bits: a relative error of 0.4 % per rounding, for
  # a few roundings in sequence.
  bound = 0.02 * np.abs(exact_BxC).max()
  np.testing.assert_allclose(half_BxC, exact_BxC, atol=bound)


@pytest.mark.parametrize('family', ['bert', 'gemma3'])
def test_remat_does_not_change_loss_or_gradients(family):
  config = hf_families_test.TINY[family]
  config = dataclasses.replace(config, num_layers=2, dropout=0.5)
  params = random_params(config)
  tokens_BxL = family_tokens(9)

  def gradients(remat):
    model = text_heads.Classifier(dataclasses.replace(config, remat=remat), 3)

    def loss(params):
      logits_BxC = model.apply(
        {'params': params},
        tokens_BxL,
        LENGTHS,
        deterministic=False,
        rngs={'dropout': jax.random.key(0)},
      )
      return jnp.sum(logits_BxC**2)

    return jax.jit(jax.value_and_grad(loss))(params)

  stored, again = gradients(''), gradients('nothing_saveable')
  assert jax.tree.structure(stored) == jax.tree.structure(again)
  for x, y in zip(jax.tree.leaves(stored), jax.tree.leaves(again)):
    np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('family', ['bert', 'gpt_neox', 'gemma3'])
def test_bfloat16_parameters_compute_in_float32(family):
  config = hf_families_test.TINY[family]
  tokens_BxL = family_tokens(9)
  half = dataclasses.replace(config, param_dtype='bfloat16')
  init = jax.eval_shape(
    transformer.Transformer(half).init, jax.random.key(0), tokens_BxL, LENGTHS
  )
  assert {x.dtype for x in jax.tree.leaves(init)} == {jnp.dtype('bfloat16')}
  trunk = random_params(config)['transformer']
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), trunk)
  # Parameters are cast to float32 before use, so both must agree.
  exact = jax.tree.map(lambda x: x.astype(jnp.float32), rounded)
  found, wanted = (
    jitted(transformer.Transformer(c))({'params': x}, tokens_BxL, LENGTHS)
    for c, x in ((half, rounded), (config, exact))
  )
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  logits = [
    transformer.next_token_logits(wanted[:, 0], x, config)
    for x in (rounded, exact)
  ]
  assert logits[0].dtype == jnp.float32
  np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize(
  'config, data, fsdp, tensor',
  [
    (ENCODER, 2, 4, 1),
    (DECODER, 2, 2, 2),
    (dataclasses.replace(DECODERS['gemma3'], num_layers=1), 2, 2, 2),
  ],
)
def test_sharded_matches_one_device(config, data, fsdp, tensor, capfd):
  params = random_params(config, num_classes=2)
  lengths = np.arange(16) % 10
  batch = tokens_of(lengths, width=9) % config.vocab_size, lengths

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
