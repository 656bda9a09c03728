"""Tests of the reward model and of the language model."""

import functools

import jax
import numpy as np
import pytest
import tokenizers_test

from w2s_jax import batching
from w2s_jax import predict
from w2s_jax import sharding
from w2s_jax import weak_labels
from w2s_jax.models import heads
from w2s_jax.models import language_model
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.models import tokenizers
from w2s_jax.tasks import reward

import tiny

CONFIGS = {
  name: presets.PRESETS[f'tiny-{name}'] for name in ('encoder', 'decoder')
}
WORDS = tokenizers.WordHash(1024)
PAIRS = [
  reward.Pair('Human: a b\n\nAssistant:', 'yes it is', 'no'),
  reward.Pair('', 'one two three four five six', 'seven'),
  reward.Pair('Human: a longer one\n\nAssistant:', 'c d', 'd c'),
]


@functools.cache
def random_params(head):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32),
    heads.parameter_shapes(head),
  )


def rows_of(model, pairs, max_length=16, labels=None):
  return model.rows(WORDS, pairs, labels, max_length=max_length)


def answers(model, pairs, mesh=None, batch_size=4):
  rows, _ = rows_of(model, pairs)
  return predict.predict(
    model,
    random_params(model),
    rows,
    batch_size=batch_size,
    buckets=(8, 16),
    mesh=mesh or tiny.one_device(),
  )


@pytest.mark.parametrize('kind', CONFIGS)
def test_the_reward_of_a_text_is_its_own(kind):
  """Rewards equal the scores of a classifier that reads one text at a time."""
  model = heads.choose('pair', CONFIGS[kind], 2)
  params = random_params(model)
  rows, _ = rows_of(model, PAIRS)
  batch = batching.assemble(rows, np.arange(3), 16, batch_size=4)
  assert batch['tokens'].shape == (4, 16) and batch['length'].shape == (4, 2)
  logits_Bx2 = model.apply({'params': params}, batch['tokens'], batch['length'])
  single = text_heads.Classifier(CONFIGS[kind], 1)
  for pair, logits_2 in zip(PAIRS, logits_Bx2):
    for text, logit in zip(pair.texts, logits_2, strict=True):
      (ids,), _ = WORDS.encode([text], max_length=16)
      score = single.apply({'params': params}, ids[None], np.array([len(ids)]))
      np.testing.assert_allclose(logit, score[0, 0], atol=1e-4)
  assert not logits_Bx2[3].any()  # the padding row


def test_probability_is_that_of_bradley_and_terry_and_turns_with_the_pair():
  model = text_heads.RewardModel(CONFIGS['encoder'])
  swapped = [reward.Pair(p.prompt, p.second, p.first) for p in PAIRS]
  probs_Nx2, turned_Nx2 = answers(model, PAIRS), answers(model, swapped)
  np.testing.assert_allclose(probs_Nx2, turned_Nx2[:, ::-1], atol=1e-6)
  rows, _ = rows_of(model, PAIRS)
  batch = batching.assemble(rows, np.arange(3), 16, batch_size=3)
  r_Bx2 = model.apply(
    {'params': random_params(model)}, batch['tokens'], batch['length']
  )
  expected_B = 1 / (1 + np.exp(r_Bx2[:, 0] - r_Bx2[:, 1]))
  np.testing.assert_allclose(probs_Nx2[:, 1], expected_B, atol=1e-5)


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_pairs_on_a_mesh(shape):
  model = text_heads.RewardModel(CONFIGS['decoder'])
  pairs = [
    reward.Pair(f'{p.prompt} {i}', p.first, p.second)
    for i in range(4)
    for p in PAIRS
  ]
  mesh = sharding.make_mesh(**dict(zip(('data', 'fsdp', 'tensor'), shape)))
  np.testing.assert_allclose(
    answers(model, pairs, mesh, batch_size=8), answers(model, pairs), atol=1e-5
  )


def test_long_texts_lose_their_beginning_and_are_counted_once_a_pair():
  model = text_heads.RewardModel(CONFIGS['decoder'])
  long = reward.Pair('start ' * 9, 'good end', 'bad end')
  rows, cut = rows_of(model, [PAIRS[0], long, PAIRS[1]], max_length=7)
  assert cut == 1
  kept = [
    WORDS.encode_whole([f'{"start " * 5}{x} end'])[0] for x in ('good', 'bad')
  ]
  np.testing.assert_array_equal(rows.tokens[1], kept)
  one_long = reward.Pair('', 'short', 'x ' * 9)
  assert rows_of(model, [one_long], max_length=6)[1] == 1


def test_padding_is_behind_both_texts():
  rows, _ = rows_of(text_heads.RewardModel(CONFIGS['encoder']), PAIRS)
  assert rows.lengths.tolist() == [[7, 5], [6, 1], [7, 7]]
  assert rows.lengths_N.tolist() == [12, 7, 14]
  plan = batching.EpochPlan(
    rows.lengths_N, batch_size=2, buckets=(8, 16), epochs=1, seed=0
  )
  assert batching.padding_ratio(rows, plan) == (2 * 8 + 2 * 16) / 33


def test_votes_are_learned_as_they_were_cast():
  model = text_heads.RewardModel(CONFIGS['encoder'])
  probs_Nx2 = np.array([[1, 0], [1 / 3, 2 / 3], [0, 1]], np.float32)
  labels = weak_labels.Labels(np.array(['a', 'b', 'c']), probs_Nx2)
  rows, _ = rows_of(model, PAIRS, labels=labels)
  batch = batching.assemble(rows, np.arange(3), 16, batch_size=4)
  labels_Bx2, weight_B = model.targets(batch)
  np.testing.assert_array_equal(labels_Bx2[:3], probs_Nx2)
  np.testing.assert_array_equal(weight_B, [1, 1, 1, 0])


def test_packed_texts_are_whole_with_ends_between_them():
  texts = ['a b c', '', 'd', 'e f g h i']
  rows = language_model.pack(WORDS, texts, max_length=5)
  assert [len(row) for row in rows.tokens] == [5, 5, 3]
  ids = dict(zip('abcdefghi', np.concatenate(WORDS.encode_whole('abcdefghi'))))
  expected = [ids.get(c, WORDS.end_id()) for c in 'abc..d.efghi.']
  assert np.concatenate(rows.tokens).tolist() == expected


def test_packed_texts_have_the_bos_token_of_their_tokenizer(tmp_path):
  llama2 = tokenizers_test.loaded(tokenizers_test.llama2_like(), tmp_path)
  rows = language_model.pack(llama2, ['a1', '', '0'], max_length=9)
  assert np.concatenate(rows.tokens).tolist() == [
    *(1, 3, 6, 5, 2),  # <s> _ a 1 </s>
    *(1, 2),
    *(1, 3, 4, 2),
  ]


def test_a_prompt_is_around_each_text_of_a_pair():
  model = text_heads.RewardModel(CONFIGS['decoder'])
  tokenizer = tokenizers.Prompted(WORDS, 'start {text} end')
  rows, truncated = model.rows(tokenizer, PAIRS, None, max_length=4)
  first, second = rows.tokens[1]
  words = ['start', 'five', 'six', 'end']  # the judged reply is at the end
  assert first.tolist() == [WORDS.token_id(word) for word in words]
  assert second.tolist() == [
    WORDS.token_id(word) for word in ('start', 'seven', 'end')
  ]
  assert truncated == 3
