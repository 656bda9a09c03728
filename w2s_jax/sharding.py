"""Places arrays: one mesh, one table of rules, no sharding in the models.

The mesh has three named axes. `data` replicates parameters, `fsdp` splits
parameters and batch, `tensor` splits heads and the hidden layer of the MLP.
The batch is split over `data` and `fsdp` together.
"""

import re

import jax
import numpy as np

from w2s_jax import errors

P = jax.sharding.PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')

# First match on the path of a parameter decides; optimizer moments carry the
# path of their parameter, so the same table places them too.
PARAMETER_RULES = (
  (
    r'(token|position|type|output)_embed/embedding$',
    P(None, ('fsdp', 'tensor')),
  ),
  (r'attention/(query|key|value)/kernel$', P('fsdp', 'tensor')),
  (r'attention/out/kernel$', P('tensor', 'fsdp')),
  (r'mlp/(up|gate)/kernel$', P('fsdp', 'tensor')),
  (r'mlp/down/kernel$', P('tensor', 'fsdp')),
)


def make_mesh(*, data=-1, fsdp=1, tensor=1, devices=None):
  """Mesh over all devices; one axis may be -1 and takes what is left.

  Raises:
    errors.UserError: the axes do not multiply to the number of devices, or
      do not map onto the TPU topology.
  """
  devices = jax.devices() if devices is None else devices
  sizes = dict(data=data, fsdp=fsdp, tensor=tensor)
  wanted = ', '.join(f'mesh.{k}={v}' for k, v in sizes.items())
  free = [name for name, size in sizes.items() if size == -1]
  fixed = [size for size in sizes.values() if size != -1]
  if len(free) > 1 or min(fixed) < 1 or len(devices) % np.prod(fixed):
    raise errors.UserError(
      f'{wanted}: the axes must be positive and divide the '
      f'{len(devices)} devices; at most one may be -1.'
    )
  for name in free:
    sizes[name] = len(devices) // int(np.prod(fixed))
  if int(np.prod(list(sizes.values()))) != len(devices):
    raise errors.UserError(f'{wanted} does not use all {len(devices)} devices.')
  try:
    return jax.make_mesh(
      tuple(sizes[name] for name in AXES),
      AXES,
      axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
      devices=devices,
    )
  except NotImplementedError as e:
    raise errors.UserError(
      f'{wanted} does not map onto the TPU topology: each axis has to be a '
      f'product of some of its sides ({str(e).partition(". ")[0]}).'
    ) from e


def path_string(path):
  """'layer_0/mlp/up/kernel' for a jax key path."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def parameter_sharding(mesh, path, shape):
  """Returns the NamedSharding of a parameter; replicated without a rule.

  Raises:
    ValueError: a split axis does not divide the parameter.
  """
  for pattern, spec in PARAMETER_RULES:
    if re.search(pattern, path) and len(shape) == len(spec):
      sharding = jax.NamedSharding(mesh, spec)
      try:
        sharding.shard_shape(shape)
      except ValueError:
        raise errors.UserError(
          f'mesh.fsdp={mesh.shape["fsdp"]}, mesh.tensor='
          f'{mesh.shape["tensor"]} do not divide {path} of shape {shape} '
          f'(rule {spec}).'
        ) from None
      return sharding
  return replicated(mesh)


def tree_sharding(mesh, tree):
  """Returns shardings of a whole state: parameters, moments, step."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: parameter_sharding(mesh, path_string(path), x.shape), tree
  )


def replicated(mesh):
  return jax.NamedSharding(mesh, P())


def batch_sharding(mesh):
  return jax.NamedSharding(mesh, P(BATCH_AXES))


def check_divides(mesh, *, batch_size, accumulate, num_heads, name):
  """Raises UserError if batch or heads do not divide over the mesh.

  `num_heads` are those of queries, and those of keys and values.
  """
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size % (ways * accumulate):
    raise errors.UserError(
      f'{name}.batch_size={batch_size} does not divide over mesh.data * '
      f'mesh.fsdp = {ways} in {name}.accumulate={accumulate} pieces.'
    )
  for heads in num_heads:
    if heads % mesh.shape['tensor']:
      raise errors.UserError(
        f'mesh.tensor={mesh.shape["tensor"]} does not divide the {heads} '
        f'attention heads of the model of {name}.'
      )


def place_batch(mesh, batch):
  """Places host arrays, equal on every process, split by row."""
  rows = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, rows, lambda i: x[i]),
    batch,
  )


def place_parameter(mesh, path, array):
  """Places a host tensor on its devices; never whole on one of them."""
  array = np.asarray(array)
  return jax.make_array_from_callback(
    array.shape,
    parameter_sharding(mesh, path, array.shape),
    lambda i: array[i],
  )


def constrain_batch(x, axis=0):
  """Pins an axis of an activation to the batch axes of the mesh in scope."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  spec = P(*[None] * axis, BATCH_AXES)
  return jax.lax.with_sharding_constraint(x, spec)


def gather(x):
  """Replicates an array over the mesh in scope: a score, or an FSDP table."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, P())
