"""Heads on texts: classifier, reward model, verbalizer, frozen features, probe.

heads.py has the protocol that they fulfil. Shapes as in transformer.py; C
classes.
"""

import flax.linen as nn
import numpy as np

from w2s_jax import batching
from w2s_jax.models import presets
from w2s_jax.models import transformer


class ClassHead(nn.Module):
  """Base of the heads whose logits_BxC are over the classes of the task."""

  config: presets.TransformerConfig
  num_classes: int

  DECODES = False

  def targets(self, batch):
    return batch['label_probs'], batch['weight']

  def answer(self, *inputs):
    return nn.softmax(self(*inputs))

  def read(self, tokenizer, inputs, answers):
    del tokenizer, inputs
    return answers, None


class Classifier(ClassHead):
  """Linear map of the pooled states, without a bias: float32 logits_BxC."""

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    pooled_BxD = _pooled(self.config, tokens_BxL, length_B, deterministic)
    return _scores(self.num_classes, pooled_BxD)

  def dummy_inputs(self, length):
    return np.zeros((1, length), np.int32), np.ones(1, np.int32)

  def rows(self, tokenizer, inputs, labels, *, max_length):
    tokens, cut_N = tokenizer.encode(inputs, max_length=max_length)
    return batching.Rows(tokens, labels and labels.probs_NxC), sum(cut_N)

  def texts(self, inputs):
    return inputs


def _pooled(config, tokens_BxL, length, deterministic):
  """Runs the trunk, a submodule of the calling head, and pools each text.

  Returns:
    Float32 [B, D], or [B, 2, D] where rows are pairs of texts.
  """
  trunk = transformer.Transformer(config, name='transformer')
  x_BxLxD = trunk(tokens_BxL, length, deterministic)
  return transformer.pool(x_BxLxD, length, config.pooling)


def _scores(num_scores, pooled):
  """Applies the linear layer 'head': float32 [..., num_scores]."""
  return nn.Dense(
    num_scores,
    use_bias=False,
    kernel_init=nn.initializers.zeros,
    precision=transformer.EXACT,
    name='head',
  )(pooled)


class RewardModel(ClassHead):
  """Scalar reward of each text of a pair: float32 logits_Bx2.

  A softmax over the two rewards is the Bradley-Terry model, p(second preferred)
  = sigmoid(r2 - r1) (paper appendix A.3), so pairs are trained and measured as
  two classes. Both texts are in one row; attention masks keep them apart.
  """

  num_classes: int = 2

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_Bx2, deterministic=True):
    pooled_Bx2xD = _pooled(self.config, tokens_BxL, length_Bx2, deterministic)
    return _scores(1, pooled_Bx2xD)[:, :, 0]

  def dummy_inputs(self, length):
    return np.zeros((1, 2 * length), np.int32), np.ones((1, 2), np.int32)

  def rows(self, tokenizer, inputs, labels, *, max_length):
    """Truncates long texts at their start: the judged reply is at the end."""
    tokens, cut = tokenizer.encode(
      self.texts(inputs), max_length=max_length, keep='end'
    )
    pairs = list(zip(tokens[::2], tokens[1::2], strict=True))
    cut_N = map(any, zip(cut[::2], cut[1::2]))
    return batching.Rows(pairs, labels and labels.probs_NxC), sum(cut_N)

  def texts(self, inputs):
    return [text for pair in inputs for text in pair.texts]


class Verbalizer(ClassHead):
  """Next-token logits of one vocabulary entry per class: float32 logits_BxC.

  For prompting (paper section 5.2.1), and for fine-tuning without a new head.
  tokenizers.Prompted puts the text into the prompt.
  """

  label_ids: tuple = ()  # token id of each class

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    logits_BxV = transformer.next_token_logits(
      transformer.pool(x_BxLxD, length_B, 'last'),
      trunk.variables['params'],
      self.config,
    )
    return logits_BxV[:, np.array(self.label_ids)]

  dummy_inputs = Classifier.dummy_inputs
  rows = Classifier.rows
  texts = Classifier.texts


class Features(nn.Module):
  """Pooled states of a frozen trunk: float32 [B, D], or [B, 2, D] of pairs."""

  config: presets.TransformerConfig

  DECODES = False
  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length):
    return _pooled(self.config, tokens_BxL, length, True)

  answer = __call__


class Probe(ClassHead):
  """Linear probe: the head of a Classifier or RewardModel on stored features.

  Its tokenizer is a FeatureTable.
  """

  INPUTS = ('features',)

  @nn.compact
  def __call__(self, features, deterministic=True):
    del deterministic
    if features.ndim == 2:
      return _scores(self.num_classes, features)
    return _scores(1, features)[:, :, 0]

  def rows(self, tokenizer, inputs, labels, *, max_length):
    del max_length
    features = tokenizer.take(inputs)
    tokens = [np.zeros(1, np.int32)] * len(inputs)
    label_probs_NxC = labels and labels.probs_NxC
    return batching.Rows(tokens, label_probs_NxC, {'features': features}), 0


class FeatureTable:
  """Looks up stored features [N, ...] of inputs, in place of a tokenizer."""

  def __init__(self, tokenizer, inputs, features):
    self._tokenizer = tokenizer
    self._place = {x: i for i, x in enumerate(inputs)}
    self._features = features

  def take(self, inputs):
    """Returns the features of these inputs, in their order."""
    return self._features[[self._place[x] for x in inputs]]

  def save(self, folder):
    self._tokenizer.save(folder)
