"""Compares training steps of several models side by side with one."""

import time

import numpy as np

from experiments.benchmarks import own_process
from experiments.benchmarks import speed
from experiments.benchmarks import table

SIZES = (1, 4, 16)


def rows(options, console):
  del console
  here = own_process.on_cpu()
  batch, length = (8, 32) if here else (32, 128)
  with own_process.Process(
    measure,
    pinned=here,
    preset='minilm-l6',
    dtype='float32' if here else 'bfloat16',
    batch=batch,
    length=length,
    sizes=SIZES,
  ) as process:
    process.next()
    turns = [process.next().value for _ in range(3 * options.repeats)]
  one = float(np.median([turn[1] for turn in turns]))
  for size in SIZES[1:]:
    together = float(np.median([turn[size] for turn in turns]))
    yield table.Row(
      'e',
      f'a step of {size} minilm-l6 side by side over one, {batch} x {length} '
      'tokens each',
      [turn[size] / turn[1] for turn in turns],
      'of one',
      f'{1e3 * together:,.0f} ms over {1e3 * one:,.0f} ms, '
      f'{together / one / size:.2f} of as many single steps'
      + (': one model keeps a core busy' if here else ''),
      target=3.0 if size == 16 and not here else None,
      details=[
        {str(n): seconds for n, seconds in turn.items()} for turn in turns
      ],
    )


def measure(*, preset, dtype, batch, length, sizes):
  """Yields None, then {size: seconds of a training step} endlessly.

  A step of `size` trains as many models of a preset, each on its own batch.
  """
  import jax

  from experiments import command_line
  from w2s_jax import population
  from w2s_jax import sharding
  from w2s_jax import train

  command_line.keep_memory()
  command_line.keep_compiled_programs()
  one_device = sharding.make_mesh(devices=jax.devices()[:1])
  on_cpu = one_device.devices.flat[0].platform == 'cpu'
  clock = time.process_time if on_cpu else time.perf_counter
  network, params, arrays, recipe = speed.model_of(
    preset, dtype, batch, length, one_device
  )

  def step_of(size):
    """Returns a function that runs a step, of train.fit for a single model."""
    init_state, train_step = train.make_step(network, recipe, one_device)
    mesh = one_device
    with jax.set_mesh(one_device):
      state = init_state(jax.tree.map(jax.numpy.copy, params))
    placed, seeds, numbers = (
      sharding.place_batch(mesh, arrays),
      0,
      recipe.numbers(),
    )
    if size > 1:
      mesh = population.mesh_of(one_device, size)
      train_step = population.make_step(
        network, recipe.program(), mesh, share_frozen=True
      )
      state = population.stack(mesh, [state] * size)
      placed = population.place_batch(mesh, [arrays] * size)
      seeds = np.arange(size)
      numbers = jax.tree.map(lambda x: np.stack([x] * size), recipe.numbers())
    arguments = {}, placed, seeds, numbers

    def step():
      nonlocal state
      with jax.set_mesh(mesh):
        state, metrics = train_step(state, *arguments)
      jax.block_until_ready((state, metrics))

    step()
    return step

  steps = {size: step_of(size) for size in sizes}
  yield None
  while True:
    seconds = {}
    for size, step in steps.items():
      started = clock()
      step()
      seconds[size] = clock() - started
    yield seconds
