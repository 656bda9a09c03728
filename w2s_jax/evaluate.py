"""Predictions and scores of one model on validation and test rows."""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from w2s_jax import batching
from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax import weak_labels
from w2s_jax.models import text_heads
from w2s_jax.tasks import examples as examples_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
  """Rows with ground truth on which every model of a study is scored.

  Their lengths also decide the buckets, so that all stages share shapes.
  """

  validation: examples_lib.Examples
  test: examples_lib.Examples
  max_length: int
  num_buckets: int
  measure: Any = dataclasses.field(default=None, compare=False)  # of the task
  _tokenized: dict = dataclasses.field(default_factory=dict, compare=False)
  _counts: dict = dataclasses.field(default_factory=dict, compare=False)

  @property
  def splits(self):
    return {'validation': self.validation, 'test': self.test}

  def rows(self, model, split):
    """Tokenized rows of a split, kept for all stages of the tokenizer."""
    examples = self.splits[split]
    if isinstance(model.tokenizer, text_heads.FeatureTable):  # of one stage
      return tokenize(model, examples, self.max_length)[0]
    key = split, model.tokenizer, type(model.network)
    if key not in self._tokenized:
      self._tokenized[key] = tokenize(model, examples, self.max_length)[0]
    return self._tokenized[key]

  def for_model(self, model, num_rows):
    """Itself, with the best number of buckets for a model if it is -1.

    Args:
      num_rows: rows of the transfer set.
    """
    if self.num_buckets != -1 or model.network is None:  # in an outline
      return self
    key = model.network, model.tokenizer, num_rows
    if key not in self._counts:  # each stage of a model asks
      architecture = model.network.config
      self._counts[key] = batching.count_buckets(
        self._lengths(model),
        num_rows=num_rows,
        layers=architecture.num_layers,
        width=architecture.embed_dim,
      )
    return dataclasses.replace(self, num_buckets=self._counts[key])

  def buckets(self, model):
    """Padded lengths, in tokens, that all stages of a model use."""
    return batching.choose_buckets(self._lengths(model), count=self.num_buckets)

  def _lengths(self, model):
    """Tokens of all rows, and of the longest that there can be."""
    rows = [self.rows(model, split) for split in self.splits]
    longest = self.max_length * rows[0].texts
    return np.concatenate([*(x.lengths_N for x in rows), [longest]])


def tokenize(model, examples, max_length, labels=None):
  """(Rows, number of rows truncated at max_length); labels join on ids."""
  if labels is not None:
    labels = weak_labels.join(examples.ids, labels)
  return model.network.rows(
    model.tokenizer, examples.inputs, labels, max_length=max_length
  )


def predictions(job, model, params, rows, inputs, *, buckets, label, show=True):
  """(class probabilities [N, C], completions [N] or None) of tokenized rows.

  Long ones are kept in shards under `label`, so that a job that is stopped
  again and again still gets on. Their progress is shown if `show`.

  Raises:
    errors.DivergedError: a probability is not finite.
  """
  answers_N = outputs(
    job, model.network, params, rows, buckets=buckets, label=label, show=show
  )
  probs_NxC, texts_N = model.network.read(model.tokenizer, inputs, answers_N)
  if not np.isfinite(probs_NxC).all():
    bad = int((~np.isfinite(probs_NxC)).any(-1).sum())
    raise errors.DivergedError(
      f'{job.name}: {bad} of {len(probs_NxC)} predictions on {label} are not '
      "finite; lower the model's learning rate or use dtype float32."
    )
  return probs_NxC, texts_N


def outputs(job, network, params, rows, *, buckets, label, show=True):
  """What a network computes for each row, [N, ...], in their order."""
  shown = contextlib.nullcontext()
  if show:
    shown = job.logger().progress(
      stage=f'{job.name}: {label}', total_steps=len(rows)
    )
  with shown as progress:
    return predict.predict(
      network,
      params,
      rows,
      batch_size=job.runtime.eval_batch_size,
      buckets=buckets,
      mesh=job.mesh,
      progress=progress,
      shards=job.folder / 'shards' / label,
    )


def evaluate(job, model, params, evaluation):
  """Writes predictions/<split>.npz; returns the scores on each split."""
  buckets = evaluation.buckets(model)

  def predicted(split, examples):
    rows = evaluation.rows(model, split)
    return predictions(
      job, model, params, rows, examples.inputs, buckets=buckets, label=split
    )

  return _score(job, evaluation, predicted)


def evaluate_uniform(job, model, evaluation):
  """`evaluate` of a model for which all classes are equally probable."""
  num_classes = model.network.num_classes

  def predicted(_, examples):
    shape = len(examples), num_classes
    return np.full(shape, 1 / num_classes, np.float32), None

  return _score(job, evaluation, predicted)


def _score(job, evaluation, predicted):
  scores = {}
  for split, examples in evaluation.splits.items():
    probs_NxC, texts_N = predicted(split, examples)
    job.save_arrays(
      f'predictions/{split}.npz',
      ids=examples.ids,
      probs=probs_NxC,
      label_probs=examples.label_probs_NxC,
      texts=texts_N,
    )
    outcome = probs_NxC, examples.label_probs_NxC
    scores[f'{split}_accuracy'] = metrics.accuracy(*outcome)
    if evaluation.measure:
      for name, value in evaluation.measure(examples.inputs, *outcome).items():
        scores[f'{split}_{name}'] = value
  return scores
