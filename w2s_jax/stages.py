"""Stages: the steps of a study, each done once and kept in its own folder.

Here a model learns labels, or is asked; what it learns before that stands in
starting_points.py.

What they leave there, beside what workdir.py does:

  {metrics.jsonl, checkpoints/, params/, tokenizer.json, predictions/}
"""

import dataclasses
import itertools
import json
import time
from typing import Any

import jax
import numpy as np

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import logger as logger_lib
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax import train
from w2s_jax import weak_labels
from w2s_jax import workdir
from w2s_jax.tasks import splits

# A student is looked at so often for early stopping.
_MOMENTS = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Rows with ground truth on which every model of a study is measured.

  Their lengths also decide the buckets, so that all stages share shapes.
  """

  splits: dict  # name -> Examples
  max_length: int
  num_buckets: int
  measure: Any  # the task's further metrics, or None

  def spec(self):
    return {
      'max_length': self.max_length,
      'num_buckets': self.num_buckets,
      **{name: splits.fingerprint(x) for name, x in self.splits.items()},
    }

  def buckets(self, model):
    lengths = [
      tokenize(model, examples, self.max_length)[0].lengths_N
      for examples in self.splits.values()
    ]
    return batching.choose_buckets(
      np.concatenate([*lengths, [self.max_length]]), count=self.num_buckets
    )


def tokenize(model, examples, max_length, labels=None):
  """(Rows, rows cut at max_length); labels are joined on ids."""
  if labels is not None:
    labels = weak_labels.join(examples.ids, labels)
  return model.network.rows(
    model.tokenizer, examples.inputs, labels, max_length=max_length
  )


def train_stage(
  runtime,
  *,
  name,
  model,
  fine_tuning,
  loss,
  loss_args,
  seed,
  inputs,
  labels,
  evaluation,
  lora=None,
  judge=None,
):
  """Fine-tunes a model on `inputs` towards `labels`, and predicts.

  `inputs` carries no labels of its own: a student can not see ground truth.
  With a `judge`, labels of the validation rows, the parameters that agree with
  it best at one of ten moments are kept: early stopping.
  """
  spec = {
    'kind': 'train',
    'model': model.identity,
    'fine_tuning': fine_tuning,
    'lora': lora,
    'loss': loss,
    'loss_args': loss_args,
    'seed': seed,
    'labels': labels.provenance,
    'judge': judge and judge.provenance,
    'evaluation': evaluation.spec(),
  }

  def build(stage):
    started = time.monotonic()
    rows, cut = tokenize(model, inputs, evaluation.max_length, labels)
    buckets = evaluation.buckets(model)
    prepared = train.prepare(
      rows,
      fine_tuning,
      buckets=buckets,
      loss=loss,
      loss_args=tuple(sorted(loss_args.items())),
      seed=seed,
    )
    trainable, frozen = adapt.split(
      model.init(runtime.mesh, seed),
      freeze=fine_tuning['freeze'],
      lora=lora,
      seed=seed,
    )

    def keep(trained):
      """What of the model goes to its folder."""
      return trained if lora else adapt.merge(trained, frozen)

    params_folder = stage.folder / 'params'
    if not workdir.agreed(params_folder.exists()):
      trained = fit(
        runtime,
        stage,
        model.network,
        trainable,
        frozen,
        prepared,
        snapshots=_MOMENTS - 1 if judge else 0,
      )
      if judge:
        trained = _best(runtime, stage, trained, frozen, judge, evaluation)
      checkpoint.save_params(params_folder, keep(trained))
    trained = checkpoint.load_params(params_folder, mesh=runtime.mesh)
    params = adapt.merge(trained, frozen)
    scores = _evaluate(runtime, stage, params, evaluation, buckets)
    if jax.process_index() == 0:
      model.tokenizer.save(stage.folder)
      for temporary in ('checkpoints', 'snapshots'):
        (stage.folder / temporary).rmtree(missing_ok=True)
    return {
      'seconds': round(time.monotonic() - started, 1),
      'steps': len(prepared['plan']),
      'rows': len(rows),
      'rows_cut': cut,
      'padding_ratio': batching.padding_ratio(rows, prepared['plan']),
      'params_sha256': checkpoint.digest(params_folder),
      **scores,
    }

  return workdir.once(runtime, f'{name}-seed{seed}', model, spec, build)


def fit(runtime, stage, network, trainable, frozen, prepared, *, snapshots=0):
  return train.fit(
    model=network,
    trainable=trainable,
    frozen=frozen,
    mesh=runtime.mesh,
    folder=stage.folder,
    checkpoint_every=runtime.checkpoint_every,
    logger=_logger(runtime, stage),
    name=stage.name,
    snapshots=snapshots,
    **prepared,
  )


def _trained(runtime, stage, seed):
  """Parameters that predict as the finished stage did."""
  folder = stage.folder / 'params'
  if not workdir.agreed(folder.exists()):  # a prompt changes none
    return stage.model.init(runtime.mesh, seed)
  params = checkpoint.load_params(folder, mesh=runtime.mesh)
  if adapt.is_lora(params):
    params = adapt.merge(params, stage.model.init(runtime.mesh, seed))
  return params


def _best(runtime, stage, trained, frozen, judge, evaluation):
  """Of all snapshots and the end, what agrees best with the judge.

  Leaves the whole curve in the stage's folder.
  """
  buckets = evaluation.buckets(stage.model)
  snapshots = sorted(
    (stage.folder / 'snapshots').glob('[0-9]*'), key=lambda p: int(p.name)
  )
  moments = {path.name: path for path in snapshots} | {'end': None}
  curve = {}
  for moment, folder in moments.items():
    trained_then = trained
    if folder:
      trained_then = checkpoint.load_params(folder, mesh=runtime.mesh)
    examples = evaluation.splits['validation']
    params = adapt.merge(trained_then, frozen)
    probs_NxC, _ = _predict(
      runtime, stage, params, examples, evaluation, buckets
    )
    judged = weak_labels.join(examples.ids, judge)
    curve[moment] = metrics.accuracy(probs_NxC, judged.probs_NxC)
  if jax.process_index() == 0:
    (stage.folder / 'early_stopping.json').write_text(json.dumps(curve))
  best = max(curve, key=curve.get)
  if best == 'end':
    return trained
  return checkpoint.load_params(moments[best], mesh=runtime.mesh)


def prompt_stage(
  runtime, *, name, model, shots, seed, inputs, labels, evaluation
):
  """Predictions of an untrained model with labelled examples in its context.

  Few-shot prompting (paper section 5.2.1): of each class as many `inputs` as of
  the others, as far as `shots` of them allow.
  """
  spec = {
    'kind': 'prompt',
    'model': model.identity,
    'shots': shots,
    'seed': seed,
    'labels': labels.provenance,
    'evaluation': evaluation.spec(),
  }
  labels = weak_labels.join(inputs.ids, labels)
  class_N = np.argmax(labels.probs_NxC, axis=1)
  # Shuffled from the order of ids: that of the rows has no say.
  order_N = np.random.default_rng(seed).permutation(np.argsort(inputs.ids))
  by_class = [order_N[class_N[order_N] == c] for c in np.unique(class_N)]
  turns = itertools.zip_longest(*by_class, fillvalue=-1)
  chosen = [i for i in itertools.chain(*turns) if i >= 0][:shots]
  label_ids = model.network.label_ids
  model = model._replace(
    tokenizer=model.tokenizer.with_examples(
      [(inputs.inputs[i], label_ids[class_N[i]]) for i in chosen]
    )
  )

  def build(stage):
    started = time.monotonic()
    params = model.init(runtime.mesh, seed)
    shown = [inputs.inputs[i] for i in chosen]
    _, cut = model.network.rows(
      model.tokenizer, shown, None, max_length=evaluation.max_length
    )
    scores = _evaluate(
      runtime, stage, params, evaluation, evaluation.buckets(model)
    )
    if jax.process_index() == 0:
      model.tokenizer.save(stage.folder)
    return {
      'seconds': round(time.monotonic() - started, 1),
      'rows': len(shown),
      'rows_cut': cut,
      **scores,
    }

  return workdir.once(runtime, f'{name}-seed{seed}', model, spec, build)


def zero_shot_stage(runtime, *, model, evaluation):
  """Predictions of a model before any fine-tuning."""
  spec = {
    'kind': 'zero_shot',
    'model': model.identity,
    'evaluation': evaluation.spec(),
  }

  def build(stage):
    params = model.init(runtime.mesh, 0)
    buckets = evaluation.buckets(model)
    return _evaluate(runtime, stage, params, evaluation, buckets)

  return workdir.once(runtime, f'zero_shot-{model.name}', model, spec, build)


def label_stage(runtime, *, name, supervisor, inputs, evaluation, seed):
  """Weak labels: what the trained `supervisor` says of `inputs`."""
  model = supervisor.model
  provenance = {
    'supervisor': supervisor.key,
    'rows': splits.fingerprint(inputs),
  }
  spec = {'kind': 'label', 'evaluation': evaluation.spec(), **provenance}

  def build(stage):
    params = _trained(runtime, supervisor, seed)
    buckets = evaluation.buckets(model)
    probs_NxC, texts_N = _predict(
      runtime, stage, params, inputs, evaluation, buckets
    )
    if jax.process_index() == 0:
      labels = weak_labels.Labels(inputs.ids, probs_NxC, provenance, texts_N)
      weak_labels.save(stage.folder / 'weak_labels.npz', labels)
    return {'rows': len(inputs)}

  stage = workdir.once(runtime, f'{name}-seed{seed}', model, spec, build)
  return weak_labels.load(
    stage.folder / 'weak_labels.npz', provenance=provenance
  )


def _evaluate(runtime, stage, params, evaluation, buckets):
  """Writes predictions/<split>.npz; returns the scores on each split."""
  scores = {}
  for split, examples in evaluation.splits.items():
    probs_NxC, texts_N = _predict(
      runtime, stage, params, examples, evaluation, buckets
    )
    if jax.process_index() == 0:
      weak_labels.save_arrays(
        stage.folder / 'predictions' / f'{split}.npz',
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


def _predict(runtime, stage, params, examples, evaluation, buckets):
  """Class probabilities [N, C] of the examples, and texts [N] or None."""
  model = stage.model
  rows, _ = tokenize(model, examples, evaluation.max_length)
  kept = answers(runtime, stage, model.network, params, rows, buckets)
  return model.network.read(model.tokenizer, examples.inputs, kept)


def answers(runtime, stage, network, params, rows, buckets):
  """What a network keeps of each row, [N, ...]."""
  with _logger(runtime, stage).progress(
    stage=f'{stage.name} predicts', total_steps=len(rows)
  ) as progress:
    return predict.predict(
      network,
      params,
      rows,
      batch_size=runtime.eval_batch_size,
      buckets=buckets,
      mesh=runtime.mesh,
      progress=progress,
    )


def _logger(runtime, stage):
  return logger_lib.Logger(
    stage.folder,
    console=runtime.console,
    is_primary=jax.process_index() == 0,
    tensorboard=runtime.tensorboard,
  )
