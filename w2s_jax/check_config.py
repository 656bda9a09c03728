"""Validates a config before anything is trained.

All functions raise errors.UserError, naming the field, what was found and what
to do.
"""

import functools
import itertools
import math

import jax
from ml_collections import config_dict

from w2s_jax import adapt
from w2s_jax import errors
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import sharding
from w2s_jax import weak_labels
from w2s_jax.models import chess_heads
from w2s_jax.models import heads
from w2s_jax.models import language_model
from w2s_jax.models import model as model_lib
from w2s_jax.models import text_heads
from w2s_jax.models import transformer
from w2s_jax.runtime import trackers
from w2s_jax.tasks import registry

METHODS = ('full', 'lora', 'probe', 'lp_ft', 'prompt')  # of adapt.method
FIELDS = (  # of configs/base.py
  *('task', 'seeds', 'population', 'models', 'students', 'weak_labels'),
  *('controls', 'early_stopping', 'variant', 'losses', 'generative'),
  *('generative_train', 'loss_args', 'data', 'mesh', 'eval_batch_size'),
  *('checkpoint_every', 'keep_params', 'eval_every', 'tracker'),
)
PROBING = ('probe', 'lp_ft')  # those that train a linear probe
_ROWS_TO_TOKENIZE = 500  # to see whether most rows are truncated


def parse_chains(students, ladder):
  """(('a', 'b', 'c'), ...) of ('a>b>c', ...): a teaches b, and b teaches c.

  Raises:
    errors.UserError: a chain is too short, repeats, or names no model.
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


def check_is_study(config):
  """Checks that a config has the fields of a study."""
  if not isinstance(config, config_dict.ConfigDict):
    raise errors.UserError(
      f'the config of a study must be an ml_collections.ConfigDict, such as '
      f"configs.nlp.get_config('adapt=probe'); got {config!r}."
    )
  missing = [name for name in FIELDS if name not in config]
  if missing:
    raise errors.UserError(
      f'this is not the config of a study: it has no field {missing[0]!r}; '
      'begin with get_config() of configs/base.py.'
    )


def check(config):
  """Checks all fields that can be checked without data or weights."""
  check_is_study(config)
  parse_chains(config.students, config.models)
  check_numbers(config)
  check_choices(config)
  check_losses(config.losses, config.loss_args, config.task)
  check_controls(config)
  trackers.parse(config.tracker)


def check_tracker(config):
  """Checks that this machine has what the trackers need."""
  if jax.process_index() == 0:  # no other process writes to them
    trackers.check(config.tracker)


def check_numbers(config):
  """Checks the range of every number."""
  counts = {
    'checkpoint_every': config.checkpoint_every,
    'eval_batch_size': config.eval_batch_size,
    'population': config.population,
    'data.max_length': config.data.max_length,
  }
  recipes = {'generative_train': config.generative_train}
  for key, spec in config.models.items():
    recipes[f'models.{key}.train'] = spec.train
    recipes[f'models.{key}.adapt.probe'] = spec.adapt.probe
    in_range(f'models.{key}.dropout', spec.dropout, 0, 1, below=True)
  for key, recipe in recipes.items():
    for name in ('epochs', 'batch_size', 'accumulate'):
      counts[f'{key}.{name}'] = recipe[name]
    in_range(f'{key}.learning_rate', recipe.learning_rate, 0)
    in_range(f'{key}.weight_decay', recipe.weight_decay, 0)
    in_range(f'{key}.clip_norm', recipe.clip_norm, 0, above=True)
    in_range(f'{key}.warmup', recipe.warmup, 0, 1)
  for name, value in counts.items():
    if not isinstance(value, int) or value < 1:
      raise errors.UserError(f'{name}={value!r} must be at least 1.')
  buckets = config.data.num_buckets
  if not isinstance(buckets, int) or (buckets < 1 and buckets != -1):
    raise errors.UserError(
      f'data.num_buckets={buckets!r} must be at least 1, or -1 to choose it.'
    )
  if not isinstance(config.eval_every, int) or config.eval_every < 0:
    raise errors.UserError(
      f'eval_every={config.eval_every!r} must be a number of steps, or 0.'
    )
  logconf = config.loss_args.logconf
  in_range('loss_args.logconf.alpha_max', logconf.alpha_max, 0, 1)
  in_range('loss_args.logconf.warmup', logconf.warmup, 0, 1)
  in_range('loss_args.logconf.start', logconf.start, 0, logconf.warmup)
  for name, size in config.data.splits.items():
    if size < -1 or size == 0:
      raise errors.UserError(
        f'data.splits.{name}={size} must be at least 1, or -1 to share what '
        'is left.'
      )
  for seed in config.seeds:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
      raise errors.UserError(
        f'seeds: {seed!r} must be a whole number, 0 or more.'
      )
  if len(set(config.seeds)) < len(config.seeds):
    raise errors.UserError(
      f'seeds={tuple(config.seeds)}: a seed is repeated; on the command line '
      'a second --config.seeds adds to the first.'
    )


def in_range(field, value, low, high=math.inf, *, above=False, below=False):
  """Raises UserError unless low <= value <= high and value is finite.

  Args:
    above, below: whether the bound itself is excluded.
  """
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if is_number and math.isfinite(value):
    if (low < value or (value == low and not above)) and (
      value < high or (value == high and not below)
    ):
      return
  if high == math.inf:
    span = f'above {low}' if above else f'{low} or more'
  else:
    span = f'in {"(" if above else "["}{low}, {high}{")" if below else "]"}'
  raise errors.UserError(f'{field}={value!r} must be a finite number {span}.')


def check_choices(config):
  """Checks names of choices, and lists that must not be empty."""
  for name in ('seeds', 'losses', 'generative'):
    values = config[name]
    if not isinstance(values, list | tuple) or not values:
      raise errors.UserError(
        f'{name}={values!r} must be a tuple of one or more values.'
      )
    if len(set(values)) < len(values):
      raise errors.UserError(f'{name}={tuple(values)}: a value is repeated.')
  choices = {
    'weak_labels': weak_labels.TRANSFORMS,
    'early_stopping': ('none', 'weak_labels', 'ground_truth'),
  }
  for name, known in choices.items():
    if config[name] not in known:
      raise errors.UserError(
        f'{name}={config[name]!r} is not one of {", ".join(sorted(known))}.'
      )


def check_controls(config):
  """Checks that labels can be moved from one row to another."""
  if config.controls and registry.find(config.task).inputs == 'position':
    raise errors.UserError(
      f'controls=True needs classes that all rows share; {config.task} has the '
      'legal moves of each position. Set controls=False.'
    )


def build_models(config, mesh):
  """{key: Model} of all models that `students` names, each checked."""
  chains = parse_chains(config.students, config.models)
  keys = dict.fromkeys(itertools.chain(*chains))
  models = {
    key: build_model(config.models[key], key, config.task, config.data, mesh)
    for key in keys
  }
  if any(config.generative):
    check_generative(config.generative_train, chains, models, mesh)
  if config.weak_labels == 'soft':
    check_soft(chains, models)
  return models


def outline_model(spec):
  """A Model that can be told from others but not run: nothing is read."""
  fields = spec.to_dict()
  return model_lib.Model(
    name=model_lib.name_of(spec),
    network=None,
    tokenizer=None,
    init=None,
    identity={k: v for k, v in fields.items() if k not in ('train', 'adapt')},
    weights=spec.weights,
    num_parameters=0,
  )


def warn_of_truncation(config, models, slices, console):
  """Prints a line for each model that sees more than half of the rows cut.

  The first rows stand for all: they are in the order of a hash.
  """
  rows = next(iter(slices.values())).transfer[0]
  rows = rows.take(slice(_ROWS_TO_TOKENIZE))
  counts = {}  # of the models that tokenize rows alike
  for key, model in models.items():
    alike = model.tokenizer, type(model.network)
    if alike not in counts:
      _, counts[alike] = model.network.rows(
        model.tokenizer, rows.inputs, None, max_length=config.data.max_length
      )
    truncated = counts[alike]
    if 2 * truncated > len(rows):
      console.print(
        f'Warning: data.max_length={config.data.max_length} truncates '
        f'{truncated} of {len(rows)} rows of {config.task} for '
        f'models.{key}; raise it unless that is meant.',
        markup=False,
        highlight=False,
        soft_wrap=True,
      )


def build_model(spec, key, task, data, mesh):
  """Builds the model of config.models[key] and checks how it is adapted."""
  try:
    model = model_lib.build(spec, registry.find(task))
    shapes = heads.parameter_shapes(model.network)
    transformer.check_length(model.network.config, data.max_length)
    # No rows: raises if max_length has no room for one.
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
  """Checks that a model can be adapted in such a way."""
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
  """Checks the fields of a `train` config for parameters of such shapes."""
  try:
    adapt.split(shapes, freeze=fields.freeze, lora=lora)
    optimizer.make_schedule(
      peak=fields.learning_rate,
      total_steps=1,
      warmup_steps=0,
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
  """Checks that all students are decoders."""
  for key in dict.fromkeys(key for chain in chains for key in chain[1:]):
    model = ladder[key]
    if not model.network.config.causal:
      raise errors.UserError(
        f'generative: {model.name} is not a decoder; generative fine-tuning '
        f'needs a causal model. Give models.{key} other weights, or set '
        'generative=(False,).'
      )
    network = language_model.LanguageModel(model.network.config)
    shapes = heads.parameter_shapes(network)
    check_fine_tuning(fields, shapes, model, mesh, field='generative_train')


def check_soft(chains, ladder):
  """Checks that no supervisor writes its answers."""
  for key in dict.fromkeys(key for chain in chains for key in chain[:-1]):
    if isinstance(ladder[key].network, chess_heads.Generator):
      raise errors.UserError(
        f"weak_labels='soft': models.{key} ({ladder[key].name}) writes its "
        "answers as text, without probabilities; set weak_labels='hard'."
      )


def check_losses(names, loss_args, task):
  """Traces every loss, so that its name and arguments are known to fit."""
  num_classes = registry.find(task).num_classes
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
