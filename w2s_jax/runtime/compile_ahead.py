"""Compiles a function for all batch lengths in parallel threads.

A jitted function is compiled for each length that its batches are padded to.
The compiler releases the GIL, so on a machine with many cores all programs take
about as long as one, and work starts with the first.
"""

from concurrent import futures
import os
import threading
import time

import jax

from w2s_jax.runtime import matmul_flops

# The compiler may need gigabytes of host memory for each large program.
_MOST_AT_ONCE = 8
_WAITED = '/w2s_jax/waited_for_compilation'
_COMPILING = (
  '/jax/core/compile/jaxpr_trace_duration',
  '/jax/core/compile/jaxpr_to_mlir_module_duration',
  '/jax/core/compile/backend_compile_duration',
  _WAITED,
)


class Programs:
  """A jitted function of batches, to call in a `with` block.

  The first call starts compilation for all lengths, that of its own batch
  first. Each call waits for its own program only. The end of the block cancels
  programs that wait for a thread and waits for those being compiled, as the
  interpreter would do at exit.

  Attributes:
    mesh: mesh to compile for.
    waits: number of calls that waited for their program so far.
    flops: of the matmuls of the last call, on all devices.
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
    self.mesh = mesh
    self.waits = 0
    self.flops = 0
    self._function = function
    self._lengths = lengths if cores > 1 else ()
    self._place = place
    self._pool = futures.ThreadPoolExecutor(min(cores, _MOST_AT_ONCE))
    self._started = {}  # length -> Future of its FLOPs

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._pool.shutdown(cancel_futures=True)

  def __call__(self, *arguments):
    length = arguments[self._place]['tokens'].shape[-1]
    if length not in self._started:
      ahead = () if self._started else self._lengths
      shapes = jax.tree.map(_shape, arguments)
      for other in dict.fromkeys((length, *ahead)):
        self._started[other] = self._pool.submit(self._compile, shapes, other)
    self.flops = self._wait_for(self._started[length])
    return self._function(*arguments)

  def num_compiling(self):
    """Returns the number of programs that are not compiled yet."""
    return sum(not future.done() for future in self._started.values())

  def _wait_for(self, program):
    if not program.done():
      self.waits += 1
      started = time.monotonic()
      futures.wait([program])
      seconds = time.monotonic() - started
      jax.monitoring.record_event_duration_secs(_WAITED, seconds)
    return program.result()

  def _compile(self, shapes, length):
    shapes = list(shapes)
    batch = shapes[self._place]
    tokens = batch['tokens']
    tokens = tokens.update(shape=(*tokens.shape[:-1], length))
    shapes[self._place] = {**batch, 'tokens': tokens}
    with jax.set_mesh(self.mesh):  # the mesh is local to a thread
      traced = self._function.trace(*shapes)
      traced.lower().compile()  # jax.jit caches it
    return matmul_flops.count(traced.jaxpr.jaxpr)


class Stopwatch:
  """Counts the seconds that its thread compiles or waits for a compilation.

  In a `with` block. Tracing counts too; programs that other threads compile
  count only while this one waits for them.
  """

  def __enter__(self):
    self._thread = threading.get_ident()
    self._intervals = []  # (start, end), apart and in order
    jax.monitoring.register_event_duration_secs_listener(self._note)
    return self

  def __exit__(self, *_):
    jax.monitoring.unregister_event_duration_listener(self._note)

  @property
  def seconds(self):
    return sum(end - start for start, end in self._intervals)

  def _note(self, event, seconds, **_):
    if event in _COMPILING and threading.get_ident() == self._thread:
      end = time.monotonic()
      start = end - seconds
      # Functions that a function calls are traced within its own interval.
      while self._intervals and self._intervals[-1][0] >= start:
        self._intervals.pop()
      if self._intervals:
        start = max(start, self._intervals[-1][1])
      self._intervals.append((start, end))


def _shape(x):
  if not isinstance(x, jax.Array):
    return x
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _cores():
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
