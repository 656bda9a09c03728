"""What is wrong with a config is said before anything is trained.

All of these raise ValueError (or FileNotFoundError, for weights), naming the
field, what was found and what to do.
"""

import functools
import itertools

from flax import traverse_util
import jax

from w2s_jax import adapt
from w2s_jax import errors
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax import weak_labels
from w2s_jax.models import heads
from w2s_jax.models import language_model
from w2s_jax.models import model as model_lib
from w2s_jax.models import text_heads
from w2s_jax.tasks import registry

# How a model may be adapted, and with a linear probe in it.
METHODS = ('full', 'lora', 'probe', 'lp_ft', 'prompt')
PROBING = ('probe', 'lp_ft')


def parse_chains(students, ladder):
  """(('a', 'b', 'c'), ...) of ('a>b>c', ...): a teaches b, and b teaches c.

  Raises:
    ValueError: a chain is too short, repeats, or names no model.
  """
  chains = [tuple(key.strip() for key in s.split('>')) for s in students]
  for text, chain in zip(students, chains):
    if len(chain) < 2 or chains.count(chain) > 1:
      raise errors.UserError(
        f'students: {text!r} must name each chain of two or more models once, '
        "as 'weak>strong'."
      )
    for key in chain:
      if key not in ladder:
        raise errors.UserError(
          f'students: {text!r} names {key!r}; models has {", ".join(ladder)}.'
        )
  if not chains:
    raise errors.UserError("students is empty; name a chain, as 'weak>strong'.")
  return chains


def check_points(configs):
  """No point of a sweep replaces the rows of results of another."""
  owners = {}
  for number, config in enumerate(configs):
    chains = parse_chains(config.students, config.models)
    for choice in itertools.product(chains, config.losses, config.generative):
      chain, loss, _ = choice
      student = tuple(results.student(config, *choice).values())
      fields = {
        'models': {key: config.models[key].to_dict() for key in chain},
        'data': config.data.to_dict(),
        'loss_args': {loss: dict(config.loss_args.get(loss, {}))},
        'generative_train': config.generative_train.to_dict(),
      }
      fields = traverse_util.flatten_dict(fields, sep='.')
      other, known = owners.setdefault(student, (number, fields))
      differing = [
        f for f in sorted({*fields, *known}) if fields.get(f) != known.get(f)
      ]
      if differing:
        raise errors.UserError(
          f'points {other} and {number} of the sweep differ in '
          f'{", ".join(differing[:3])}, which no column of results shows: one '
          "would replace the other. Give each a `variant`, such as 'lr 1e-4'."
        )


def check_numbers(config):
  """Counts are positive, seeds are whole numbers, names are known."""
  counts = {
    'checkpoint_every': config.checkpoint_every,
    'eval_batch_size': config.eval_batch_size,
    'population': config.population,
    'data.num_buckets': config.data.num_buckets,
  }
  recipes = {'generative_train': config.generative_train}
  for key, spec in config.models.items():
    recipes[f'models.{key}.train'] = spec.train
    recipes[f'models.{key}.adapt.probe'] = spec.adapt.probe
  for key, recipe in recipes.items():
    for name in ('epochs', 'batch_size', 'accumulate'):
      counts[f'{key}.{name}'] = recipe[name]
  for name, value in counts.items():
    if value < 1:
      raise errors.UserError(f'{name}={value} must be at least 1.')
  for seed in config.seeds:
    if not isinstance(seed, int) or seed < 0:
      raise errors.UserError(
        f'seeds: {seed!r} must be a whole number, 0 or more.'
      )
  if len(set(config.seeds)) < len(config.seeds):
    raise errors.UserError(
      f'seeds={tuple(config.seeds)}: each must stand there once; on the '
      'command line a second --config.seeds adds to the first.'
    )
  choices = {
    'weak_labels': weak_labels.TRANSFORMS,
    'early_stopping': ('none', 'weak_labels', 'ground_truth'),
  }
  for name, known in choices.items():
    if config[name] not in known:
      raise errors.UserError(
        f'{name}={config[name]!r} is not one of {", ".join(sorted(known))}.'
      )


def build_model(spec, key, task, data, mesh):
  """Model of config.models[key], checked with the way it is adapted."""
  try:
    model = model_lib.build(spec, registry.TASKS[task])
    shapes = heads.parameter_shapes(model.network, data.max_length)
    # Without any row: is there room for one?
    model.network.rows(model.tokenizer, [], None, max_length=data.max_length)
    check_method(spec.adapt.method, model)
    if spec.adapt.method == 'prompt':
      example = ('', model.network.label_ids[0])
      prompted = model.tokenizer.with_examples([example] * spec.adapt.shots)
      prompted.encode([], max_length=data.max_length)
  except ValueError as e:
    raise errors.UserError(f'config.models.{key}: {e}') from e
  lora = spec.adapt.lora.to_dict() if spec.adapt.method == 'lora' else None
  recipes = {'train': spec.train}
  if spec.adapt.method in PROBING:
    recipes['adapt.probe'] = spec.adapt.probe
  for name, recipe in recipes.items():
    field = f'models.{key}.{name}'
    check_fine_tuning(recipe, shapes, model, mesh, lora=lora, field=field)
  return model


def check_method(method, model):
  """Raises ValueError where a model can not be adapted in such a way."""
  able = {
    'probe': (text_heads.Classifier, text_heads.RewardModel),
    'lp_ft': (text_heads.Classifier, text_heads.RewardModel),
    'prompt': (text_heads.Verbalizer,),
  }
  if method not in METHODS:
    raise errors.UserError(
      f'adapt.method={method!r} is not one of {", ".join(METHODS)}.'
    )
  if not isinstance(model.network, able.get(method, object)):
    names = ' or '.join(kind.__name__ for kind in able[method])
    raise errors.UserError(
      f'adapt.method={method!r} is for a {names}; this model has a '
      f"{type(model.network).__name__}. A Verbalizer is head='verbalize'."
    )


def check_fine_tuning(fields, shapes, model, mesh, *, lora=None, field):
  """The fields of a `train` config, for parameters of such shapes."""
  try:
    adapt.split(shapes, freeze=fields.freeze, lora=lora)
    optimizer.make_schedule(
      peak=fields.learning_rate,
      total_steps=1,
      warmup=fields.warmup,
      decay=fields.decay,
    )
  except ValueError as e:
    raise errors.UserError(f'config.{field}: {e}') from e
  architecture = model.network.config
  sharding.check_divides(
    mesh,
    batch_size=fields.batch_size,
    accumulate=fields.accumulate,
    num_heads=(architecture.num_heads, architecture.kv_heads),
    name=field,
  )


def check_generative(fields, chains, ladder, mesh):
  """Students have to be decoders."""
  for key in dict.fromkeys(key for chain in chains for key in chain[1:]):
    model = ladder[key]
    if not model.network.config.causal:
      raise errors.UserError(
        f'generative: {model.name} is no decoder and can not learn to write; '
        f'give models.{key} other weights, or set generative=(False,).'
      )
    network = language_model.LanguageModel(model.network.config)
    shapes = heads.parameter_shapes(network, 2)
    check_fine_tuning(fields, shapes, model, mesh, field='generative_train')


def check_losses(names, loss_args, task):
  """Traces every loss once: it exists and takes the arguments of the config."""
  num_classes = registry.TASKS[task].num_classes
  probs_BxC = jax.ShapeDtypeStruct((2, num_classes), 'float32')
  weight_B = jax.ShapeDtypeStruct((2,), 'float32')
  for name in names:
    if name not in losses.LOSSES:
      raise errors.UserError(
        f'losses: {name!r} is not one of {", ".join(sorted(losses.LOSSES))}.'
      )
    loss = functools.partial(
      losses.LOSSES[name], step_fraction=0.5, **loss_args.get(name, {})
    )
    try:
      jax.eval_shape(loss, probs_BxC, probs_BxC, weight_B=weight_B)
    except TypeError as e:
      raise errors.UserError(f'loss_args.{name}: {e}.') from e
