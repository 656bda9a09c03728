"""What stands on the trunk: one class for each way to answer.

A head is a Flax module over `config` and `num_classes`, with

  INPUTS: the arrays of a batch that it reads, in the order of its arguments;
  __call__(*inputs, deterministic): float32 logits_RxK;
  targets(batch): (label_probs_RxK, weight_R) to hold against the logits;
  answer(*inputs): what to keep of each row, an array [B, ...];

and, on the host,

  rows(tokenizer, inputs, label_probs_NxC, max_length): (Rows, rows cut);
  read(tokenizer, inputs, answers): class probabilities [N, C] of the answers.

To add one: its class here, and its line in `choose`.

Shapes as in transformer.py; A actions of a piece on a board.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import batching
from w2s_jax import transformer
from w2s_jax.tasks import chess

# The default on TPU is bfloat16.
_EXACT = jax.lax.Precision.HIGHEST


class Classifier(nn.Module):
  """Trunk, pooling and a bias-free linear head: float32 logits_BxC."""

  config: transformer.TransformerConfig
  num_classes: int

  INPUTS = ('tokens', 'length')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    pooled_BxD = transformer.pool(x_BxLxD, length_B, self.config.pooling)
    return nn.Dense(
      self.num_classes,
      use_bias=False,
      kernel_init=nn.initializers.zeros,
      precision=_EXACT,
      name='head',
    )(pooled_BxD)

  def targets(self, batch):
    return batch['label_probs'], batch['weight']

  def answer(self, *inputs):
    return nn.softmax(self(*inputs))

  def rows(self, tokenizer, inputs, label_probs_NxC, *, max_length):
    tokens, cut = tokenizer.encode(inputs, max_length=max_length)
    return batching.Rows(tokens, label_probs_NxC), cut

  def read(self, tokenizer, inputs, answers):
    del tokenizer, inputs
    return answers


class MoveScorer(nn.Module):
  """What each piece on a board could do, read off at the row's legal moves.

  Logits_BxC are float32, of the classes of tasks/chess.py; those beyond the
  legal moves have probability 0.
  """

  config: transformer.TransformerConfig
  num_classes: int = chess.NUM_CLASSES

  INPUTS = ('tokens', 'length', 'candidates')

  @nn.compact
  def __call__(self, tokens_BxL, length_B, candidates_BxC, deterministic=True):
    trunk = transformer.Transformer(self.config, name='transformer')
    x_BxLxD = trunk(tokens_BxL, length_B, deterministic)
    actions_BxLxA = nn.Dense(chess.NUM_ACTIONS, precision=_EXACT, name='head')(
      x_BxLxD.astype(jnp.float32)
    )
    actions_BxLA = actions_BxLxA.reshape(len(length_B), -1)
    logits_BxC = jnp.take_along_axis(
      actions_BxLA, jnp.maximum(candidates_BxC, 0), axis=1
    )
    lowest = jnp.finfo(jnp.float32).min
    return jnp.where(candidates_BxC >= 0, logits_BxC, lowest)

  def targets(self, batch):
    return batch['label_probs'], batch['weight']

  def answer(self, *inputs):
    return nn.softmax(self(*inputs))

  def rows(self, tokenizer, inputs, label_probs_NxC, *, max_length):
    del max_length  # a board has at most 33 tokens
    tokens, candidates = tokenizer.encode(inputs)
    candidates_NxC = batching.Padded(candidates, self.num_classes)
    extra = {'candidates': candidates_NxC}
    return batching.Rows(tokens, label_probs_NxC, extra), 0

  def read(self, tokenizer, inputs, answers):
    del tokenizer, inputs
    return answers


def choose(inputs, config, num_classes):
  """The head for inputs of a task ('text', 'position') on a trunk.

  Raises:
    ValueError: such a model can not read such inputs.
  """
  heads = {('text', 'text'): Classifier, ('position', 'board'): MoveScorer}
  if (inputs, config.reads) not in heads:
    raise ValueError(
      f'a model that reads {config.reads} can not take on a task whose inputs '
      f'are of kind {inputs!r}.'
    )
  return heads[inputs, config.reads](config, num_classes)


def parameter_shapes(head, length=1):
  """Nested dict of jax.ShapeDtypeStruct.

  Raises:
    ValueError: rows of this length do not fit the model.
  """
  inputs = dummy_inputs(head, length)
  return jax.eval_shape(head.init, jax.random.key(0), *inputs)['params']


def dummy_inputs(head, length=1):
  """One row of zeros, to trace a head with."""
  arrays = {
    'tokens': np.zeros((1, length), np.int32),
    'length': np.ones(1, np.int32),
    'candidates': np.zeros((1, 1), np.int32),
  }
  return [arrays[name] for name in head.INPUTS]


def head_from_token_rows(params, token_ids):
  """Params of a Classifier with its head set to rows of the token embedding.

  One token per class, as "0" and "1" in App. A.1 of Burns et al. 2023.

  Raises:
    ValueError: not one token id inside the vocabulary for each class.
  """
  embedding_VxD = params['transformer']['token_embed']['embedding']
  num_classes = params['head']['kernel'].shape[1]
  vocab_size = embedding_VxD.shape[0]
  inside = all(0 <= i < vocab_size for i in token_ids)
  if len(token_ids) != num_classes or not inside:
    raise ValueError(
      f'A head of {num_classes} classes needs as many token ids below '
      f'{vocab_size}; got {list(token_ids)}.'
    )
  kernel_DxC = embedding_VxD[jnp.asarray(token_ids)].T
  return {**params, 'head': {'kernel': kernel_DxC}}
