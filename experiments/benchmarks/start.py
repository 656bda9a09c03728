"""From the start of experiments/main.py to its first training step."""

import collections
import contextlib
import functools
import itertools
import os
import pathlib
import tempfile
import time

import numpy as np

from experiments import command_line
from experiments.benchmarks import own_process
from experiments.benchmarks import small_study
from experiments.benchmarks import table

# Monitoring events of JAX, before a program runs first.
_COMPILING = {
  '/jax/core/compile/jaxpr_trace_duration': 'tracing',
  '/jax/core/compile/jaxpr_to_mlir_module_duration': 'tracing',
  '/jax/core/compile/backend_compile_duration': 'compiling',
}


class _Reached(BaseException):
  """Ends a program at the first training step; not an error of it."""


def rows(options, console):
  del console
  small_study.fetched(small_study.config_of(options.rows))
  here = own_process.on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    environment = small_study.fresh_cache(pathlib.Path(folder))
    started = []
    for number in range(1 + options.repeats):
      command = (
        f'--config={command_line.ROOT}/configs/nlp.py',
        f'--workdir={folder}/{number}',
      )
      with own_process.Process(
        start_up,
        pinned=here,
        environment=environment,
        command=command,
        started=time.time(),
      ) as process:
        started.append(process.next().value)
  for cache, of_it in {'empty': started[:1], 'warm': started[1:]}.items():
    parts = of_it[-1]['wall seconds of']
    values = [x['cpu' if here else 'wall'] for x in of_it]
    scale = np.median(values) / sum(parts.values())
    yield table.Row(
      'd',
      f'start of configs/nlp.py to its first training step, {cache} cache',
      values,
      's',
      ', '.join(
        f'{what} {table.UNITS["s"](seconds * scale)}'
        for what, seconds in sorted(parts.items(), key=lambda x: -x[1])
      ),
      target=5.0 if cache == 'warm' else None,
      details=of_it,
    )


def start_up(*, command, started):
  """Runs experiments/main.py up to the metrics of its first training step.

  Yields CPU and wall seconds since the start of this process, and {what: wall
  seconds}, each moment counted for the innermost of nested intervals.

  Args:
    command: arguments of main.py. started: time.time() of the start.
  """
  import runpy
  import sys

  intervals = []
  main_started = time.time()
  intervals.append(('Python', started, main_started))
  import jax  # as main.py does when its flags are read

  from w2s_jax import check_config
  from w2s_jax import stages
  from w2s_jax import study as study_lib
  from w2s_jax.models import model as model_lib
  from w2s_jax.runtime import logger

  intervals.append(('imports', main_started, time.time()))

  def watch(module, name, what):
    function = getattr(module, name)

    @functools.wraps(function)  # stages have the name of their function
    def watched(*args, **kwargs):
      begun = time.time()
      try:
        return function(*args, **kwargs)
      finally:
        intervals.append((what, begun, time.time()))

    setattr(module, name, watched)

  watch(study_lib, 'load_splits', 'rows')
  watch(check_config, 'build_model', 'models')
  watch(model_lib, 'initial', 'weights')
  watch(stages, 'zero_shot', 'zero-shot predictions')

  def compiled(event, seconds, **_):
    if event in _COMPILING:
      now = time.time()
      intervals.append((_COMPILING[event], now - seconds, now))

  jax.monitoring.register_event_duration_secs_listener(compiled)
  write = logger.Logger.write

  def first(self, step, values):
    write(self, step, values)
    if 'train/loss' in values:
      raise _Reached(time.process_time(), time.time())

  logger.Logger.write = first
  main = str(command_line.ROOT / 'experiments' / 'main.py')
  sys.argv = [main, *command]
  try:
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
      runpy.run_path(main, run_name='__main__')
  except _Reached as reached:
    cpu, now = reached.args
  intervals.append(('the rest', started, now))
  parts = innermost(intervals, until=now)
  yield {'cpu': cpu, 'wall': now - started, 'wall seconds of': parts}


def innermost(intervals, *, until):
  """Returns {what: seconds}; overlaps count for the interval begun last."""
  seconds = collections.Counter()
  moments = sorted({min(t, until) for _, *ends in intervals for t in ends})
  for start, end in itertools.pairwise(moments):
    over = [x for x in intervals if x[1] <= start and x[2] >= end]
    if over:
      seconds[max(over, key=lambda x: x[1])[0]] += end - start
  return dict(seconds)
