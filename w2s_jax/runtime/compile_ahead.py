"""Compiles a function for all batch lengths in parallel threads.

A jitted function is compiled for each length that its batches are padded to.
The compiler releases the GIL, so on a machine with many cores all programs take
about as long as one, and work starts with the first.
"""

from concurrent import futures
import os

import jax

# The compiler may need gigabytes of host memory for each large program.
_MOST_AT_ONCE = 8


class Programs:
  """A jitted function of batches, to call in a `with` block.

  The first call starts compilation for all lengths, that of its own batch
  first. Each call waits for its own program only. The end of the block cancels
  programs that wait for a thread and waits for those being compiled, as the
  interpreter would do at exit.
  """

  def __init__(self, function, mesh, *, lengths, place):
    """Initializes the pool.

    Args:
      function: a jitted function; the batch has 'tokens' [..., T].
      mesh: mesh to compile for.
      lengths: values of T to compile ahead, in order; other values of T are
        compiled when needed, and so are all on a machine with one core.
      place: index of the batch in the arguments.
    """
    cores = _cores()
    self._function = function
    self._mesh = mesh
    self._lengths = lengths if cores > 1 else ()
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
    with jax.set_mesh(self._mesh):  # the mesh is local to a thread
      self._function.lower(*shapes).compile()  # jax.jit caches it


def _shape(x):
  if not isinstance(x, jax.Array):
    return x
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _cores():
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
