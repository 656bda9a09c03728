"""Stages whose outcome is a model for other stages to start from."""

import time

import jax
import numpy as np

from w2s_jax import checkpoint
from w2s_jax import predict
from w2s_jax import sharding
from w2s_jax import stages
from w2s_jax import train
from w2s_jax import weak_labels
from w2s_jax.models import heads
from w2s_jax.models import language_model
from w2s_jax.models import text_heads
from w2s_jax.runtime import workdir
from w2s_jax.tasks import splits


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
    network = language_model.LanguageModel(model.network.config)
    packed, held_out = (
      language_model.pack(
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
    if workdir.agreed(checkpoint.is_saved(params_folder)):
      params = checkpoint.load_params(params_folder, mesh=runtime.mesh)
    else:
      member = train.Member(
        trainable=params,
        frozen={},
        folder=stage.folder,
        logger=stages.logger(runtime, stage),
        **prepared,
      )
      (params,) = train.fit(
        model=network,
        members=[member],
        mesh=runtime.mesh,
        checkpoint_every=runtime.checkpoint_every,
        name=stage.name,
      )
      checkpoint.save_params(params_folder, params)
    summary = {
      'seconds': round(time.monotonic() - started, 1),
      'steps': len(prepared['plan']),
      'tokens': int(packed.lengths.sum()),
      'validation_nats_before': before,  # a token
      'validation_nats': nats(params),
    }
    if jax.process_index() == 0:  # which also writes the summary
      model.tokenizer.save(stage.folder)
      (stage.folder / 'checkpoints').rmtree(missing_ok=True)
      summary['params_sha256'] = checkpoint.digest(params_folder)
    return summary

  stage = workdir.once(runtime, f'{name}-seed{seed}', model, spec, build)
  return _starting_from(model, generative=stage)


def from_probe(model, probe):
  """Linear probing and then fine-tuning (Kumar et al. 2022, arXiv 2202.10054).

  `probe` is the stage of a probe of the same model.
  """
  return _starting_from(model, probe=probe)


def _starting_from(model, **stage):
  """A model whose initial parameters are in part those of the stage given."""
  ((kind, stage),) = stage.items()

  def init(mesh, seed):
    trained = checkpoint.load_params(stage.folder / 'params', mesh=mesh)
    return {**model.init(mesh, seed), **trained}

  return model.starting_from(init, **{kind: stage.key})


def features_stage(runtime, *, model, inputs, evaluation, seed):
  """The model as a probe of its frozen features.

  Those of all `inputs` are computed here, once for all label sources, losses
  and seeds.
  """
  if not model.weights.startswith('random:'):
    seed = 0  # what is pretrained is the same for all
  spec = {
    'kind': 'features',
    'model': model.identity,
    'seed': seed,
    'rows': splits.fingerprint(inputs),
    'evaluation': evaluation.spec(),
  }

  def build(stage):
    network = text_heads.Features(model.network.config)
    features = stages.answers(
      runtime,
      stage,
      network,
      {'transformer': model.init(runtime.mesh, seed)['transformer']},
      stages.tokenize(model, inputs, evaluation.max_length)[0],
      evaluation.buckets(model),
    )
    if jax.process_index() == 0:
      weak_labels.save_arrays(
        stage.folder / 'features.npz', ids=inputs.ids, features=features
      )
    return {'rows': len(inputs)}

  stage = workdir.once(runtime, f'features-{model.name}', model, spec, build)
  arrays = weak_labels.load_arrays(stage.folder / 'features.npz')
  place = {id_: i for i, id_ in enumerate(arrays['ids'].tolist())}
  in_order = arrays['features'][[place[x] for x in inputs.ids.tolist()]]
  shapes = heads.parameter_shapes(model.network)

  def init(mesh, seed):
    del seed
    zeros = np.zeros(shapes['head']['kernel'].shape, np.float32)
    kernel = sharding.place_parameter(mesh, 'head/kernel', zeros)
    return {'head': {'kernel': kernel}}

  return model.starting_from(init, features=stage.key)._replace(
    network=text_heads.Probe(model.network.config, model.network.num_classes),
    tokenizer=text_heads.FeatureTable(model.tokenizer, inputs.inputs, in_order),
  )
