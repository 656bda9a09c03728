"""Output heads: their protocol, the table of them, the choice for a task.

A head is a Flax module over `config` and `num_classes`, with

  INPUTS: names of the batch arrays that it reads, in the order of its
    arguments;
  DECODES: whether `answer` decodes with a cache;
  dummy_inputs(length): one row for each of them, to trace the head with;
    `length` is that of each text (a Probe has none: it shares the parameters of
    the head that it stands for);
  __call__(*inputs, deterministic): float32 logits_RxK;
  targets(batch): (label_probs_RxK, weight_R), which the loss compares with the
    logits; None for labels if K is 2: nats, and whether the answer is right;
  answer(*inputs): the prediction for each row, an array [B, ...];

and, on the host,

  rows(tokenizer, inputs, labels, max_length): (batching.Rows, number of
    truncated rows); labels are weak_labels.Labels in the order of the inputs,
    or None;
  read(tokenizer, inputs, answers): (class probabilities [N, C], written texts
    [N] or None) of the answers;
  texts(inputs): the texts for generative fine-tuning, see LanguageModel.

To add a head: a class in one of the three modules, an entry of HEADS, and a
line in `choose`.

Shapes as in transformer.py; C classes, R rows of the loss: the batch, or its
B * T tokens of completions.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from w2s_jax import errors
from w2s_jax.models import chess_heads
from w2s_jax.models import language_model
from w2s_jax.models import text_heads
from w2s_jax.models import transformer

# By the name that the config.json of a stage holds.
HEADS = {
  'Classifier': text_heads.Classifier,
  'RewardModel': text_heads.RewardModel,
  'Verbalizer': text_heads.Verbalizer,
  'LanguageModel': language_model.LanguageModel,
  'MoveScorer': chess_heads.MoveScorer,
  'Generator': chess_heads.Generator,
}


def choose(inputs, config, num_classes, *, label_ids=None):
  """Returns the head for the inputs of a task on a trunk.

  Args:
    inputs: kind of the task's inputs: 'text', 'pair' or 'position'.
    config: of the trunk.
    num_classes: of the task.
    label_ids: token id of each class for a Verbalizer; None for a trained head.

  Raises:
    ValueError: such a model cannot read such inputs.
  """
  kind = config.reads
  if kind == 'text':
    kind = 'decoder' if config.causal else 'encoder'
  if label_ids is not None:
    if (inputs, kind) != ('text', 'decoder'):
      raise errors.UserError(
        f"head='verbalize' is for decoders on tasks of one text; this is a "
        f'model of kind {kind!r} and a task of kind {inputs!r}.'
      )
    return text_heads.Verbalizer(config, num_classes, tuple(label_ids))
  heads = {
    ('text', 'encoder'): text_heads.Classifier,
    ('text', 'decoder'): text_heads.Classifier,
    ('pair', 'encoder'): text_heads.RewardModel,
    ('pair', 'decoder'): text_heads.RewardModel,
    ('position', 'board'): chess_heads.MoveScorer,
    ('position', 'decoder'): chess_heads.Generator,
  }
  if (inputs, kind) not in heads:
    able = [known for wanted, known in heads if wanted == inputs]
    raise errors.UserError(
      f'a model of kind {kind!r} cannot read inputs of kind {inputs!r}; use a '
      f'model of kind {" or ".join(able)}.'
    )
  return heads[inputs, kind](config, num_classes)


@functools.lru_cache(maxsize=64)
def parameter_shapes(head):
  """Returns a nested dict of jax.ShapeDtypeStruct; do not modify it."""
  # Without layers it is traced fast; those of its trunk are alike.
  bare = head.clone(config=dataclasses.replace(head.config, num_layers=0))

  def params():  # as in transformer.py
    return bare.init(jax.random.key(0), *bare.dummy_inputs(1))['params']

  shapes = jax.eval_shape(params)
  if 'transformer' in shapes:  # a Probe has none
    trunk = transformer.parameter_shapes(head.config)
    shapes = {**shapes, 'transformer': trunk}
  return shapes


def head_from_token_rows(params, token_ids):
  """Initialises the head of a Classifier with rows of the output table.

  One token for each class, such as "0" and "1" (paper appendix A.1).

  Raises:
    ValueError: not one token id inside the vocabulary for each class.
  """
  embedding_VxD = transformer.output_table(params['transformer'])
  num_classes = params['head']['kernel'].shape[1]
  vocab_size = embedding_VxD.shape[0]
  inside = all(0 <= i < vocab_size for i in token_ids)
  if len(token_ids) != num_classes or not inside:
    raise errors.UserError(
      f'A head of {num_classes} classes needs as many token ids below '
      f'{vocab_size}; got {list(token_ids)}.'
    )
  kernel_DxC = embedding_VxD[jnp.asarray(token_ids)].T.astype(jnp.float32)
  return {**params, 'head': {'kernel': kernel_DxC}}
