"""Compares greedy decoding with a cache with one without."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from transformer_test import DECODERS
from transformer_test import random_params
from transformer_test import states_of
from transformer_test import tokens_of

from w2s_jax import sharding
from w2s_jax.models import language_model
from w2s_jax.models import presets
from w2s_jax.models import transformer

CONFIG = dataclasses.replace(presets.PRESETS['tiny-decoder'], max_positions=24)
# The longest fills all positions; the last is a padding row.
LENGTHS = np.array([7, 1, 5, 9, 16, 3, 2, 0])
NUM_TOKENS = 8


@functools.cache
def trunk(config):
  return random_params(config)['transformer']


@functools.partial(jax.jit, static_argnums=0)
def greedy(config, params, tokens_BxL, length_B):
  return language_model.greedy_decode(
    config, params, tokens_BxL, length_B, num_tokens=NUM_TOKENS
  )


def read_again(config, tokens):
  """Returns the next tokens, by a whole forward pass for each."""
  params, written = trunk(config), list(tokens)
  for _ in range(NUM_TOKENS):
    tokens_1xL = np.zeros((1, config.max_positions), np.int32)
    tokens_1xL[0, : len(written)] = written
    x_1xLxD = states_of(
      config, {'transformer': params}, tokens_1xL, np.array([len(written)])
    )
    x_1xD = x_1xLxD[:, len(written) - 1]
    logits_1xV = transformer.next_token_logits(x_1xD, params, config)
    written.append(int(np.argmax(logits_1xV)))
  return written[len(tokens) :]


@pytest.mark.parametrize('num_layers', [2, 0])
def test_equals_reading_everything_again(num_layers):
  config = dataclasses.replace(CONFIG, num_layers=num_layers)
  tokens_BxL = tokens_of(LENGTHS, width=16)
  padding_BxL = np.arange(16) >= LENGTHS[:, None]
  tokens_BxL = np.where(padding_BxL, 17, tokens_BxL)  # must not matter
  found_BxT = greedy(config, trunk(config), tokens_BxL, LENGTHS)
  assert found_BxT.shape == (8, NUM_TOKENS) and found_BxT.dtype == np.int32
  for length, tokens, found in zip(LENGTHS[:-1], tokens_BxL, found_BxT):
    assert found.tolist() == read_again(config, tokens[:length])
  if num_layers:  # else each token is followed by itself, nearly always
    assert len(np.unique(found_BxT[:-1])) > NUM_TOKENS, 'must differ to tell'


@pytest.mark.parametrize('family', DECODERS)
def test_states_with_a_cache_are_those_of_every_decoder(family):
  """Prompts of several lengths are read at once, then tokens one by one."""
  config = DECODERS[family]
  tokens_BxL = tokens_of(np.array([9, 9]), width=9) % config.vocab_size
  params = {'transformer': trunk(config)}
  wanted_BxLxD = states_of(config, params, tokens_BxL, np.array([9, 9]))
  apply = jax.jit(
    functools.partial(transformer.Transformer(config).apply, mutable='cache')
  )
  cache = language_model.empty_cache(config, batch_size=2, width=9)
  first_B, length_B = np.zeros(2, np.int32), np.array([5, 2], np.int32)
  prompt_BxL = np.where(np.arange(5) < length_B[:, None], tokens_BxL[:, :5], 7)
  for new_BxL in (prompt_BxL, *[None] * 4):
    if new_BxL is None:
      new_BxL = np.take_along_axis(tokens_BxL, first_B[:, None], axis=1)
    variables = {'params': trunk(config), 'cache': cache}
    x_BxLxD, written = apply(variables, new_BxL, length_B, first_B=first_B)
    cache = written['cache']
    for b in range(2):
      known = slice(first_B[b], length_B[b])
      found_LxD = x_BxLxD[b, : length_B[b] - first_B[b]]
      np.testing.assert_allclose(found_LxD, wanted_BxLxD[b, known], atol=1e-5)
    first_B, length_B = length_B, length_B + 1


@pytest.mark.parametrize('mesh', [(8, 1, 1), (2, 2, 2)], ids=str)
def test_a_mesh_writes_the_same(mesh, capfd):
  data, fsdp, tensor = mesh
  mesh = sharding.make_mesh(data=data, fsdp=fsdp, tensor=tensor)
  tokens_BxL = tokens_of(LENGTHS, width=16)
  params = trunk(CONFIG)
  wanted_BxT = greedy(CONFIG, params, tokens_BxL, LENGTHS)
  placed = jax.device_put(params, sharding.tree_sharding(mesh, params))
  with jax.set_mesh(mesh):
    found_BxT = greedy(
      CONFIG, placed, *sharding.place_batch(mesh, (tokens_BxL, LENGTHS))
    )
  np.testing.assert_array_equal(found_BxT, wanted_BxT)
  assert 'Involuntary full rematerialization' not in capfd.readouterr().err


def test_wider_padding_changes_nothing():
  tokens_BxL = tokens_of(LENGTHS[:4], width=9)
  narrow_BxT = greedy(CONFIG, trunk(CONFIG), tokens_BxL, LENGTHS[:4])
  wider_BxL = np.pad(tokens_BxL, ((0, 0), (0, 7)))
  wide_BxT = greedy(CONFIG, trunk(CONFIG), wider_BxL, LENGTHS[:4])
  np.testing.assert_array_equal(wide_BxT, narrow_BxT)


def test_bfloat16_keeps_a_bfloat16_cache():
  config = dataclasses.replace(CONFIG, dtype='bfloat16')
  cache = language_model.empty_cache(config, batch_size=2, width=5)
  assert {x.dtype for x in jax.tree.leaves(cache)} == {np.dtype('bfloat16')}
  tokens_BxL = tokens_of(LENGTHS, width=16)
  found_BxT = greedy(config, trunk(CONFIG), tokens_BxL, LENGTHS)
  assert (0 <= found_BxT).all() and (found_BxT < config.vocab_size).all()
