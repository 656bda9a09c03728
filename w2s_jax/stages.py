"""Inference stages: weak labels, zero-shot, features and few-shot prompts.

Each is (job, **fields) -> summary for graph.Stage, and leaves its files in
job.folder. Fields of a model in use:

  model: models.model.Model before this study trained it
  seed: of its random parameters, if any
  start: finished stages whose parameters replace initial ones, in turn
  features: None, or the finished `features` stage that a probe reads
"""

import contextlib
import itertools

import jax
import numpy as np

from w2s_jax import adapt
from w2s_jax import checkpoint
from w2s_jax import evaluate
from w2s_jax import sharding
from w2s_jax import weak_labels
from w2s_jax.models import heads
from w2s_jax.models import text_heads
from w2s_jax.runtime import files
from w2s_jax.tasks import examples as examples_lib


def initial_params(job, model, *, start, seed):
  """Parameters of a model before a stage trains it, on the mesh."""
  params = model.init(job.mesh, seed)
  for stage in start:
    trained = checkpoint.load_params(stage.folder / 'params', mesh=job.mesh)
    params = adapt.merge(trained, params)
  return params


def on_features(model, features, parts):
  """The model as it is, or as a probe of stored features of some Examples."""
  if features is None:
    return model
  arrays = features.arrays('features.npz')
  row_of = {id_: i for i, id_ in enumerate(arrays['ids'].tolist())}
  examples = examples_lib.union(parts)
  rows_N = [row_of[id_] for id_ in examples.ids.tolist()]
  return model._replace(
    network=text_heads.Probe(model.network.config, model.network.num_classes),
    tokenizer=text_heads.FeatureTable(
      model.tokenizer, examples.inputs, arrays['features'][rows_N]
    ),
    init=_zero_head(model.network),
  )


def _zero_head(network):
  """init(mesh, seed) of a probe's parameters."""
  shape = heads.parameter_shapes(network)['head']['kernel'].shape

  def init(mesh, seed):
    del seed
    zeros = np.zeros(shape, np.float32)
    kernel = sharding.place_parameter(mesh, 'head/kernel', zeros)
    return {'head': {'kernel': kernel}}

  return init


def predict(job, *, supervisor, model, seed, start, features, rows, evaluation):
  """Predicts the labels of rows that the supervisor never saw: weak labels."""
  model = on_features(model, features, [rows, *evaluation.splits.values()])
  if supervisor.config()['kind'] != 'prompt':
    folder = supervisor.folder / 'params'  # trained again if it was removed
    params = checkpoint.load_params(folder, mesh=job.mesh)
    if features is None and adapt.needs_base(
      params, heads.parameter_shapes(model.network)
    ):
      base = initial_params(job, model, start=start, seed=seed)
      params = adapt.merge(params, base)
  else:  # few-shot prompting trains nothing; its examples are in the prompt
    tokenizer = checkpoint.load_tokenizer(supervisor.folder)
    model = model._replace(tokenizer=tokenizer)
    params = initial_params(job, model, start=start, seed=seed)
  tokens, _ = evaluate.tokenize(model, rows, evaluation.max_length)
  probs_NxC, texts_N = evaluate.predictions(
    job,
    model,
    params,
    tokens,
    rows.inputs,
    buckets=evaluation.buckets(model),
    label='weak_labels',
  )
  job.save_arrays(
    'weak_labels.npz', ids=rows.ids, probs=probs_NxC, texts=texts_N
  )
  return {'rows': len(rows)}


def zero_shot(job, *, model, seed, evaluation):
  """Scores a model before any fine-tuning."""
  trained_head = text_heads.Classifier, text_heads.RewardModel
  if isinstance(model.network, trained_head) and not model.identity['head_ids']:
    # Whatever the trunk computes, the head makes zeros of it.
    return evaluate.evaluate_uniform(job, model, evaluation)
  params = model.init(job.mesh, seed)
  return evaluate.evaluate(job, model, params, evaluation)


def features(job, *, model, seed, start, rows, evaluation):
  """Pools the hidden states of a frozen model for each row: [N, D].

  Computed once for the probes of all labels, losses and seeds. Of rows that
  another study in the workdir has, too, they are taken from there.
  """
  features = _stored_features(job)
  new = rows.take([id_ not in features for id_ in rows.ids.tolist()])
  if len(new):
    params = initial_params(job, model, start=start, seed=seed)
    new_NxD = evaluate.outputs(
      job,
      text_heads.Features(model.network.config),
      {'transformer': params['transformer']},
      evaluate.tokenize(model, new, evaluation.max_length)[0],
      buckets=evaluation.buckets(model),
      label='features',
    )
    features.update(zip(new.ids.tolist(), new_NxD, strict=True))
  features_NxD = np.stack([features[id_] for id_ in rows.ids.tolist()])
  job.save_arrays('features.npz', ids=rows.ids, features=features_NxD)
  return {'rows': len(rows), 'rows_computed': len(new)}


def _stored_features(job):
  """{id: features [D]} of finished stages that differ in their rows alone.

  Nor does it matter to which lengths texts were padded, but for rounding.
  """

  def relevant(config):
    max_length = config['evaluation']['max_length']
    return config | {'rows': None, 'evaluation': max_length}

  found = {}
  for other in job.namesakes():
    with contextlib.suppress(files.DamagedError):  # computed anew
      if relevant(other.config()) == relevant(job.config):
        arrays = other.arrays('features.npz')
        ids = arrays['ids'].tolist()
        found.update(zip(ids, arrays['features'], strict=True))
  return found


def prompt(job, *, model, seed, start, shots, rows, labels, evaluation):
  """Scores a model with labelled examples in its context (section 5.2.1).

  Nothing is trained. Of each class the prompt has as many `rows` as of the
  others, as far as `shots` of them allow.
  """
  rows = weak_labels.labelled(rows, labels)
  labels = weak_labels.join(rows.ids, labels)
  class_N = np.argmax(labels.probs_NxC, axis=1)
  # Shuffled from the order of ids, so that of the rows does not matter.
  order_N = np.random.default_rng(seed).permutation(np.argsort(rows.ids))
  by_class = [order_N[class_N[order_N] == c] for c in np.unique(class_N)]
  turns = itertools.zip_longest(*by_class, fillvalue=-1)
  chosen = [i for i in itertools.chain(*turns) if i >= 0][:shots]
  label_ids = model.network.label_ids
  model = model._replace(
    tokenizer=model.tokenizer.with_examples(
      [(rows.inputs[i], label_ids[class_N[i]]) for i in chosen]
    )
  )
  params = initial_params(job, model, start=start, seed=seed)
  _, truncated = evaluate.tokenize(
    model, rows.take(chosen), evaluation.max_length
  )
  scores = evaluate.evaluate(job, model, params, evaluation)
  if jax.process_index() == 0:
    model.tokenizer.save(job.folder)
  return {'rows': len(chosen), 'rows_truncated': truncated, **scores}
