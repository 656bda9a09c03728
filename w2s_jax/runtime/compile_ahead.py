"""Compiling the programs of all batch lengths side by side, in threads.

A jitted function is compiled for each length that its batches are padded to.
The compiler works without Python's lock, so that on a machine of many cores all
of them are ready about as soon as one would be, and work begins with the first.
"""

from concurrent import futures
import os

import jax

# Each may need gigabytes of the host for a large model.
_MOST_AT_ONCE = 8


class Programs:
  """A jitted function of batches, to be called within a `with` block.

  At its first call the compiler begins with the length of that batch and goes
  on with the others; a call waits for its own program alone.
  """

  def __init__(self, function, mesh, *, lengths, place):
    """Of batches of such `lengths`, which stand at a `place` of arguments."""
    cores = _cores()
    self._function = function
    self._mesh = mesh
    self._lengths = lengths if cores > 1 else ()  # else as each comes
    self._place = place
    self._pool = futures.ThreadPoolExecutor(min(cores, _MOST_AT_ONCE))
    self._started = {}  # length -> Future

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._pool.shutdown(cancel_futures=True)

  def __call__(self, *arguments):
    length = arguments[self._place]['tokens'].shape[-1]
    if not self._started:
      shapes = jax.tree.map(_shape, arguments)
      for other in dict.fromkeys((length, *self._lengths)):
        self._started[other] = self._pool.submit(self._compile, shapes, other)
    if length in self._started:
      self._started[length].result()
    return self._function(*arguments)

  def _compile(self, shapes, length):
    shapes = list(shapes)
    batch = shapes[self._place]
    tokens = batch['tokens']
    tokens = tokens.update(shape=(*tokens.shape[:-1], length))
    shapes[self._place] = {**batch, 'tokens': tokens}
    with jax.set_mesh(self._mesh):  # each thread has its own
      self._function.lower(*shapes).compile()  # jax.jit finds it there


def _shape(x):
  if not isinstance(x, jax.Array):
    return x
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _cores():
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
