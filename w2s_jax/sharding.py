"""The device mesh, and the sharding of parameters, batches and activations.

The mesh has three named axes. `data` replicates parameters, `fsdp` shards them,
and `tensor` shards attention heads and the hidden layer of the MLP. Batches are
sharded over `data` and `fsdp` together. PARAMETER_RULES are for all models;
models name no axis.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import errors

P = jax.sharding.PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
COLUMNS = ('fsdp', 'tensor')  # of an embedding table
BY_COLUMN, BY_ROW = P(None, 'tensor'), P('tensor', None)

# (regex, how a parameter is stored, how a matmul uses it). The first regex that
# matches the path decides. The path of an optimizer moment ends in that of its
# parameter, so these rules are for both. A stack of layers has one more axis,
# the first, which is not sharded. Kernels that read what `tensor` shards are
# stored by rows: TPU compilers scatter a gradient along its first axis, and
# reduce the whole of it for every device instead of along the second.
PARAMETER_RULES = (
  (r'(token|position|type|output)_embed/embedding$', P(None, COLUMNS), P()),
  (r'attention/(query|key|value)/kernel$', P('fsdp', 'tensor'), BY_COLUMN),
  (r'attention/out/kernel$', P(('tensor', 'fsdp'), None), BY_ROW),
  (r'mlp/(up|gate)/kernel$', P('fsdp', 'tensor'), BY_COLUMN),
  (r'mlp/down/kernel$', P(('tensor', 'fsdp'), None), BY_ROW),
)


def make_mesh(*, data=-1, fsdp=1, tensor=1, devices=None):
  """Returns a mesh over all devices; an axis of -1 takes the remaining ones.

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
  """Returns a jax key path as a string such as 'layer_0/mlp/up/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def parameter_sharding(mesh, path, shape):
  """Returns the NamedSharding of a parameter; replicated if no rule matches.

  Raises:
    errors.UserError: the mesh does not divide the shape.
  """
  stacked = '/layers/' in path
  for pattern, spec, _ in PARAMETER_RULES:
    spec = P(*[None] * stacked, *spec)
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
  """Returns the shardings of a train state: parameters, moments and step."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: parameter_sharding(mesh, path_string(path), x.shape), tree
  )


def replicated(mesh):
  return jax.NamedSharding(mesh, P())


def batch_sharding(mesh):
  return jax.NamedSharding(mesh, P(BATCH_AXES))


def check_divides(mesh, *, batch_size, accumulate, num_heads, name):
  """Checks that the mesh divides batch and attention heads.

  Args:
    mesh: of make_mesh.
    batch_size: rows of a global batch.
    accumulate: pieces of a batch for gradient accumulation, of each device.
    num_heads: numbers of heads: of queries, and of keys and values.
    name: config field of the recipe, for the message.

  Raises:
    errors.UserError: it does not.
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
  """Returns global arrays sharded by row, of host arrays.

  Every process passes the same arrays; each device gets its rows only.
  """
  rows = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, rows, lambda i: x[i]),
    batch,
  )


def place_parameter(mesh, path, array):
  """Returns the sharded global array of a parameter.

  Each device gets its shard only: the whole may not fit on one, nor in the
  memory of a host.

  Args:
    mesh: of make_mesh.
    path: of the parameter.
    array: in host memory, or anything with a shape whose indexing reads a part;
      each part that devices of this process hold is read once.
  """

  @functools.cache
  def part(*bounds):
    return np.asarray(array[tuple(slice(*each) for each in bounds)])

  return jax.make_array_from_callback(
    array.shape,
    parameter_sharding(mesh, path, array.shape),
    lambda index: part(*((each.start, each.stop) for each in index)),
  )


def batch_ways():
  """Returns among how many devices the mesh in scope divides a batch."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else math.prod(mesh.shape[x] for x in BATCH_AXES)


def device_kind():
  """Returns the kind of device that is traced for: of the mesh in scope.

  Its devices need not be attached. Without a mesh it is that of the first
  device.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return (device or jax.devices()[0]).device_kind


def map_heads(function, heads, rows):
  """Calls a function on each device for its rows and attention heads only.

  For kernels, which XLA does not partition. Without a mesh in scope all are on
  one device.

  Args:
    function: (heads, rows) -> [B, H, ...], each row and group of heads on its
      own.
    heads: tuple of arrays [B, H, ...], whose axes the mesh divides.
    rows: array [B, ...].
  """
  if jax.sharding.get_abstract_mesh().empty:
    return function(heads, rows)
  divided = P(BATCH_AXES, 'tensor')
  return jax.shard_map(
    function,
    in_specs=(divided, P(BATCH_AXES)),
    out_specs=divided,
    check_vma=False,  # kernels do not say over which axes their results vary
  )(heads, rows)


def constrain_batch(x, axis=0):
  """Shards an axis of an activation as the batch, if a mesh is in scope."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  spec = P(*[None] * axis, BATCH_AXES)
  return jax.lax.with_sharding_constraint(x, spec)


def look_up(table_VxD, ids_BxL):
  """Returns the rows of a table that ids name: [B, L, D], split as a batch.

  The table stays split by columns. Each device looks up its own for the rows of
  all devices that share the table; these exchange what they found. An id that
  the table does not have gives NaN, not another row.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return jnp.take(table_VxD, ids_BxL, axis=0, mode='fill')
  constrain = jax.lax.with_sharding_constraint
  ids_BxL = constrain(ids_BxL, P('data'))
  x_BxLxD = jnp.take(table_VxD, ids_BxL, axis=0, mode='fill')
  # One axis after the other: XLA would gather all for both at once.
  for spec in P('data', None, COLUMNS), P('data', None, 'fsdp'), P(BATCH_AXES):
    x_BxLxD = constrain(x_BxLxD, spec)
  return x_BxLxD


def gather_kernel(path, kernel_DxE):
  """Returns the kernel of a linear map whole along `fsdp`, for a matmul.

  Its gradient is then summed and scattered along `fsdp`. If that were left to
  XLA, it might gather activations instead, which are larger.

  Args:
    path: end of the path of the parameter, such as 'mlp/down/kernel'.
    kernel_DxE: the parameter.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return kernel_DxE
  used = next(used for x, _, used in PARAMETER_RULES if re.search(x, path))
  return jax.lax.with_sharding_constraint(kernel_DxE, used)


def gather(x):
  """Replicates an array over the mesh in scope, if there is one.

  For arrays that are needed whole: scores of the global batch, FSDP tables.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, P())
