"""Runs experiments/main.py and tells where its time goes."""

import collections
import contextlib
import functools
import itertools
import os
import time

from experiments import command_line
from experiments.benchmarks import own_process
from experiments.benchmarks import small_study

# Monitoring events of JAX, before a program runs first.
_COMPILING = {
  '/jax/core/compile/jaxpr_trace_duration': 'tracing',
  '/jax/core/compile/jaxpr_to_mlir_module_duration': 'tracing',
  '/jax/core/compile/backend_compile_duration': 'compiling',
}
_COMPILED = '/jax/compilation_cache/cache_misses'


class _Reached(BaseException):
  """Ends a program at the first training step; not an error of it."""


def run(workdir, cache, *, pinned, arguments='', to_first_step=False):
  """Returns what `main` yields for configs/nlp.py, in a process of its own.

  Args:
    workdir: of the study.
    cache: folder of small_study.fresh_cache.
    pinned: whether the process has one core.
    arguments: of configs/nlp.py.
    to_first_step: as of `main`.
  """
  with own_process.Process(
    main,
    pinned=pinned,
    environment=small_study.fresh_cache(cache),
    command=(
      f'--config={command_line.ROOT}/configs/nlp.py:{arguments}',
      f'--workdir={workdir}',
    ),
    to_first_step=to_first_step,
    started=time.time(),
  ) as process:
    return process.next().value


def main(*, command, started, to_first_step=False):
  """Runs experiments/main.py, or up to the metrics of its first training step.

  Yields CPU and wall seconds since the start of this process; {what: wall
  seconds}, each moment counted for the innermost of nested intervals; and the
  number of programs that were compiled, not loaded from the cache.

  Args:
    command: arguments of main.py.
    started: time.time() of the start.
    to_first_step: whether it ends there.
  """
  import runpy
  import sys

  intervals, programs = [], []
  main_started = time.time()
  intervals.append(('Python', started, main_started))
  with command_line.many_imports():
    import jax  # as main.py does when its flags are read

    from w2s_jax import check_config
    from w2s_jax import checkpoint
    from w2s_jax import stages
    from w2s_jax import study as study_lib
    from w2s_jax.models import model as model_lib
    from w2s_jax.runtime import files
    from w2s_jax.runtime import logger

  intervals.append(('imports', main_started, time.time()))

  def watch(where, name, what):
    function = getattr(where, name)

    @functools.wraps(function)  # stages have the name of their function
    def watched(*args, **kwargs):
      begun = time.time()
      try:
        return function(*args, **kwargs)
      finally:
        intervals.append((what, begun, time.time()))

    setattr(where, name, watched)

  watch(study_lib, 'load_splits', 'rows')
  watch(check_config, 'build_model', 'models')
  watch(model_lib, 'initial', 'weights')
  watch(stages, 'zero_shot', 'zero-shot predictions')
  for where, name in (
    (checkpoint.Training, 'save'),
    (checkpoint.Training, 'close'),
    (checkpoint, 'save_params'),
    (files, 'write_atomically'),
  ):
    watch(where, name, 'saving')

  def compiled(event, seconds, **_):
    if event in _COMPILING:
      now = time.time()
      intervals.append((_COMPILING[event], now - seconds, now))

  def happened(event, **_):
    if event == _COMPILED:
      programs.append(event)

  jax.monitoring.register_event_duration_secs_listener(compiled)
  jax.monitoring.register_event_listener(happened)
  write = logger.Logger.write

  def first(self, step, values):
    write(self, step, values)
    if 'train/loss' in values:
      raise _Reached(time.process_time(), time.time())

  if to_first_step:
    logger.Logger.write = first
  path = str(command_line.ROOT / 'experiments' / 'main.py')
  sys.argv = [path, *command]
  try:
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
      with _successful_exit():
        runpy.run_path(path, run_name='__main__')
    cpu, now = time.process_time(), time.time()
  except _Reached as reached:  # since then other programs were compiled
    cpu, now = reached.args
  intervals.append(('the rest', started, now))
  yield {
    'cpu': cpu,
    'wall': now - started,
    'wall seconds of': innermost(intervals, until=now),
    'programs': len(programs),
  }


@contextlib.contextmanager
def _successful_exit():
  try:
    yield
  except SystemExit as stop:
    if stop.code:
      raise RuntimeError(f'main.py ended with {stop.code}') from stop


def innermost(intervals, *, until):
  """Returns {what: seconds}; overlaps count for the interval begun last."""
  seconds = collections.Counter()
  moments = sorted({min(t, until) for _, *ends in intervals for t in ends})
  for start, end in itertools.pairwise(moments):
    over = [x for x in intervals if x[1] <= start and x[2] >= end]
    if over:
      seconds[max(over, key=lambda x: x[1])[0]] += end - start
  return dict(seconds)
