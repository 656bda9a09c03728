"""Compiles the steps of a study for devices that are not attached."""

import dataclasses
import functools
import math
import os
from typing import NamedTuple

import numpy as np

from experiments.plan import roofline
from w2s_jax import errors
from w2s_jax.runtime import chips


class Plan(NamedTuple):
  """One model on one device."""

  parameters: int  # bytes
  optimizer: int  # bytes
  steps: dict  # 'training', 'prediction' -> roofline.Program


def simulated(name, count):
  """Returns devices to compile for: those of a TPU slice, or simulated CPUs.

  Raises:
    errors.UserError: the slice does not exist or has no compiler here.
  """
  import jax

  topology = chips.CHIPS[name].topology
  if not topology:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', count)
    return jax.devices()
  from jax.experimental import topologies

  # Programs for a TPU that is not attached cannot be loaded from the cache.
  jax.config.update('jax_enable_compilation_cache', False)
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # no TPU answers
  slice_name = f'{name}:{"x".join(map(str, pod(count, topology)))}'
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=slice_name
    ).devices
  except Exception as e:  # libtpu raises many kinds
    raise errors.UserError(
      f'--chip={name} --devices={count}: no TPU compiler for {slice_name} '
      f'({str(e).splitlines()[0]}); pip install libtpu, or choose a number of '
      'devices that pods come in.'
    ) from e


def pod(count, axes):
  """Returns the sides of a TPU slice, as equal as possible, longest last."""
  sides = []
  while axes > 1:
    root = round(count ** (1 / axes))
    side = max(s for s in range(1, root + 1) if count % s == 0)
    sides.append(side)
    count, axes = count // side, axes - 1
  return *sides, count


def prediction_batch(config, mesh):
  """Returns the batch size that predict.predict rounds up to."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  return ways * -(-config.eval_batch_size // ways)


def make_plan(model, config, key, mesh):
  """Compiles the two steps of a model and returns its Plan.

  The compiler counts the operations in a loop once. Where layers are a loop,
  those of models of one and of two layers, which are none, tell what each layer
  adds; memory and communication are those of the whole.
  """
  from w2s_jax.models import stacking

  network = model.network
  parameters, optimizer, steps = compiled(network, config, key, mesh)
  if stacking.suits(network.config):
    depth = network.config.num_layers
    one, two = (
      compiled(with_layers(network, n), config, key, mesh)[-1] for n in (1, 2)
    )
    for name, step in steps.items():
      first, second = one[name], two[name]
      steps[name] = dataclasses.replace(
        step,
        flops=extended(first.flops, second.flops, depth),
        traffic=extended(first.traffic, second.traffic, depth),
      )
  return Plan(parameters, optimizer, steps)


def with_layers(network, number):
  """Returns a network of the same layers, fewer of them."""
  config = dataclasses.replace(network.config, num_layers=number)
  return network.clone(config=config)


def extended(one, two, depth):
  """Returns what a number of layers have if one and two have so much."""
  return one + (depth - 1) * (two - one)


def compiled(network, config, key, mesh):
  """Returns (bytes of parameters, of the optimizer, {step: Program})."""
  import jax

  from w2s_jax import adapt
  from w2s_jax import predict
  from w2s_jax import train
  from w2s_jax.models import heads
  from w2s_jax.models import stacking

  spec, length = config.models[key], config.data.max_length
  lora = spec.adapt.lora.to_dict() if spec.adapt.method == 'lora' else None
  place = functools.partial(placed, mesh, field=f'models.{key}')
  batch = functools.partial(batch_of, network, length, mesh)
  recipe = recipe_of(config, spec.train)
  init_state, train_step = train.make_step(network, recipe, mesh)
  answer = predict.answer_fn(network, mesh)
  with jax.set_mesh(mesh):
    shapes = heads.parameter_shapes(network)
    parts = adapt.split(shapes, freeze=spec.train.freeze, lora=lora)
    trainable, frozen = stacking.stack_parts(parts, network.config)
    parameters = place(stacking.stack(shapes, network.config))
    state = place(jax.eval_shape(init_state, trainable))
    frozen = place(frozen)
    training = train_step.lower(
      state, frozen, batch(spec.train.batch_size), 0, recipe.numbers()
    )
    rows = batch(prediction_batch(config, mesh))
    prediction = answer.lower(parameters, rows)
    steps = {
      'training': roofline.read(
        training.compile(), pieces=spec.train.accumulate
      ),
      'prediction': roofline.read(prediction.compile()),
    }
  return bytes_of((state.params, frozen)), bytes_of(state.opt_state), steps


def placed(mesh, tree, *, field):
  """Returns a tree of shapes with their shardings on the mesh.

  Raises:
    errors.UserError: the mesh does not divide a parameter of the model.
  """
  import jax

  from w2s_jax import sharding

  try:
    places = sharding.tree_sharding(mesh, tree)
  except ValueError as e:
    raise errors.UserError(f'{field}: {e}') from e
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    places,
  )


def batch_of(network, length, mesh, size):
  """Returns the shapes of a training batch."""
  import jax

  from w2s_jax import sharding

  one = {
    **dict(zip(network.INPUTS, network.dummy_inputs(length))),
    'label_probs': np.zeros((1, network.num_classes), np.float32),
    'weight': np.zeros(1, np.float32),
  }
  rows = sharding.batch_sharding(mesh)
  return {
    name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=rows)
    for name, x in one.items()
  }


def recipe_of(config, fields):
  """train.Recipe of a config's `train` fields, with the study's last loss."""
  from w2s_jax import losses
  from w2s_jax import train

  fields = fields.to_dict()
  for name in ('freeze', 'epochs', 'batch_size'):
    del fields[name]
  loss = config.losses[-1]
  loss_args = tuple(sorted(config.loss_args.get(loss, {}).items()))
  return train.Recipe(
    loss=losses.LOSSES[loss],
    loss_args=loss_args,
    total_steps=1000,
    **fields,
  )


def bytes_of(tree):
  """Returns the bytes per device of a tree of sharded shapes."""
  import jax

  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )
