"""Trains several models in one step: every array has a first axis of members.

Members share the compiled step and its shapes; seed, rows, labels and the
numbers of a recipe, its loss among them, are their own. They are spread over
the `data` axis of the mesh as far as it divides, and the rows of each over the
rest of it.
"""

import collections
import contextlib
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import preemption
from w2s_jax.runtime import profiling
from w2s_jax.runtime import step_log

_AXIS = 'population'


def fit(model, members):
  """Trains each member to what `train.fit` would make of it, but for rounding.

  Members of one program that are at the same step train side by side, the
  others one group after the other. Checkpoints are those of `train.fit`, so a
  member may resume alone or beside others.

  Args:
    model: one of heads.py, the same for all.
    members: the arguments of `train.fit` for each, `model` left out. `mesh`,
      `checkpoint_every` and the steps of `watch` are those of the first.

  Returns:
    The trained parameters of each.
  """
  trained = [None] * len(members)
  with contextlib.ExitStack() as opened:
    started = []
    for member in members:
      saved = checkpoint.Training(
        member['folder'] / 'checkpoints', member['before_save']
      )
      opened.enter_context(contextlib.closing(saved))
      started.append(_start(model, member, saved))
    groups = collections.defaultdict(list)
    for i, (member, start) in enumerate(zip(members, started)):
      groups[member['recipe'].program(), start.step].append(i)
    for chosen in groups.values():
      outcome = _fit_group(
        model, [members[i] for i in chosen], [started[i] for i in chosen]
      )
      for i, params in zip(chosen, outcome, strict=True):
        trained[i] = params
  return trained


class _Start(NamedTuple):
  """A member at its last checkpoint, or before training."""

  checkpoints: checkpoint.Training
  batches: Any
  step: int
  state: train.TrainState


def _start(model, member, checkpoints):
  mesh = member['mesh']
  init_state, _ = train.make_step(model, member['recipe'], mesh)
  batches = batching.train_iterator(member['rows'], member['plan'])
  with jax.set_mesh(mesh):
    state = init_state(member['trainable'])
    found = checkpoints.restore(state)
  if not found:
    return _Start(checkpoints, batches, 0, state)
  step, state, data_state = found
  batches.set_state(data_state)
  return _Start(checkpoints, batches, step, state)


def _fit_group(model, members, started):
  size, first, first_step = len(members), members[0], started[0].step
  mesh, recipe = mesh_of(first['mesh'], size), first['recipe']
  total_steps, name = recipe.total_steps, first['name']
  frozen = [member['frozen'] for member in members]
  share_frozen = all(_are_same(frozen[0], other) for other in frozen)
  train_step = make_step(model, recipe.program(), mesh, share_frozen)
  singles = functools.partial(unstack, first['mesh'], size=size)
  plans = [member['plan'] for member in members]
  lengths = map(max, zip(*(plan.lengths_from(first_step) for plan in plans)))
  with jax.set_mesh(mesh):
    frozen = frozen[0] if share_frozen else stack(mesh, frozen)
    state = stack(mesh, [start.state for start in started])
    for start in started:  # all is held once
      jax.tree.map(lambda x: x.delete(), start.state)
    seeds = np.stack([member['seed'] for member in members])
    numbers = jax.tree.map(
      lambda *xs: np.stack(xs), *(m['recipe'].numbers() for m in members)
    )
    programs = compile_ahead.Programs(
      train_step, mesh, lengths=list(lengths), place=2
    )
    log = step_log.StepLog(
      [member['logger'] for member in members],
      [member['name'] for member in members],
      f'{name} and {size - 1} more',
      total_steps,
      first_step,
      programs,
    )
    profiled = next((m for m in members if m.get('profile')), first)
    tracer = profiling.Tracer(
      profiled.get('profile'),
      profiled['folder'],
      profiled['name'],
      first_step=first_step,
      total_steps=total_steps,
    )
    with programs, tracer, log:  # in the order of train.fit, for its reasons
      for step in range(first_step, total_steps):
        stop = preemption.stop_requested()
        if first['watch'] and step in first['watch'].steps and not stop:
          stop = any(  # the first that is stopped is the last that is called
            member['watch'](step, params)
            for member, params in zip(members, singles(state.params))
          )
        if step > first_step and (
          stop or step % first['checkpoint_every'] == 0
        ):
          log.flush()
          for start, single in zip(started, singles(state)):
            start.checkpoints.save(step, single, start.batches.get_state())
            start.checkpoints.wait()  # several processes save one at a time
        if stop:
          raise preemption.Preempted(f'{name} stopped before step {step}')
        tracer.before(step, state)
        batches = [next(start.batches) for start in started]
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          placed = place_batch(mesh, batches)
          state, metrics = programs(state, frozen, placed, seeds, numbers)
        log.add(step, metrics, batches)
    return list(singles(state.params))


@functools.lru_cache(maxsize=8)
def make_step(model, program, mesh, share_frozen):
  """Jitted step of train.make_step, with an axis of members on each array.

  But for frozen parameters that all members share.
  """
  _, one_step = train.step_functions(model, program, mesh)
  axes = (0, None if share_frozen else 0, 0, 0, 0)
  all_steps = jax.vmap(one_step, axes, spmd_axis_name=_AXIS)

  def step(*args):
    state, metrics = all_steps(*args)
    everywhere = sharding.replicated(mesh)
    return state, jax.lax.with_sharding_constraint(metrics, everywhere)

  return jax.jit(step, donate_argnums=0)


def _are_same(left, right):
  """Whether two trees hold the very same arrays."""
  left, right = jax.tree.leaves(left), jax.tree.leaves(right)
  return len(left) == len(right) and all(x is y for x, y in zip(left, right))


def mesh_of(mesh, size):
  """Returns a mesh of the same devices with an axis for members."""
  ways = math.gcd(size, mesh.shape['data'])
  return jax.sharding.Mesh(
    mesh.devices.reshape(ways, -1, *mesh.devices.shape[1:]),
    (_AXIS, *mesh.axis_names),
    axis_types=(jax.sharding.AxisType.Auto,) * (1 + mesh.devices.ndim),
  )


def stack(mesh, trees):
  """Stacks the trees of all members into one, on a mesh of `mesh_of`."""

  def place(path, x):
    path = sharding.path_string(path)
    one = sharding.parameter_sharding(mesh, path, x.shape)
    return jax.NamedSharding(mesh, jax.P(_AXIS, *one.spec))

  place = jax.tree_util.tree_map_with_path(place, trees[0])
  return jax.jit(_stacked, out_shardings=place)(*trees)


def _stacked(*trees):
  return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def unstack(mesh, tree, size):
  """Yields the tree of each member, on the mesh of a single model."""
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)
  place = sharding.tree_sharding(mesh, one)
  take = jax.jit(_taken, out_shardings=place)
  for member in range(size):
    yield take(tree, member)


def _taken(tree, member):
  return jax.tree.map(lambda x: x[member], tree)


def place_batch(mesh, batches):
  """Places the host batches of all members on the devices, as one."""
  longest = max(batch['tokens'].shape[-1] for batch in batches)
  rows = jax.NamedSharding(mesh, jax.P(_AXIS, sharding.BATCH_AXES))

  def place(name):
    arrays = [batch[name] for batch in batches]
    if name == 'tokens':
      arrays = [_padded(x, longest) for x in arrays]
    whole = np.stack(arrays)
    return jax.make_array_from_callback(
      whole.shape, rows, lambda index: whole[index]
    )

  return {name: place(name) for name in batches[0]}


def _padded(tokens, length):
  widths = [(0, 0)] * (tokens.ndim - 1) + [(0, length - tokens.shape[-1])]
  return np.pad(tokens, widths)
