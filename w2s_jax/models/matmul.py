"""Matmuls of float32 arrays on a chip's units for bfloat16.

Processors with AVX512-BF16 or AMX and GPUs compute them faster than those of
float32; a TPU does the same to float32 matmuls by default.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rounded(equation, x, y):
  """Returns jnp.einsum of inputs rounded to bfloat16, summed in float32.

  The gradient is rounded likewise: with it in float32 the backward pass would
  be matmuls of float32.

  Args:
    equation: 'axes,axes->axes', each letter in two or all of the three.
    x, y: float32.
  """
  return _einsum(equation, x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))


def _einsum(equation, x, y):
  return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _forward(equation, x, y):
  x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
  return _einsum(equation, x, y), (x, y)  # half of the bytes of float32


def _backward(equation, kept, gradient):
  x, y = kept
  axes, out = equation.split('->')
  x_axes, y_axes = axes.split(',')
  gradient = gradient.astype(jnp.bfloat16)
  return (
    _einsum(f'{out},{y_axes}->{x_axes}', gradient, y),
    _einsum(f'{out},{x_axes}->{y_axes}', gradient, x),
  )


rounded.defvjp(_forward, _backward)
