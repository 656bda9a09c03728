"""Nats of a language model, in pieces too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reward_model_test import random_params

from w2s_jax import batching
from w2s_jax import sharding
from w2s_jax.models import language_model
from w2s_jax.models import presets
from w2s_jax.models import tokenizers
from w2s_jax.models import transformer

CONFIG = presets.PRESETS['tiny-decoder']
WORDS = tokenizers.WordHash(1024)
TEXTS = ['a b c', 'd e f g h i j k']


def test_nats_are_of_the_next_token_alone():
  model = language_model.LanguageModel(CONFIG)
  params = random_params(model)
  rows = language_model.pack(WORDS, TEXTS, max_length=8)
  batch = batching.assemble(rows, np.arange(2), 8, batch_size=3)
  inputs = batch['tokens'], batch['length']
  scores_Rx2 = model.apply({'params': params}, *inputs)
  labels, weight_R = model.targets(batch)
  nats_Bx2 = model.apply({'params': params}, *inputs, method='answer')
  assert labels is None and len(scores_Rx2) == len(weight_R) == 3 * 8
  for b, tokens in enumerate(rows.tokens):
    x_1xLxD = transformer.Transformer(CONFIG).apply(
      {'params': params['transformer']}, tokens[None], np.array([len(tokens)])
    )
    logits_LxV = transformer.next_token_logits(
      x_1xLxD[0], params['transformer'], CONFIG
    )
    expected_LxV = jax.nn.log_softmax(logits_LxV)
    total = 0
    for t, token in enumerate(tokens[1:]):
      nats, right = scores_Rx2[8 * b + t]
      assert weight_R[8 * b + t] == 1
      np.testing.assert_allclose(nats, -expected_LxV[t, token], atol=1e-4)
      assert right == (logits_LxV[t].argmax() == token)
      total -= expected_LxV[t, token]
    assert not weight_R[8 * b + len(tokens) - 1 : 8 * (b + 1)].any()
    np.testing.assert_allclose(nats_Bx2[b], [total, len(tokens) - 1], rtol=1e-5)
  assert not nats_Bx2[2].any()


def loss_and_gradients(monkeypatch, most_logits):
  """Of 4 rows of 32 tokens over a vocabulary of 4,096, and bytes in use."""
  monkeypatch.setattr(language_model, '_MOST_LOGITS', most_logits)
  config = dataclasses.replace(CONFIG, vocab_size=4096, num_layers=1)
  model = language_model.LanguageModel(config)
  params = random_params(model)
  tokens = np.random.default_rng(1).integers(0, 4096, (4, 32), np.int32)
  batch = {'tokens': tokens, 'length': np.array([32, 20, 3, 0])}

  def loss(params):
    scores_Rx2 = model.apply(
      {'params': params}, batch['tokens'], batch['length']
    )
    _, weight_R = model.targets(batch)
    return jnp.sum(weight_R * scores_Rx2[:, 0])

  program = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
  return program(params), program.memory_analysis().temp_size_in_bytes


def test_pieces_change_memory_and_not_the_loss(monkeypatch):
  logits = 4 * 32 * 4096
  (loss, grads), whole = loss_and_gradients(monkeypatch, logits)
  (found, found_grads), cut = loss_and_gradients(monkeypatch, logits // 8)
  np.testing.assert_allclose(found, loss, rtol=1e-5)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    found_grads,
    grads,
  )
  assert whole > 2 * 4 * logits  # logits and their gradient, of 4 bytes
  assert cut < whole / 2


@pytest.mark.parametrize(
  'shape, vocab_size, ways, pieces',
  [
    ((8, 512), 262_144, 1, 16),
    ((8, 512), 262_144, 8, 2),
    ((8, 256), 49_152, 1, 2),
    ((8, 256), 30_522, 1, 1),
    ((8, 511), 262_144, 1, 1),  # cannot be halved
  ],
)
def test_logits_of_a_piece_fit_on_a_device(
  monkeypatch, shape, vocab_size, ways, pieces
):
  monkeypatch.setattr(sharding, 'batch_ways', lambda: ways)
  assert language_model.num_pieces(shape, vocab_size) == pieces


def test_a_mesh_divides_the_batch():
  assert sharding.batch_ways() == 1
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    assert sharding.batch_ways() == 4
