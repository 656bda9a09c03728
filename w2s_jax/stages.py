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
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax import train
from w2s_jax import weak_labels
from w2s_jax.runtime import logger as logger_lib
from w2s_jax.runtime import workdir
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
    rows = [
      tokenize(model, examples, self.max_length)[0]
      for examples in self.splits.values()
    ]
    longest = self.max_length * rows[0].texts
    return batching.choose_buckets(
      np.concatenate([*(x.lengths_N for x in rows), [longest]]),
      count=self.num_buckets,
    )


def tokenize(model, examples, max_length, labels=None):
  """(Rows, rows cut at max_length); labels are joined on ids."""
  if labels is not None:
    labels = weak_labels.join(examples.ids, labels)
  return model.network.rows(
    model.tokenizer, examples.inputs, labels, max_length=max_length
  )


@dataclasses.dataclass(frozen=True)
class Lesson:
  """A model, and what it is to learn towards which labels.

  `inputs` carries no labels of its own: a student can not see ground truth.
  With a `judge`, labels of the validation rows, the parameters that agree with
  it best at one of ten moments are kept: early stopping.
  """

  name: str
  model: Any
  fine_tuning: dict  # `train` fields of a config
  lora: Any  # None, or a dict of its fields
  loss: str
  loss_args: dict
  seed: int
  inputs: Any
  labels: Any
  judge: Any

  def spec(self, evaluation):
    return {
      'kind': 'train',
      'model': self.model.identity,
      'fine_tuning': self.fine_tuning,
      'lora': self.lora,
      'loss': self.loss,
      'loss_args': self.loss_args,
      'seed': self.seed,
      'labels': self.labels.provenance,
      'judge': self.judge and self.judge.provenance,
      'evaluation': evaluation.spec(),
    }


def train_stages(runtime, lessons, evaluation):
  """Fine-tunes models of one network, side by side, and lets them predict."""
  requests = [
    (f'{lesson.name}-seed{lesson.seed}', lesson.model, lesson.spec(evaluation))
    for lesson in lessons
  ]

  def build(missing):
    started = time.monotonic()
    learners = [
      _Learner(runtime, stage, lessons[i], evaluation)
      for i, stage in missing.items()
    ]
    _share_frozen(learners)
    _train(runtime, [x for x in learners if not x.is_trained()])
    scores = [learner.finish() for learner in learners]
    seconds = (time.monotonic() - started) / len(learners)
    return [{'seconds': round(seconds, 1), **score} for score in scores]

  return workdir.side_by_side(runtime, requests, build)


def _train(runtime, learners):
  """Leaves in the folder of each what it has learned."""
  if not learners:
    return
  judged = any(learner.lesson.judge for learner in learners)
  outcome = train.fit(
    model=learners[0].lesson.model.network,
    members=[learner.member() for learner in learners],
    mesh=runtime.mesh,
    checkpoint_every=runtime.checkpoint_every,
    name=learners[0].stage.name,
    snapshots=_MOMENTS - 1 if judged else 0,
  )
  for learner, trained in zip(learners, outcome, strict=True):
    learner.keep(trained)


def _share_frozen(learners):
  """What is frozen and the same for all is held once."""
  held = {}
  for learner in learners:
    model = learner.lesson.model
    if not model.weights.startswith('random:'):  # else each seed has its own
      identity = json.dumps(model.identity, sort_keys=True, default=list)
      learner.frozen = held.setdefault(identity, learner.frozen)


class _Learner:
  """The stage of a lesson, and all that follows from it."""

  def __init__(self, runtime, stage, lesson, evaluation):
    self.stage, self.lesson = stage, lesson
    self._runtime, self._evaluation = runtime, evaluation
    self._rows, self._cut = tokenize(
      lesson.model, lesson.inputs, evaluation.max_length, lesson.labels
    )
    self._buckets = evaluation.buckets(lesson.model)
    self._prepared = train.prepare(
      self._rows,
      lesson.fine_tuning,
      buckets=self._buckets,
      loss=lesson.loss,
      loss_args=tuple(sorted(lesson.loss_args.items())),
      seed=lesson.seed,
    )
    self._params_folder, self._kept = stage.folder / 'params', None
    self._trainable, self.frozen = adapt.split(
      lesson.model.init(runtime.mesh, lesson.seed),
      freeze=lesson.fine_tuning['freeze'],
      lora=lesson.lora,
      seed=lesson.seed,
    )

  def is_trained(self):
    return workdir.agreed(checkpoint.is_saved(self._params_folder))

  def member(self):
    trainable, self._trainable = self._trainable, None  # it will be donated
    return train.Member(
      trainable=trainable,
      frozen=self.frozen,
      folder=self.stage.folder,
      logger=logger(self._runtime, self.stage),
      **self._prepared,
    )

  def keep(self, trained):
    if self.lesson.judge:
      trained = _best(
        self._runtime,
        self.stage,
        trained,
        self.frozen,
        self.lesson.judge,
        self._evaluation,
      )
    if not self.lesson.lora:
      trained = adapt.merge(trained, self.frozen)
    checkpoint.save_params(self._params_folder, trained)
    self._kept = trained

  def finish(self):
    """Predicts, cleans up, and returns what there is to say of the stage."""
    runtime, stage = self._runtime, self.stage
    trained, self._kept = self._kept, None
    if trained is None:  # by an earlier run
      trained = checkpoint.load_params(self._params_folder, mesh=runtime.mesh)
    params = adapt.merge(trained, self.frozen)
    scores = _evaluate(runtime, stage, params, self._evaluation, self._buckets)
    summary = {
      'steps': len(self._prepared['plan']),
      'rows': len(self._rows),
      'rows_cut': self._cut,
      'padding_ratio': batching.padding_ratio(
        self._rows, self._prepared['plan']
      ),
      **scores,
    }
    if jax.process_index() == 0:  # which also writes the summary
      self.lesson.model.tokenizer.save(stage.folder)
      for temporary in ('checkpoints', 'snapshots'):
        (stage.folder / temporary).rmtree(missing_ok=True)
      summary['params_sha256'] = checkpoint.digest(self._params_folder)
    return summary


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
  with logger(runtime, stage).progress(
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


def logger(runtime, stage):
  return logger_lib.Logger(
    stage.folder,
    console=runtime.console,
    is_primary=jax.process_index() == 0,
    tensorboard=runtime.tensorboard,
  )
