r"""Plans a study: its memory, time and communication on chips not at hand.

  pip install libtpu  # the TPU compiler; it needs no TPU
  w2s plan --config=nlp:adapt=full --chip=v5p --devices=64
  python experiments/plan/plan.py --config=configs/nlp.py:adapt=full \
      --chip=v5p --devices=256 --mesh=fsdp=64,tensor=4 \
      --config.models.strong.weights=random:qwen1.5-72b \
      --config.models.strong.num_layers=-1 ...

Compiles the training and prediction steps of each model ahead of time, from
shapes alone and for chips that are not attached. Prints memory, floating-point
operations and communication per device, and a lower bound on the time of a
step, of each stage and of the study. For TPUs the TPU compiler is used, which
fails for a model that does not fit. For other chips the steps are compiled for
simulated CPU devices: operations and communication are close to those of the
chip, memory is not.

Assumes that every batch is padded to data.max_length and that each seed trains
alone.
"""

import math
import pathlib
import sys
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from experiments import command_line
from experiments.plan import ahead
from w2s_jax import errors
from w2s_jax.runtime import chips

CHIP = flags.DEFINE_string(
  'chip', 'v5e', 'A name of CHIPS in w2s_jax/runtime/chips.py.'
)
DEVICES = flags.DEFINE_integer('devices', 8, 'Number of chips.')
MESH = flags.DEFINE_string(
  'mesh', '', 'Overrides config.mesh: data=4,fsdp=2,tensor=1.'
)


class Stage(NamedTuple):
  """Stages of one kind, summed over all seeds."""

  role: str
  key: str  # of config.models
  count: int
  steps: dict  # 'training', 'prediction' -> number of batches


def main():
  import jax
  import rich.text

  from w2s_jax import check_config
  from w2s_jax import sharding
  from w2s_jax.models import heads

  config = command_line.CONFIG.value
  if CHIP.value not in chips.CHIPS:
    names = ', '.join(chips.CHIPS)
    raise errors.UserError(f'--chip={CHIP.value} is not one of {names}.')
  chip = chips.CHIPS[CHIP.value]
  chains = check_config.parse_chains(config.students, config.models)
  check_config.check_numbers(config)
  check_is_known(config, chains)
  devices = ahead.simulated(CHIP.value, DEVICES.value)
  mesh = sharding.make_mesh(**mesh_fields(config.mesh), devices=devices)
  with jax.set_mesh(mesh):  # attention depends on the kind of device
    models = check_config.build_models(config, mesh)
  for key, model in models.items():  # before any of them is compiled
    shapes = heads.parameter_shapes(model.network)
    ahead.placed(mesh, shapes, field=f'models.{key}')
  stages = stages_of(config, ahead.prediction_batch(config, mesh))
  console = command_line.console()
  plans = {}
  for key, model in models.items():
    with console.status(rich.text.Text(f'Compiling {model.name} ...')):
      plans[key] = ahead.make_plan(model, config, key, mesh)
    roles = ', '.join(stage.role for stage in stages if stage.key == key)
    console.print(model_table(model, roles, plans[key], chip, mesh))
  if min(config.data.splits.weak, config.data.splits.transfer) < 0:
    console.print(
      'data.splits.weak or .transfer is -1: give it a number for the time of '
      'the study.'
    )
  else:
    console.print(study_table(stages, models, plans, chip))


def check_is_known(config, chains):
  """Raises errors.UserError for adaptation methods that are not planned."""
  for key in {key for chain in chains for key in chain}:
    method = config.models[key].adapt.method
    if method not in ('full', 'lora'):
      raise errors.UserError(
        f'models.{key}.adapt.method={method!r}: there are plans for '
        "'full' and 'lora'."
      )
  if any(config.generative):
    raise errors.UserError(
      f'generative={config.generative}: there are plans for (False,).'
    )


def mesh_fields(fields):
  """Returns the mesh fields of the config with those of --mesh."""
  sizes = fields.to_dict()
  for part in filter(None, MESH.value.split(',')):
    name, _, size = part.partition('=')
    if name not in sizes or not size.lstrip('-').isdigit():
      raise errors.UserError(
        f'--mesh: {part!r} is not data=, fsdp= or tensor=.'
      )
    sizes[name] = int(size)
  return sizes


def stages_of(config, predict_batch):
  """Every kind of stage that the study describes, with its batches counted."""
  from w2s_jax import graph
  from w2s_jax import study

  described = study.outline(config).values()
  results = [result for of_seed in described for result in of_seed]
  stages = graph.in_order([stage for x in results for stage in x.stages])
  found = {}  # (role, key) -> Stage
  for stage in stages:
    role, key = stage.name.partition('-')[0], key_of(stage, config)
    known = found.get((role, key), Stage(role, key, 0, {}))
    steps = {
      name: known.steps.get(name, 0) + count
      for name, count in batches_of(stage, predict_batch).items()
    }
    found[role, key] = Stage(role, key, known.count + 1, steps)
  return list(found.values())


def key_of(stage, config):
  """The key of config.models of the model that a stage uses."""
  from w2s_jax import check_config

  fields = stage.fields.get('supervisor', stage).fields
  keys = [
    key
    for key, spec in config.models.items()
    if check_config.outline_model(spec) == fields['model']
  ]
  # Models that only differ in their training are told apart by it.
  keys.sort(
    key=lambda k: config.models[k].train.to_dict() != fields.get('train')
  )
  return keys[0]


def batches_of(stage, predict_batch):
  """{'training': steps, 'prediction': batches} of a stage."""
  from w2s_jax import early_stopping
  from w2s_jax import steps

  fields, evaluation = stage.fields, stage.fields['evaluation']

  def batches(*parts):
    return sum(math.ceil(len(rows) / predict_batch) for rows in parts)

  if 'supervisor' in fields:
    return {'training': 0, 'prediction': batches(fields['rows'])}
  predicted = batches(evaluation.validation, evaluation.test)
  if fields.get('judge'):
    predicted += early_stopping.NUM_CANDIDATES * batches(evaluation.validation)
  return {
    'training': steps.num_training_steps(stage),
    'prediction': predicted,
  }


def model_table(model, roles, plan, chip, mesh):
  """Returns a rich table of the cost of one model."""
  from rich import box
  from rich import table

  shape = ', '.join(f'{name}={size}' for name, size in mesh.shape.items())
  made = table.Table(
    title=f'{model.name} ({roles}): {model.num_parameters:,} parameters on '
    f'{shape}',
    box=box.SIMPLE_HEAD,
  )
  steps = plan.steps
  made.add_column('a device')
  for name in steps:
    made.add_column(name, justify='right')
  made.add_row('parameters', *[gib(plan.parameters)] * 2)
  made.add_row('optimizer', gib(plan.optimizer))

  def add(label, cell):
    made.add_row(label, *map(cell, steps.values()))

  add('activations, gradients', lambda x: gib(x.temporary))
  add(
    'peak memory',
    lambda x: f'{gib(x.peak)}, {x.peak / chip.memory:.0%} of the chip',
  )
  add('operations a step', lambda x: f'{number(x.flops / 1e12)} TFLOP')
  for kind in sorted({kind for x in steps.values() for kind in x.collectives}):
    found = [x.collectives.get(kind) for x in steps.values()]
    made.add_row(kind, *(collective(*x) if x else '' for x in found))
  times = [x.seconds(chip) for x in steps.values()]
  for part in times[0]:
    made.add_row(f'time of {part}', *(milliseconds(x[part]) for x in times))
  made.add_row('time a step, at least', *map(least, times))
  return made


def study_table(stages, models, plans, chip):
  """Returns a rich table of the least time of each kind of stage."""
  from rich import box
  from rich import table

  made = table.Table(title='The study, at least', box=box.SIMPLE_HEAD)
  for name in (
    'stages',
    'model',
    'number',
    'steps',
    'inference batches',
    'hours',
  ):
    left = name in ('stages', 'model')
    made.add_column(name, justify='left' if left else 'right')
  total = 0.0
  for stage in stages:
    hours = sum(
      count * max(plans[stage.key].steps[name].seconds(chip).values()) / 3600
      for name, count in stage.steps.items()
    )
    total += hours
    made.add_row(
      stage.role,
      models[stage.key].name,
      f'{stage.count:,}',
      *(f'{count:,}' for count in stage.steps.values()),
      number(hours),
    )
  made.add_section()
  made.add_row('all', '', '', '', '', number(total))
  made.caption = (
    f'{number(total * DEVICES.value)} chip hours. No chip can be faster; '
    'loading, compiling and saving are extra.'
  )
  return made


def gib(size):
  return f'{number(size / 2**30)} GiB'


def number(x):
  return f'{x:,.1f}' if x >= 10 else f'{x:.2g}'


def collective(count, size):
  return f'{gib(size)} in {count:,}'


def milliseconds(seconds):
  return f'{number(1e3 * seconds)} ms'


def least(parts):
  bound = max(parts, key=parts.get)
  return f'{milliseconds(parts[bound])}, bound by {bound}'


if __name__ == '__main__':
  command_line.run(main, required=('config',))
