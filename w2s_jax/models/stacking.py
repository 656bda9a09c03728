"""Stacks the parameters of alike layers, so that one program serves all layers.

  transformer/layer_<i>/<name> [...]  <->  transformer/layers/<name> [N, ...]

A stacked trunk is a scan over its N layers (transformer.py): the time to
compile does not grow with depth. On the disk, and for `freeze` and the targets
of LoRA, layers are apart.
"""

import re

from flax import traverse_util
import jax
import jax.numpy as jnp

from w2s_jax import sharding

# A scan copies the parameters of each layer out of the stack: 8 % of a training
# step of SmolLM2-135M on a CPU, for 60 % of the time to compile it.
MIN_LAYERS = 24
_LAYER = re.compile(r'transformer/layer_(\d+)/(.*)')
_STACK = 'transformer/layers/'


def suits(config):
  """Whether the layers of a trunk are deep and alike enough for a scan."""
  windows = {config.has_window(i) for i in range(config.num_layers)}
  return config.num_layers >= MIN_LAYERS and len(windows) == 1


def stack(tree, config):
  """Returns parameters with the layers of a trunk stacked, if that suits.

  Args:
    tree: nested params, all or some of them; arrays, or their shapes.
    config: of the trunk.
  """
  return stack_parts((tree,), config)[0]


def stack_parts(parts, config):
  """`stack` of trees that hold parts of one model, such as what is frozen.

  Layers stay apart if a part holds a parameter of some but not of all.
  """
  flat_parts = [traverse_util.flatten_dict(part, sep='/') for part in parts]
  every = set(range(config.num_layers))
  if not suits(config) or not all(
    xs.keys() == every for flat in flat_parts for xs in _by_name(flat).values()
  ):
    return parts
  return tuple(_stack(flat) for flat in flat_parts)


def _stack(flat):
  stacked = {path: x for path, x in flat.items() if not _LAYER.match(path)}
  for name, xs in _by_name(flat).items():
    path = _STACK + name
    stacked[path] = _stacked(path, [xs[i] for i in sorted(xs)])
  return traverse_util.unflatten_dict(stacked, sep='/')


def is_stacked(tree):
  return 'layers' in tree.get('transformer', {})


def unstack(tree):
  """Returns parameters with all layers apart: the inverse of `stack`."""
  flat = {}
  for path, x in traverse_util.flatten_dict(tree, sep='/').items():
    if not path.startswith(_STACK):
      flat[path] = x
      continue
    name = path.removeprefix(_STACK)
    paths = [f'transformer/layer_{i}/{name}' for i in range(x.shape[0])]
    flat |= dict(zip(paths, _unstacked(paths[0], x), strict=True))
  return traverse_util.unflatten_dict(flat, sep='/')


def _by_name(flat):
  """{name: {number of the layer: parameter}}."""
  layers = {}
  for path, x in flat.items():
    if found := _LAYER.match(path):
      layers.setdefault(found[2], {})[int(found[1])] = x
  return layers


def _stacked(path, arrays):
  first = arrays[0]
  if isinstance(first, jax.ShapeDtypeStruct):
    return first.update(shape=(len(arrays), *first.shape), sharding=None)
  place = _place(first, path, (len(arrays), *first.shape))
  return jax.jit(lambda *xs: jnp.stack(xs), out_shardings=place)(*arrays)


def _unstacked(path, x):
  place = _place(x, path, x.shape[1:])
  return jax.jit(lambda x: list(x), out_shardings=place)(x)


def _place(x, path, shape):
  """The sharding of a parameter on the mesh of another; None for one device."""
  place = getattr(x, 'sharding', None)
  if isinstance(place, jax.NamedSharding):
    return sharding.parameter_sharding(place.mesh, path, shape)
  return None
