"""What a study would cost, before any of it is paid for.

  pip install libtpu  # the TPU compiler; it needs no TPU
  python experiments/plan.py --config=configs/nlp.py --chip=v5p --devices=256 \
      --mesh=fsdp=64,tensor=4 \
      --config.models.strong.weights=random:qwen1.5-72b \
      --config.models.strong.num_layers=-1 ...

Compiles the real training and prediction steps of each model ahead of time, for
chips that need not be there and from shapes alone, and prints memory, floating-
point operations and communication of a device, and the least time of a step and
of the study. For TPUs the compiler is that of the TPU, so what does not fit is
its own error. For other chips the steps are compiled for simulated CPU devices:
operations and communication are close to theirs, memory is not.

Every step is taken to be as long as data.max_length allows.
"""

import dataclasses
import functools
import math
import os
import re

from absl import flags
import numpy as np

import launch

CHIP = flags.DEFINE_string('chip', 'v5e', 'A name of CHIPS in this file.')
DEVICES = flags.DEFINE_integer('devices', 8, 'So many of them.')
MESH = flags.DEFINE_string(
  'mesh', '', 'data=4,fsdp=2,tensor=1 in place of the fields of the config.'
)


@dataclasses.dataclass(frozen=True)
class Chip:
  """Of one device; `topology` is that of a TPU pod, by number of axes.

  Numbers as published: Cloud TPU documentation (system architecture of each
  version), NVIDIA data sheets (dense bfloat16, SXM).
  """

  flops: float  # bfloat16, a second
  memory: float  # bytes
  bandwidth: float  # of the memory, bytes a second
  network: float  # bytes a second that leave it, all links together
  topology: int = 0


CHIPS = {
  'v4': Chip(275e12, 32 * 2**30, 1.228e12, 150e9, topology=3),
  'v5e': Chip(197e12, 16 * 2**30, 0.819e12, 200e9, topology=2),
  'v5p': Chip(459e12, 95 * 2**30, 2.765e12, 600e9, topology=3),
  'v6e': Chip(918e12, 32 * 2**30, 1.64e12, 400e9, topology=2),
  'h100': Chip(989e12, 80e9, 3.35e12, 450e9),
  'h200': Chip(989e12, 141e9, 4.8e12, 450e9),
}
# Bytes that leave a device for each byte that an operation gives it.
TRAFFIC = {
  'all-gather': 1.0,
  'all-reduce': 2.0,
  'reduce-scatter': 1.0,  # counted by what it takes in
  'all-to-all': 1.0,
  'collective-permute': 1.0,
}
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2}


def main():
  import rich.console

  from w2s_jax import checks
  from w2s_jax import sharding

  config = launch.CONFIG.value
  if CHIP.value not in CHIPS:
    raise ValueError(f'--chip={CHIP.value} is not one of {", ".join(CHIPS)}.')
  chip = CHIPS[CHIP.value]
  devices = simulated(DEVICES.value, chip)
  mesh = sharding.make_mesh(**mesh_fields(config.mesh), devices=devices)
  console = rich.console.Console(width=100)
  chains = checks.parse_chains(config.students, config.models)
  checks.check_numbers(config)
  total = 0.0
  known = min(config.data.splits.weak, config.data.splits.transfer) >= 0
  for key in dict.fromkeys(key for chain in chains for key in chain):
    model = checks.build_model(
      config.models[key], key, config.task, config.data, mesh
    )
    with console.status(f'Compiling {model.name} ...'):
      steps = compile_steps(model, config, key, mesh)
    console.print(model_table(model, steps, chip, mesh))
    if known:
      total += seconds_of_study(steps, work(config, chains, key), chip)
  console.print(
    f'All stages together: {total / 3600:.2g} hours at least, '
    f'{total / 3600 * DEVICES.value:.2g} chip hours. This is what no chip can '
    'be faster than, not what it will be.'
    if known
    else 'data.splits.weak or .transfer is -1: give it a number for a total.'
  )


def mesh_fields(fields):
  """The mesh of the config, or that of --mesh."""
  sizes = fields.to_dict()
  for part in filter(None, MESH.value.split(',')):
    name, _, size = part.partition('=')
    if name not in sizes or not size.lstrip('-').isdigit():
      raise ValueError(f'--mesh: {part!r} is not data=, fsdp= or tensor=.')
    sizes[name] = int(size)
  return sizes


def simulated(count, chip):
  """Devices to compile for: of a TPU pod that need not exist, or CPUs."""
  import jax

  if not chip.topology:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', count)
    return jax.devices()
  from jax.experimental import topologies

  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no TPU to ask
  name = f'{CHIP.value}:{"x".join(map(str, pod(count, chip.topology)))}'
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=name
    ).devices
  except Exception as e:  # of the library's many kinds
    raise ValueError(
      f'--chip={CHIP.value} --devices={count}: no TPU compiler for {name} '
      f'({str(e).splitlines()[0]}); pip install libtpu, or choose a number of '
      'devices that pods come in.'
    ) from e


def pod(count, axes):
  """Sides of a TPU slice, as equal as they can be, the longest last."""
  sides = []
  while axes > 1:
    root = round(count ** (1 / axes))
    side = max(s for s in range(1, root + 1) if count % s == 0)
    sides.append(side)
    count, axes = count // side, axes - 1
  return *sides, count


def compile_steps(model, config, key, mesh):
  """{'training': compiled, 'prediction': compiled} of a model."""
  import jax

  from w2s_jax import adapt
  from w2s_jax import heads
  from w2s_jax import predict
  from w2s_jax import sharding
  from w2s_jax import train

  spec = config.models[key]
  length = config.data.max_length
  lora = spec.adapt.lora.to_dict() if spec.adapt.method == 'lora' else None
  shapes = heads.parameter_shapes(model.network, length)
  trainable, frozen = adapt.split(shapes, freeze=spec.train.freeze, lora=lora)
  recipe = spec.train.to_dict()
  for name in ('freeze', 'epochs', 'batch_size'):
    del recipe[name]
  loss = config.losses[-1]
  init_state, train_step = train.make_step(
    model.network,
    train.Recipe(
      loss=loss,
      loss_args=tuple(sorted(config.loss_args.get(loss, {}).items())),
      total_steps=1000,
      **recipe,
    ),
    mesh,
  )

  def placed(tree):
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      tree,
      sharding.tree_sharding(mesh, tree),
    )

  def batch(size):
    inputs = dict(
      zip(model.network.INPUTS, heads.dummy_inputs(model.network, length))
    )
    arrays = {
      **inputs,
      'label_probs': np.zeros((1, model.network.num_classes), np.float32),
      'weight': np.zeros(1, np.float32),
    }
    rows = sharding.batch_sharding(mesh)
    return {
      name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=rows)
      for name, x in arrays.items()
    }

  with jax.set_mesh(mesh):
    state = placed(jax.eval_shape(init_state, trainable))
    training = train_step.lower(
      state, placed(frozen), batch(spec.train.batch_size), 0
    )
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    rows = batch(ways * -(-config.eval_batch_size // ways))
    answer = predict.answer_fn(model.network, mesh)
    prediction = answer.lower(
      placed(shapes), [rows[name] for name in model.network.INPUTS]
    )
    return {
      'training': training.compile(),
      'prediction': prediction.compile(),
    }


@functools.cache  # the text of a large program takes seconds to read
def collectives(compiled):
  """{kind: (count, bytes a device takes in)} of a compiled program.

  What stands in a loop is counted once.
  """
  pattern = re.compile(
    r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|'
    r'collective-permute)(-start)?\((.*)'
  )
  found = {}
  for line in compiled.as_text().splitlines():
    match = pattern.search(line)
    if match:
      result, kind, start, operands = match.groups()
      sizes = array_bytes(result)
      # An asynchronous operation gives (what goes in, what comes out, ...).
      size = max(sizes) if start else sum(sizes)
      if kind == 'reduce-scatter':
        groups = re.search(r'replica_groups=\[\d+,(\d+)\]', operands)
        size *= int(groups.group(1)) if groups else 1
      count, total = found.get(kind, (0, 0))
      found[kind] = count + 1, total + size
  return found


def array_bytes(text):
  """Bytes of each array in a piece of HLO, such as 'bf16[8,128]{1,0}'."""
  sizes = []
  for kind, shape in re.findall(r'(\w+)\[([\d,]*)\]', text):
    count = math.prod(int(n) for n in shape.split(',') if n)
    sizes.append(count * BYTES.get(kind, 4))
  return sizes or [0]


def seconds(compiled, chip):
  """Least time of one step: {'arithmetic': ..., 'memory': ..., ...}."""
  cost = compiled.cost_analysis()
  traffic = sum(
    TRAFFIC[kind] * size for kind, (_, size) in collectives(compiled).items()
  )
  return {
    'arithmetic': cost['flops'] / chip.flops,
    'memory': cost.get('bytes accessed', 0.0) / chip.bandwidth,
    'network': traffic / chip.network,
  }


def work(config, chains, key):
  """How many batches of a study a model trains on, and answers."""
  sizes, train = config.data.splits, config.models[key].train
  variants, seeds = len(config.generative), len(config.seeds)
  students = {c[:n] for c in chains for n in range(2, len(c) + 1)}
  taught = variants * len(config.losses)
  as_weak = any(c[0] == key for c in chains)
  as_student = taught * sum(c[-1] == key for c in students)
  as_ceiling = variants * any(c[-1] == key for c in chains)
  as_teacher = as_weak + taught * sum(
    c[-1] == key and c not in chains for c in students
  )

  def steps(rows):
    return train.epochs * math.ceil(rows / train.batch_size)

  trained = as_weak + as_student + as_ceiling
  answers = trained * (sizes.validation + sizes.test)
  answers += as_teacher * sizes.transfer
  return {
    'training': seeds
    * (
      as_weak * steps(sizes.weak)
      + (as_student + as_ceiling) * steps(sizes.transfer)
    ),
    'prediction': seeds * math.ceil(answers / config.eval_batch_size),
  }


def seconds_of_study(steps, counts, chip):
  return sum(
    counts[name] * max(seconds(compiled, chip).values())
    for name, compiled in steps.items()
  )


def model_table(model, steps, chip, mesh):
  """Rich table of one model."""
  from rich import box
  from rich import table

  shape = ', '.join(f'{name}={size}' for name, size in mesh.shape.items())
  made = table.Table(
    title=f'{model.name}: {model.num_parameters:,} parameters on {shape}',
    box=box.SIMPLE_HEAD,
  )
  made.add_column('a device')
  for name in steps:
    made.add_column(name, justify='right')
  for label, cell in ROWS.items():
    made.add_row(label, *(cell(x, chip) for x in steps.values()))
  kinds = sorted({k for x in steps.values() for k in collectives(x)})
  for kind in kinds:
    cells = []
    for compiled in steps.values():
      count, size = collectives(compiled).get(kind, (0, 0))
      cells.append(f'{gib(size)} in {count}' if count else '')
    made.add_row(kind, *cells)
  return made


def gib(size):
  return f'{size / 2**30:,.2f} GiB'


def _memory(compiled, chip):
  stats = compiled.memory_analysis()
  peak = (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
  )
  return f'{gib(peak)}, {peak / chip.memory:.0%} of the chip'


def _least(compiled, chip):
  parts = seconds(compiled, chip)
  bound = max(parts, key=parts.get)
  return f'{1e3 * parts[bound]:,.1f} ms, bound by {bound}'


ROWS = {
  'state and batch': lambda x, chip: gib(
    x.memory_analysis().argument_size_in_bytes
  ),
  'activations': lambda x, chip: gib(x.memory_analysis().temp_size_in_bytes),
  'peak memory': _memory,
  'operations a step': lambda x, chip: (
    f'{x.cost_analysis()["flops"] / 1e12:,.2f} TFLOP'
  ),
  'time a step, at least': _least,
}


if __name__ == '__main__':
  launch.run(main, required=('config',))
