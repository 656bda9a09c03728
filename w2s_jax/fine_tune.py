"""Training stages: fine-tuning on labels, with early stopping; generative.

As in stages.py, each is (job, **fields) -> summary for graph.Stage.
"""

from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import early_stopping
from w2s_jax import evaluate
from w2s_jax import population
from w2s_jax import predict
from w2s_jax import stages
from w2s_jax import train as train_lib
from w2s_jax import weak_labels
from w2s_jax.models import language_model
from w2s_jax.models import stacking


class _Prepared(NamedTuple):
  """A model and its rows, ready for training."""

  model: Any
  trainable: Any
  frozen: Any
  rows: batching.Rows
  truncated: int
  run: dict  # rows, plan, recipe, seed, for train.fit
  judge: Any
  curve: Any
  lora: Any
  evaluation: Any


def fine_tune(job, **fields):
  """Trains a model on labels and scores it on validation and test rows.

  Fields beside those of stages.py:
    rows: Examples without labels of their own: the truth cannot leak.
    labels: weak_labels.Labels of some of the rows; those without are left out.
    train: the `train` fields of a config. lora: None, or its fields.
    loss: a function of losses.py. loss_args: its further arguments.
    judge: None, or labels of the validation rows: of some checkpoints the one
      that agrees best with them is kept, see early_stopping.py.
    curve: None, or how a learning curve is measured, which changes no outcome:
      'every' so many steps, on test rows, against the truth and, if there is
      one, a 'supervisor', as its labels of these rows.
  """
  prepared = _prepare(job, **fields)
  trained = _saved(job, prepared)
  if trained is None:
    watch = _watch(job, prepared)
    trained = train_lib.fit(
      model=prepared.model.network,
      trainable=prepared.trainable,
      frozen=prepared.frozen,
      **prepared.run,
      **_settings(job, watch),
    )
    trained = _save(job, prepared, watch, trained)
  return _finish(job, prepared, trained)


def fine_tune_together(jobs, fields):
  """`fine_tune` of models that differ in their seed alone, side by side."""
  prepared = [_prepare(job, **each) for job, each in zip(jobs, fields)]
  frozen = _shared([x.frozen for x in prepared], fields)
  prepared = [x._replace(frozen=y) for x, y in zip(prepared, frozen)]
  trained = [_saved(*each) for each in zip(jobs, prepared)]
  missing = [i for i, params in enumerate(trained) if params is None]
  watches = [_watch(jobs[i], prepared[i]) for i in missing]
  members = [
    dict(
      trainable=prepared[i].trainable,
      frozen=prepared[i].frozen,
      **prepared[i].run,
      **_settings(jobs[i], watch),
    )
    for i, watch in zip(missing, watches)
  ]
  if members:
    outcome = population.fit(prepared[0].model.network, members)
    for i, watch, params in zip(missing, watches, outcome, strict=True):
      trained[i] = _save(jobs[i], prepared[i], watch, params)
  return [_finish(*each) for each in zip(jobs, prepared, trained)]


def _shared(frozen, fields):
  """Frozen parameters that are the same for all are held once."""
  if fields[0]['model'].is_pretrained:
    return [frozen[0]] * len(frozen)
  return frozen  # each seed has its own


def _settings(job, watch=None):
  """Arguments of train.fit that change no parameter."""
  return dict(
    mesh=job.mesh,
    folder=job.folder,
    logger=job.logger(),
    checkpoint_every=job.runtime.checkpoint_every,
    name=job.name,
    watch=watch,
    before_save=job.check_lock,
    profile=job.runtime.profile.get(job.folder.name),
  )


def _prepare(
  job,
  *,
  model,
  seed,
  start,
  features,
  rows,
  labels,
  train,
  lora,
  loss,
  loss_args,
  judge,
  curve,
  evaluation,
):
  rows = weak_labels.labelled(rows, labels)
  model = stages.on_features(
    model, features, [rows, *evaluation.splits.values()]
  )
  tokens, truncated = evaluate.tokenize(
    model, rows, evaluation.max_length, labels
  )
  run = train_lib.prepare(
    tokens,
    train,
    buckets=evaluation.buckets(model),
    loss=loss,
    loss_args=tuple(sorted(loss_args.items())),
    seed=seed,
  )
  trainable, frozen = adapt.split(
    stages.initial_params(job, model, start=start, seed=seed),
    freeze=train['freeze'],
    lora=lora,
    seed=seed,
  )
  trainable, frozen = stacking.stack_parts(
    (trainable, frozen), model.network.config
  )
  return _Prepared(
    model=model,
    trainable=trainable,
    frozen=frozen,
    rows=tokens,
    truncated=truncated,
    run=run,
    judge=judge,
    curve=curve,
    lora=lora,
    evaluation=evaluation,
  )


def _watch(job, prepared):
  """Returns what measures a model while it trains, or None."""
  if prepared.judge is None and prepared.curve is None:
    return None
  return early_stopping.Watch(
    job,
    prepared.model,
    prepared.frozen,
    prepared.evaluation,
    judge=prepared.judge,
    curve=prepared.curve,
    steps=len(prepared.run['plan']),
  )


def _saved(job, prepared):
  """Returns the parameters that `_save` left, or None."""
  trained = checkpoint.load_if_saved(job.folder / 'params', mesh=job.mesh)
  parts = prepared.trainable, prepared.frozen
  if trained is None or not any(map(stacking.is_stacked, parts)):
    return trained
  return stacking.stack(trained, prepared.model.network.config)


def _save(job, prepared, watch, trained):
  """Writes the trained parameters; returns them.

  Frozen ones are read again from the pretrained weights, see checkpoint.py.
  """
  param_dtype = prepared.model.network.config.param_dtype
  trained = adapt.stored(trained, param_dtype)
  if watch is not None:
    trained = watch.finish(trained)
  kept = trained
  if prepared.lora is None and not prepared.model.is_pretrained:
    # Drawn again on another device, they might differ in their last bit.
    kept = adapt.merge(trained, prepared.frozen)
  job.check_lock()
  checkpoint.save_params(
    job.folder / 'params', stacking.unstack(kept), name=job.name
  )
  return trained


def _finish(job, prepared, trained):
  """Scores the model, removes temporary files and returns the summary."""
  params = adapt.merge(trained, prepared.frozen)
  scores = evaluate.evaluate(job, prepared.model, params, prepared.evaluation)
  plan = prepared.run['plan']
  if jax.process_index() == 0:
    prepared.model.tokenizer.save(job.folder)
    remove_temporary(job)
  return {
    'steps': len(plan),
    'rows': len(prepared.rows),
    'rows_truncated': prepared.truncated,
    'padding_ratio': batching.padding_ratio(prepared.rows, plan),
    **scores,
  }


def remove_temporary(job):
  for name in ('checkpoints', 'snapshots', 'shards'):
    (job.folder / name).rmtree(missing_ok=True)


def generative(job, *, model, seed, rows, train, evaluation):
  """Trains the trunk as a language model on texts, their labels unseen.

  Unsupervised generative fine-tuning (paper section 5.2.2) on packed texts.
  Leaves the parameters of the trunk alone; a head starts as it would have.
  """
  network = language_model.LanguageModel(model.network.config)
  max_length = evaluation.max_length
  packed, held_out = (
    language_model.pack(
      model.tokenizer, model.network.texts(x.inputs), max_length=max_length
    )
    for x in (rows, evaluation.validation)
  )
  buckets = (max_length,)
  run = train_lib.prepare(packed, train, buckets=buckets, seed=seed)

  def nats_per_token(params):
    sums_Nx2 = predict.predict(
      network,
      params,
      held_out,
      batch_size=train['batch_size'],
      buckets=buckets,
      mesh=job.mesh,
    )
    return float(np.divide(*sums_Nx2.astype(np.float64).sum(0)))

  initial = model.init(job.mesh, seed)
  params = {'transformer': initial['transformer']}
  trainable, frozen = adapt.split(params)
  trainable = stacking.stack(trainable, network.config)
  before = nats_per_token(params)
  params_folder = job.folder / 'params'
  trained = checkpoint.load_if_saved(params_folder, mesh=job.mesh)
  if trained is None:
    trained = train_lib.fit(
      model=network,
      trainable=trainable,
      frozen=frozen,
      **run,
      **_settings(job),
    )
    trained = adapt.stored(trained, network.config.param_dtype)
    trained = stacking.unstack(trained)
    job.check_lock()
    checkpoint.save_params(params_folder, trained, name=job.name)
  summary = {
    'steps': len(run['plan']),
    'tokens': int(packed.lengths.sum()),
    'validation_nats_before': before,
    'validation_nats': nats_per_token(trained),
  }
  if jax.process_index() == 0:
    model.tokenizer.save(job.folder)
    remove_temporary(job)
  return summary
