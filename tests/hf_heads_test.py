"""Compares exported classifiers with `transformers`."""

import dataclasses

import hf_families_test
import jax
import numpy as np
import pytest
import reward_model_test
import tokenizers_test

from w2s_jax import errors
from w2s_jax import predict
from w2s_jax.models import chess_heads
from w2s_jax.models import hf_heads
from w2s_jax.models import presets
from w2s_jax.models import text_heads
from w2s_jax.models import tokenizers

import tiny

PROMPT = 'Review: {text} - bad?'
TEXTS = ['good', 'bad and good', '', 'a text that is longer than all others']
FAMILIES = sorted(set(hf_families_test.TINY) - {'in sequence', 'linear'})


def model_of(family, *, kind=text_heads.Classifier, num_classes=3, **fields):
  """Returns a random network and a tokenizer of its own."""
  is_bert = family == 'bert'
  backend = getattr(tokenizers_test, f'{"bert" if is_bert else "gpt2"}_like')()
  tokenizer = tokenizers.Tokenizer(backend)
  config = dataclasses.replace(
    hf_families_test.TINY[family],
    vocab_size=260,
    **dict(max_positions=64) | fields,
  )
  return kind(config, num_classes), tokenizer


def our_logits(network, tokenizer, texts):
  """Returns logits of the random classifier, by our own code."""
  ids, _ = tokenizer.encode(texts, max_length=32)
  length_N = np.array([len(row) for row in ids])
  tokens_NxL = np.stack([np.pad(row, (0, 32 - len(row))) for row in ids])
  params = reward_model_test.random_params(network)
  return jax.jit(network.apply)({'params': params}, tokens_NxL, length_N)


def opened(folder, network, tokenizer, *, keep='start'):
  """Exports the random network; returns what `transformers` opens."""
  transformers = pytest.importorskip('transformers', reason='transformers')
  pytest.importorskip('torch', reason='needs torch')
  form = hf_heads.form('a model', network, tokenizer)
  is_pair = isinstance(network, text_heads.RewardModel)
  hf_heads.save(
    folder,
    form,
    reward_model_test.random_params(network),
    labels=[f'class {c}' for c in range(1 if is_pair else network.num_classes)],
    max_length=32,
    keep=keep,
  )
  model, report = (
    transformers.AutoModelForSequenceClassification.from_pretrained(
      folder,
      trust_remote_code=form.own_code,
      attn_implementation='eager',
      output_loading_info=True,
    )
  )
  assert not any(report.values()), report
  assert type(model).__name__ == form.architecture
  fast = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
  return model.eval(), fast


def logits_of(model, fast, texts, **settings):
  import torch

  encoded = fast(
    texts, padding=True, truncation=True, return_tensors='pt', **settings
  )
  with torch.no_grad():
    return model(**encoded).logits


@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_computes_the_same_logits(family, tmp_path):
  network, tokenizer = model_of(family)
  model, fast = opened(tmp_path, network, tokenizer)
  logits_NxC = logits_of(model, fast, TEXTS[:2] + TEXTS[3:])
  alone_1xC = logits_of(model, fast, TEXTS[:1])  # without padding
  np.testing.assert_allclose(alone_1xC, logits_NxC[:1], atol=1e-5)
  ours_NxC = our_logits(network, tokenizer, TEXTS[:2] + TEXTS[3:])
  np.testing.assert_allclose(logits_NxC, ours_NxC, atol=1e-5)
  assert np.ptp(ours_NxC, axis=0).max() > 0.01
  assert model.config.id2label[2] == 'class 2'


def test_a_stock_class_does_not_open_another_head(tmp_path):
  network, tokenizer = model_of('bert')
  opened(tmp_path, network, tokenizer)
  transformers = pytest.importorskip('transformers')
  with pytest.raises(ValueError, match='trust_remote_code=True'):
    transformers.AutoModelForSequenceClassification.from_pretrained(
      tmp_path, trust_remote_code=False
    )


def test_a_prompt_is_part_of_the_tokenizer(tmp_path):
  network, tokenizer = model_of('llama')
  prompted = tokenizers.Prompted(tokenizer, PROMPT)
  model, fast = opened(tmp_path, network, prompted)
  ids, _ = prompted.encode(TEXTS, max_length=32)
  found = fast(TEXTS, truncation=True)['input_ids']
  assert found == [row.tolist() for row in ids]
  ours_NxC = our_logits(network, prompted, TEXTS)
  logits_NxC = logits_of(model, fast, TEXTS)
  np.testing.assert_allclose(logits_NxC, ours_NxC, atol=1e-5)


@pytest.mark.parametrize('family', ['bert', 'qwen2'])
def test_a_reward_model_has_one_score(family, tmp_path):
  network, tokenizer = model_of(
    family, kind=text_heads.RewardModel, num_classes=2
  )
  model, fast = opened(tmp_path, network, tokenizer, keep='end')
  pairs = reward_model_test.PAIRS
  scores_N = logits_of(model, fast, network.texts(pairs))[:, 0]
  rows, _ = network.rows(tokenizer, pairs, None, max_length=32)
  probs_Nx2 = predict.predict(
    network,
    reward_model_test.random_params(network),
    rows,
    batch_size=4,
    buckets=(64,),
    mesh=tiny.one_device(),
  )
  np.testing.assert_allclose(
    scores_N.reshape(-1, 2).softmax(-1), probs_Nx2, atol=1e-5
  )


def test_padding_ends_no_text():
  backend = tokenizers_test.gpt2_like()
  tokenizer = tokenizers.Tokenizer(backend)
  end = tokenizer.end_id()
  assert hf_heads.padding_id(tokenizer, 260) == end
  ending = tokenizer.around([], [end])
  assert ending.encode(['a'], max_length=9)[0][0][-1] == end
  assert hf_heads.padding_id(ending, 260) != end
  bert = tokenizers.Tokenizer(tokenizers_test.bert_like())
  assert hf_heads.padding_id(bert, 260) == 0


@pytest.mark.parametrize(
  ('network', 'tokenizer', 'found'),
  [
    (
      chess_heads.MoveScorer(presets.PRESETS['board-xs']),
      tokenizers.Board(),
      'head like MoveScorer',
    ),
    (
      text_heads.Classifier(presets.PRESETS['tiny-encoder'], 2),
      tokenizers.WordHash(1024),
      'tokenizer like WordHash',
    ),
    (
      text_heads.Classifier(presets.PRESETS['bag'], 2),
      tokenizers.Tokenizer(tokenizers_test.bert_like()),
      'trunk like its, of 0 layers',
    ),
  ],
)
def test_what_transformers_does_not_know_is_named(network, tokenizer, found):
  with pytest.raises(errors.UserError, match=f'^weak-x: .*{found}; what can'):
    hf_heads.form('weak-x', network, tokenizer)
