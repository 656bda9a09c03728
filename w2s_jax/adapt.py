"""Splits parameters into trainable and frozen ones, and merges them.

Full fine-tuning trains every parameter that `freeze` does not match. LoRA (Hu
et al. 2021, arXiv 2106.09685) freezes the trunk and trains the head and a
low-rank update of each linear map of the trunk that `targets` matches:

  x @ W + alpha / rank * (x @ A) @ B,  A [D, rank] random, B [rank, E] zero at
  first

so that training starts at the pretrained model. transformer.Dense computes it
from A and B: A @ B, added to W, would lose what is small in the rounding of W.

Trainable parameters are float32 whatever the model stores: an update of AdamW
is smaller than what bfloat16 resolves, and so is the decay of its moments.

Shapes: D inputs, E outputs, R the rank.
"""

import re
import zlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import errors

# Suffixes of the parameters that adapt 'path/kernel': 'path/kernel_lora_a'.
A, B, SCALE = '_lora_a', '_lora_b', '_lora_scale'


def split(params, *, freeze='', lora=None, seed=0):
  """Splits nested params into (trainable, frozen); the former are float32.

  Args:
    params: nested dict of arrays, or of anything else with a `shape`.
    freeze: regex on paths such as 'transformer/layer_0/mlp/up/kernel'; ''
      freezes nothing. Not used with LoRA, which freezes the whole trunk.
    lora: None, or a dict of `rank`, `alpha` and `targets`, a regex on paths.
    seed: seed of the factors A.

  Raises:
    errors.UserError: a regex is not valid or matches nothing; `freeze` matches
      everything; a target is not the kernel of a linear map; the rank is not
      positive.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  regexes = {'freeze': freeze}
  if lora:
    regexes['adapt.lora.targets'] = lora['targets']
  for field, regex in regexes.items():
    try:
      re.compile(regex)
    except re.error as error:
      raise errors.UserError(
        f'{field}={regex!r} is not a regular expression ({error}).'
      ) from None
  if lora is None:
    chosen = [path for path in flat if freeze and re.search(freeze, path)]
    if freeze and len(chosen) in (0, len(flat)):
      raise errors.UserError(
        f'freeze={freeze!r} matches {len(chosen)} of the {len(flat)} '
        f'parameters, for example {sorted(flat)[:3]}.'
      )
    factors = {}
  else:
    chosen = [path for path in flat if path.startswith('transformer/')]
    factors = _lora(flat, chosen, seed, **lora)
  frozen = {path: flat[path] for path in chosen}
  trainable = {
    path: _float32(x) for path, x in flat.items() if path not in frozen
  }
  trainable |= factors
  return tuple(
    traverse_util.unflatten_dict(part, sep='/') for part in (trainable, frozen)
  )


def _float32(x):
  if isinstance(x, jax.ShapeDtypeStruct):
    return x.update(dtype=jnp.float32)
  return x.astype(jnp.float32)


def _lora(flat, trunk, seed, *, rank, alpha, targets):
  """Returns {path: A, B or scale} for the kernels that `targets` matches."""
  matched = [path for path in trunk if re.search(targets, path)]
  kernels = [path for path in matched if path.endswith('/kernel')]
  if not matched or matched != kernels:
    odd = sorted(set(matched) - set(kernels)) or sorted(trunk)
    raise errors.UserError(
      f'adapt.lora.targets={targets!r} must match kernels of the trunk; it '
      f'matches {len(matched)} parameters, {len(kernels)} of them kernels; '
      f'see {odd[:3]}.'
    )
  if rank < 1:
    raise errors.UserError(f'adapt.lora.rank={rank} must be at least 1.')
  factors = {}
  for path in kernels:
    num_in, num_out = flat[path].shape
    # Seeded by path, so that the factors of a matrix do not depend on which
    # other matrices are adapted.
    rng = np.random.default_rng((seed, zlib.crc32(path.encode())))
    a_DxR = rng.normal(0, num_in**-0.5, (num_in, rank)).astype(np.float32)
    b_RxE = np.zeros((rank, num_out), np.float32)
    place = getattr(flat[path], 'sharding', None)
    for suffix, array in {
      A: a_DxR,
      B: b_RxE,
      SCALE: np.float32(alpha / rank),
    }.items():
      factors[path + suffix] = _beside(array, place)
  return factors


def _beside(array, place):
  """Replicates an array over the mesh of the matrix that it adapts."""
  if not isinstance(place, jax.NamedSharding):
    return jnp.asarray(array)
  # With several processes an array of this process alone could not be combined
  # with the global matrix.
  everywhere = jax.NamedSharding(place.mesh, jax.sharding.PartitionSpec())
  return jax.make_array_from_callback(
    array.shape, everywhere, lambda index: array[index]
  )


def merge(trainable, frozen):
  """Returns all parameters of the model: the inverse of `split`.

  Factors of LoRA are beside their kernels, where transformer.Dense finds them.
  """
  flat = traverse_util.flatten_dict(frozen, sep='/')
  flat |= traverse_util.flatten_dict(trainable, sep='/')
  return traverse_util.unflatten_dict(flat, sep='/')


def stored(trainable, param_dtype):
  """Returns trained parameters as a model stores them: its trunk in a dtype.

  The step computes with these, so what is trained is what is stored.
  """

  def cast(path, x):
    of_trunk = path[0].key == 'transformer'
    factor = path[-1].key.endswith((A, B, SCALE))
    return x.astype(param_dtype) if of_trunk and not factor else x

  return jax.tree_util.tree_map_with_path(cast, trainable)


def fold(params):
  """Returns parameters without factors of LoRA, each added to its kernel."""
  flat = traverse_util.flatten_dict(params, sep='/')
  for path in [path for path in flat if path.endswith(A)]:
    target = path.removesuffix(A)
    a_DxR, b_RxE, scale = (flat.pop(target + x) for x in (A, B, SCALE))
    # On TPU the default precision would round the factors to bfloat16.
    change_DxE = scale * jnp.matmul(
      a_DxR, b_RxE, precision=jax.lax.Precision.HIGHEST
    )
    kernel_DxE = flat[target]
    flat[target] = (kernel_DxE + change_DxE).astype(kernel_DxE.dtype)
  return traverse_util.unflatten_dict(flat, sep='/')


def needs_base(params, shapes):
  """Whether params lack some of a model's: those that were frozen.

  Args:
    params: what a stage stored, nested.
    shapes: of all parameters of the model, nested.
  """
  stored, whole = (
    traverse_util.flatten_dict(tree, sep='/') for tree in (params, shapes)
  )
  return not whole.keys() <= stored.keys()
