"""Counts the floating-point operations of the matmuls of a traced program.

From the program before it is compiled, so that the count is the same on every
chip and mesh. XLA's own count of a compiled program has operations of all
kinds, counts the body of a loop once, and leaves out kernels of libraries.
"""

import math

import jax.numpy as jnp

# Matmuls in the kernels of cuDNN's attention: scores and values; backwards, the
# scores again, which do not count, and two gradients of each.
_CUDNN_ATTENTION = {
  'dot_product_attention_fwd_wrapper': 2,
  'dot_product_attention_bwd_wrapper': 4,
}
# Those of splash attention, by the beginning of their name. The gradient of the
# queries has a kernel of its own, which needs that of the scores again.
_SPLASH_ATTENTION = {
  'splash_mha_fwd': 2,
  'splash_mha_dq': 1,
  'splash_mha_dkv': 3,
}
_RECOMPUTED = 'rematted_computation'  # the scope of jax.checkpoint


def count(jaxpr):
  """Returns the FLOPs of a jaxpr, over all devices.

  What `remat` computes again is left out, as in the usual definition of MFU
  (Chowdhery et al. 2022, PaLM, appendix B). Of branches the longest counts.
  """
  return sum(
    _count_one(equation)
    for equation in jaxpr.eqns
    if _RECOMPUTED not in str(equation.source_info.name_stack)
  )


def _count_one(equation):
  name, shapes = equation.primitive.name, [x.aval for x in equation.invars]
  if name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    inner = math.prod(shapes[0].shape[axis] for axis in contracted)
    return 2 * inner * math.prod(equation.outvars[0].aval.shape)
  if name in _CUDNN_ATTENTION:
    batch, queries, heads, width = shapes[0].shape
    keys = shapes[1].shape[1]
    matmul = 2 * batch * heads * queries * keys * width
    return _CUDNN_ATTENTION[name] * matmul
  if name == 'pallas_call':
    return _count_splash(equation, shapes)
  inner = [count(jaxpr) for jaxpr in jaxprs_in(equation.params)]
  if name == 'cond':
    return max(inner)
  if name == 'shard_map':  # the program of one device
    return sum(inner) * equation.params['mesh'].size
  return sum(inner) * (equation.params['length'] if name == 'scan' else 1)


def _count_splash(equation, shapes):
  # Before queries and keys there are tables of blocks, all of integers.
  query, keys, *_ = (x for x in shapes if jnp.issubdtype(x.dtype, jnp.floating))
  matmul = 2 * math.prod(query.shape) * keys.shape[-2]
  kernel = equation.params['name']
  return matmul * sum(
    number for name, number in _SPLASH_ATTENTION.items() if name in kernel
  )


def jaxprs_in(value):
  """Yields the jaxprs of the parameters of an equation."""
  if hasattr(value, 'eqns'):
    yield getattr(value, 'jaxpr', value)
  elif isinstance(value, dict):
    for x in value.values():
      yield from jaxprs_in(x)
  elif isinstance(value, list | tuple):
    for x in value:
      yield from jaxprs_in(x)
