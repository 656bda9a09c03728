"""Stages: the steps of a study, each done once and kept in its own folder.

A stage is a pure function of its spec. The folder

  WORKDIR/stages/<name>-<key>/{config.json, metrics.jsonl, checkpoints/,
                               params/, tokenizer.json, predictions/, DONE}

carries a hash of the spec, which names the stages it reads by their keys.
DONE is written last: running again skips what is finished, resumes what is
not, and never mixes what belongs to different specs.
"""

import dataclasses
import hashlib
import itertools
import json
import time
from typing import Any, NamedTuple

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import heads
from w2s_jax import logger as logger_lib
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax import train
from w2s_jax import weak_labels
from w2s_jax.tasks import splits

# Part of every key; raised when the same spec comes to mean something else.
FORMAT = 2

# A student is looked at so often for early stopping.
_MOMENTS = 10


class Stage(NamedTuple):
  name: str
  key: str
  folder: epath.Path

  def predictions(self, split):
    """Arrays ids [N], probs [N, C], label_probs [N, C] (ground truth).

    And texts [N] of a model that writes its answers.
    """
    return weak_labels.load_arrays(self.folder / 'predictions' / f'{split}.npz')

  def summary(self):
    """What the stage said of itself when done: seconds, steps, padding."""
    path = self.folder / 'DONE'
    try:
      return json.loads(path.read_text())
    except ValueError as e:
      raise ValueError(
        f'{path} is damaged ({e}); delete it and run again.'
      ) from e


@dataclasses.dataclass(frozen=True)
class Runtime:
  """Where stages run. Nothing in here changes a result."""

  workdir: epath.Path
  mesh: jax.sharding.Mesh
  console: Any
  eval_batch_size: int
  checkpoint_every: int
  tensorboard: bool
  num_stages: int
  counter: Any = dataclasses.field(default_factory=lambda: itertools.count(1))


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
    params_folder = stage.folder / 'params'
    if not _agreed(params_folder.exists()):
      params = _fit(
        runtime,
        stage,
        model.network,
        model.init(runtime.mesh, seed),
        prepared,
        snapshots=_MOMENTS - 1 if judge else 0,
      )
      if judge:
        params = _best(runtime, stage, model, params, judge, evaluation)
      checkpoint.save_params(params_folder, params)
    params = checkpoint.load_params(params_folder, mesh=runtime.mesh)
    scores = _evaluate(runtime, stage, model, params, evaluation, buckets)
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

  return _once(runtime, f'{name}-seed{seed}', spec, build)


def _fit(runtime, stage, network, params, prepared, *, snapshots=0):
  return train.fit(
    model=network,
    params=params,
    mesh=runtime.mesh,
    folder=stage.folder,
    checkpoint_every=runtime.checkpoint_every,
    logger=_logger(runtime, stage),
    name=stage.name,
    snapshots=snapshots,
    **prepared,
  )


def _best(runtime, stage, model, params, judge, evaluation):
  """Of all snapshots and the end, what agrees best with the judge.

  Leaves the whole curve in the stage's folder.
  """
  buckets = evaluation.buckets(model)
  snapshots = sorted(
    (stage.folder / 'snapshots').glob('[0-9]*'), key=lambda p: int(p.name)
  )
  moments = {path.name: path for path in snapshots} | {'end': None}
  curve = {}
  for moment, folder in moments.items():
    if folder:
      params_then = checkpoint.load_params(folder, mesh=runtime.mesh)
    else:
      params_then = params
    examples = evaluation.splits['validation']
    probs_NxC, _ = _predict(
      runtime, stage, model, params_then, examples, evaluation, buckets
    )
    judged = weak_labels.join(examples.ids, judge)
    curve[moment] = metrics.accuracy(probs_NxC, judged.probs_NxC)
  if jax.process_index() == 0:
    (stage.folder / 'early_stopping.json').write_text(json.dumps(curve))
  best = max(curve, key=curve.get)
  if best == 'end':
    return params
  return checkpoint.load_params(moments[best], mesh=runtime.mesh)


def generative_stage(
  runtime,
  *,
  name,
  model,
  fine_tuning,
  inputs,
  evaluation,
  seed,
):
  """The model after it has learned to write such inputs, labels unseen.

  Unsupervised generative fine-tuning (paper section 5.2.2): language-model loss
  on packed texts. The trunk goes on from there; a head starts as it would have.
  """
  spec = {
    'kind': 'generative',
    'model': {**model.identity, 'head': 'LanguageModel', 'num_classes': 0},
    'fine_tuning': fine_tuning,
    'seed': seed,
    'rows': splits.fingerprint(inputs),
    'evaluation': evaluation.spec(),
  }
  max_length = evaluation.max_length

  def build(stage):
    started = time.monotonic()
    network = heads.LanguageModel(model.network.config)
    packed, held_out = (
      heads.pack(
        model.tokenizer, model.network.texts(x.inputs), max_length=max_length
      )
      for x in (inputs, evaluation.splits['validation'])
    )
    buckets = (max_length,)
    prepared = train.prepare(packed, fine_tuning, buckets=buckets, seed=seed)

    def nats(params):
      sums_Nx2 = predict.predict(
        network,
        params,
        held_out,
        batch_size=fine_tuning['batch_size'],
        buckets=buckets,
        mesh=runtime.mesh,
      )
      return float(np.divide(*sums_Nx2.astype(np.float64).sum(0)))

    params_folder = stage.folder / 'params'
    trunk = model.init(runtime.mesh, seed)['transformer']
    params = {'transformer': trunk}
    before = nats(params)
    if not _agreed(params_folder.exists()):
      params = _fit(runtime, stage, network, params, prepared)
      checkpoint.save_params(params_folder, params)
    params = checkpoint.load_params(params_folder, mesh=runtime.mesh)
    if jax.process_index() == 0:
      model.tokenizer.save(stage.folder)
      (stage.folder / 'checkpoints').rmtree(missing_ok=True)
    return {
      'seconds': round(time.monotonic() - started, 1),
      'steps': len(prepared['plan']),
      'tokens': int(packed.lengths.sum()),
      'validation_nats_before': before,  # a token
      'validation_nats': nats(params),
      'params_sha256': checkpoint.digest(params_folder),
    }

  stage = _once(runtime, f'{name}-seed{seed}', spec, build)

  def init(mesh, seed):
    trunk = checkpoint.load_params(stage.folder / 'params', mesh=mesh)
    return {**model.init(mesh, seed), **trunk}

  identity = {**model.identity, 'generative': stage.key}
  return model._replace(init=init, identity=identity)


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
    return _evaluate(runtime, stage, model, params, evaluation, buckets)

  return _once(runtime, f'zero_shot-{model.name}', spec, build)


def label_stage(runtime, *, name, model, supervisor, inputs, evaluation, seed):
  """Weak labels: what the trained `supervisor` says of `inputs`."""
  provenance = {
    'supervisor': supervisor.key,
    'rows': splits.fingerprint(inputs),
  }
  spec = {'kind': 'label', 'evaluation': evaluation.spec(), **provenance}

  def build(stage):
    params = checkpoint.load_params(
      supervisor.folder / 'params', mesh=runtime.mesh
    )
    buckets = evaluation.buckets(model)
    probs_NxC, texts_N = _predict(
      runtime, stage, model, params, inputs, evaluation, buckets
    )
    if jax.process_index() == 0:
      labels = weak_labels.Labels(inputs.ids, probs_NxC, provenance, texts_N)
      weak_labels.save(stage.folder / 'weak_labels.npz', labels)
    return {'rows': len(inputs)}

  stage = _once(runtime, f'{name}-seed{seed}', spec, build)
  return weak_labels.load(
    stage.folder / 'weak_labels.npz', provenance=provenance
  )


def _evaluate(runtime, stage, model, params, evaluation, buckets):
  """Writes predictions/<split>.npz; returns the scores on each split."""
  scores = {}
  for split, examples in evaluation.splits.items():
    probs_NxC, texts_N = _predict(
      runtime, stage, model, params, examples, evaluation, buckets
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


def _predict(runtime, stage, model, params, examples, evaluation, buckets):
  """Class probabilities [N, C] of the examples, and texts [N] or None."""
  rows, _ = tokenize(model, examples, evaluation.max_length)
  with _logger(runtime, stage).progress(
    stage=f'{stage.name} predicts', total_steps=len(rows)
  ) as progress:
    answers = predict.predict(
      model.network,
      params,
      rows,
      batch_size=runtime.eval_batch_size,
      buckets=buckets,
      mesh=runtime.mesh,
      progress=progress,
    )
  return model.network.read(model.tokenizer, examples.inputs, answers)


def _logger(runtime, stage):
  return logger_lib.Logger(
    stage.folder,
    console=runtime.console,
    is_primary=jax.process_index() == 0,
    tensorboard=runtime.tensorboard,
  )


def _once(runtime, name, spec, build):
  """Runs build(stage) unless the stage of this spec is done already."""
  spec = {'format': FORMAT, **spec}
  key = hashlib.sha256(
    json.dumps(spec, sort_keys=True, default=list).encode()
  ).hexdigest()[:12]
  folder = runtime.workdir / 'stages' / f'{name}-{key}'
  stage = Stage(name, key, folder)
  done = folder / 'DONE'
  position = next(runtime.counter)

  def say(status, detail=''):
    logger_lib.stage(
      name,
      status,
      detail,
      console=runtime.console,
      position=position,
      total=runtime.num_stages,
    )

  if _agreed(done.exists()):
    stage.summary()  # raises for a damaged DONE
    say('cached')
    return stage
  say('resume' if folder.exists() else 'start')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(
      json.dumps(spec, indent=2, default=list)
    )
  _barrier(f'{name}-start')
  started = time.monotonic()
  summary = build(stage)
  _barrier(f'{name}-built')
  if jax.process_index() == 0:
    partial = folder / 'DONE.partial'
    partial.write_text(json.dumps(summary))
    partial.replace(done)
  _barrier(f'{name}-done')
  detail = ''
  if 'validation_accuracy' in summary:
    detail = f'  validation {summary["validation_accuracy"]:.1%}'
  if 'validation_nats' in summary:
    detail = (
      f'  {summary["validation_nats_before"]:.2f} -> '
      f'{summary["validation_nats"]:.2f} nats a token'
    )
  say('done', f'{time.monotonic() - started:.1f} s{detail}')
  return stage


def _agreed(value):
  """The first process's answer, on all of them."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _barrier(name):
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
