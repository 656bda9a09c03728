"""Several models in training as one: every array has a first axis of members.

Members share a program and its shapes; seed, rows, labels and the numbers of a
recipe are their own. They are spread over the `data` axis of the mesh as far as
that divides, and the rows of each over what is left of it. A population of one
is the model itself, without such an axis.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import sharding

_AXIS = 'population'


def mesh_of(mesh, size):
  """The same devices, with an axis for the members of a population."""
  if size == 1:
    return mesh
  ways = math.gcd(size, mesh.shape['data'])
  return jax.sharding.Mesh(
    mesh.devices.reshape(ways, -1, *mesh.devices.shape[1:]),
    (_AXIS, *mesh.axis_names),
    axis_types=(jax.sharding.AxisType.Auto,) * (1 + mesh.devices.ndim),
  )


def over_members(step, size, *, shared=()):
  """A function of one model as that of a population.

  Args:
    shared: places of arguments that all members have in common.
  """
  if size == 1:
    return step

  def together(*args):
    axes = [None if i in shared else 0 for i in range(len(args))]
    return jax.vmap(step, axes, spmd_axis_name=_AXIS)(*args)

  return together


def stack(mesh, trees):
  """The trees of all members as one, on a mesh of `mesh_of`."""
  if len(trees) == 1:
    return trees[0]

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
  if size == 1:
    yield tree
    return
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)
  place = sharding.tree_sharding(mesh, one)
  take = jax.jit(_taken, out_shardings=place)
  for member in range(size):
    yield take(tree, member)


def _taken(tree, member):
  return jax.tree.map(lambda x: x[member], tree)


def place_batch(mesh, batches):
  """The host batches of all members on their devices, as one."""
  if len(batches) == 1:
    return sharding.place_batch(mesh, batches[0])
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


def stack_numbers(trees):
  """Host numbers of each member as [S]; those of a single model as they are."""
  if len(trees) == 1:
    return trees[0]
  return jax.tree.map(lambda *xs: np.stack(xs), *trees)
