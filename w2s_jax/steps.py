"""The steps of a study: descriptions of single stages, which compute nothing.

`study` is a study.Study, `key` one of config.models.
"""

import dataclasses
import math

from w2s_jax import fine_tune
from w2s_jax import graph
from w2s_jax import losses
from w2s_jax import results
from w2s_jax import stages


def train(
  study,
  role,
  key,
  rows,
  labels,
  *,
  taught_by=(),
  generative=False,
  loss='xent',
  judge=None,
  curve=None,
):
  """The stage of a model that is trained on labels, by its `adapt.method`.

  Args:
    role: 'weak', 'student-LOSS' or 'ceiling', for the name of the stage.
    key: of config.models.
    rows: Examples; what they hold of the truth does not reach the stage.
    labels: a graph.Call to weak_labels.Labels of these rows.
    taught_by: keys of the chain of teachers, for the name.
    generative: whether generative fine-tuning comes first.
    loss: name in losses.LOSSES.
    judge: None, or labels of the validation rows, for early stopping.
    curve: None, or how its learning curve is measured.
  """
  spec, model = study.config.models[key], study.models[key]
  start = (generative_model(study, key),) if generative else ()
  by = f'-by-{"-".join(taught_by)}' if taught_by else ''
  common = dict(
    model=model,
    seed=study.seed,
    rows=rows.without_labels(),
    labels=labels,
    evaluation=study.evaluation_of(model),
  )

  def stage(make, method, **fields):
    name = results.adapted_name(model.name, method)
    return graph.Stage(
      f'{role}-{name}{by}-seed{study.seed}', make, {**common, **fields}
    )

  def fine_tuned(method, fields, *, start=start, features=None, lora=None):
    described = stage(
      fine_tune.fine_tune,
      method,
      start=start,
      features=features,
      train=fields.to_dict(),
      lora=lora,
      loss=losses.LOSSES[loss],
      loss_args=dict(study.config.loss_args.get(loss, {})),
      judge=judge,
      curve=curve,
    )
    together = fine_tune.fine_tune_together
    return dataclasses.replace(described, make_together=together)

  match spec.adapt.method:
    case 'full':
      return fine_tuned('full', spec.train)
    case 'lora':
      return fine_tuned('lora', spec.train, lora=spec.adapt.lora.to_dict())
    case 'probe':
      features = frozen_features(study, model, start)
      return fine_tuned('probe', spec.adapt.probe, features=features)
    case 'lp_ft':  # Kumar et al. 2022, arXiv 2202.10054
      features = frozen_features(study, model, start)
      probe = fine_tuned('probe', spec.adapt.probe, features=features)
      return fine_tuned('lp_ft', spec.train, start=(*start, probe))
    case 'prompt':
      return stage(stages.prompt, 'prompt', start=start, shots=spec.adapt.shots)


def num_training_steps(stage):
  """Steps of a training stage, 0 of others; None where it is not known yet.

  Labels of fewer rows, such as filtered ones, make it less.
  """
  fields = stage.fields
  if 'train' not in fields:
    return 0
  if stage.make is fine_tune.generative:  # texts are packed into rows
    return None
  train = fields['train']
  return train['epochs'] * math.ceil(len(fields['rows']) / train['batch_size'])


def predict(study, supervisor, rows):
  """The stage of a supervisor's predictions on rows."""
  used = {
    name: supervisor.fields.get(name)
    for name in ('model', 'seed', 'start', 'features')
  }
  return graph.Stage(
    f'labels-of-{supervisor.name}',
    stages.predict,
    {
      'supervisor': supervisor,
      **used,
      'rows': rows.without_labels(),
      'evaluation': supervisor.fields['evaluation'],
    },
  )


def zero_shot(study, key):
  """The stage of a model that nothing was trained of."""
  model = study.models[key]
  return graph.Stage(
    f'zero_shot-{model.name}',
    stages.zero_shot,
    {'model': model, 'seed': 0, 'evaluation': study.evaluation_of(model)},
  )


def generative_model(study, key):
  """The stage of generative fine-tuning (section 5.2.2) on the transfer set."""
  model = study.models[key]
  return graph.Stage(
    f'generative-{model.name}-seed{study.seed}',
    fine_tune.generative,
    {
      'model': model,
      'seed': study.seed,
      'rows': study.slices.transfer[0].without_labels(),
      'train': study.config.generative_train.to_dict(),
      'evaluation': study.evaluation_of(model),
    },
  )


def frozen_features(study, model, start):
  """The stage of the frozen features of all rows that probes read."""
  return graph.Stage(
    f'features-{model.name}',
    stages.features,
    {
      'model': model,
      'seed': 0 if model.is_pretrained else study.seed,
      'start': start,
      'rows': study.probed.get(model.name),
      'evaluation': study.evaluation_of(model),
    },
  )
