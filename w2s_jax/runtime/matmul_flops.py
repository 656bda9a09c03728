"""Counts the floating-point operations of the matmuls of a traced program.

From the program before it is compiled, so that the count is the same on every
chip and mesh. XLA's own count of a compiled program has operations of all
kinds, counts the body of a loop once, and leaves out kernels of libraries.
"""

import math

# Matmuls in the kernels of cuDNN's attention: scores and values; backwards, the
# scores again, which do not count, and two gradients of each.
_CUDNN_ATTENTION = {
  'dot_product_attention_fwd_wrapper': 2,
  'dot_product_attention_bwd_wrapper': 4,
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
  inner = [count(jaxpr) for jaxpr in _jaxprs_in(equation.params)]
  if name == 'cond':
    return max(inner)
  return sum(inner) * (equation.params['length'] if name == 'scan' else 1)


def _jaxprs_in(value):
  """Yields the jaxprs of the parameters of an equation."""
  if hasattr(value, 'eqns'):
    yield getattr(value, 'jaxpr', value)
  elif isinstance(value, dict):
    for x in value.values():
      yield from _jaxprs_in(x)
  elif isinstance(value, list | tuple):
    for x in value:
      yield from _jaxprs_in(x)
