"""Studies and parts of them, as experiments/benchmark.py measures them.

Generators for own_process.py, which counts what each value took.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import time


def platform():
  """What JAX would run on here; asked for in a process that lets go of it."""
  import jax

  yield jax.default_backend()


def padding(*, config):
  """Yields {'slots': ..., 'tokens': ...} of what a study trains on.

  And what rows alone, each in its own bucket, would take: 'slots_of_rows'.
  """
  import numpy as np

  from w2s_jax import batching
  from w2s_jax import checks
  from w2s_jax import sharding
  from w2s_jax import stages
  from w2s_jax import study

  mesh = sharding.make_mesh()
  (weak, strong), *_ = checks.parse_chains(config.students, config.models)
  evaluated, slices = study.load_splits(
    config.task, config.data, seeds=(0,), num_transfer=1
  )
  evaluation = stages.Evaluation(
    splits=evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
    measure=None,
  )
  total = collections.Counter()
  for key, examples in zip((weak, strong), slices[0]):
    model = checks.build_model(
      config.models[key], key, config.task, config.data, mesh
    )
    rows, _ = stages.tokenize(model, examples, config.data.max_length)
    buckets = evaluation.buckets(model)
    fields = config.models[key].train
    plan = batching.EpochPlan(
      rows.lengths_N,
      batch_size=fields.batch_size,
      buckets=buckets,
      epochs=fields.epochs,
      seed=0,
    )
    tokens = fields.epochs * int(rows.lengths.sum())
    bucket_N = np.array(buckets)[batching.bucket_of(rows.lengths_N, buckets)]
    texts = rows.lengths.size // len(rows)
    total['tokens'] += tokens
    total['slots'] += round(tokens * batching.padding_ratio(rows, plan))
    total['slots_of_rows'] += fields.epochs * texts * int(bucket_N.sum())
  yield dict(total)


def study(*, config, folder):
  """Yields None when all is imported, then a study's outcome, for ever."""
  import rich.console

  import launch
  from w2s_jax import study as study_lib

  launch.keep_memory()
  launch.keep_compiled_programs()
  console = rich.console.Console(quiet=True)
  yield None
  for number in itertools.count():
    workdir = pathlib.Path(folder) / str(number)
    study_lib.run(config, workdir, console=console)
    (row,) = (workdir / 'results.jsonl').read_text().splitlines()
    yield json.loads(row)


def texts(*, config):
  """Yields {'weak': (texts, classes), ...} of the rows of a study."""
  from w2s_jax import study as study_lib

  evaluated, slices = study_lib.load_splits(
    config.task, config.data, seeds=config.seeds, num_transfer=1
  )
  weak, transfer = slices[config.seeds[0]]
  parts = {'weak': weak, 'transfer': transfer, **evaluated}
  yield {
    name: (list(x.inputs), x.label_probs_NxC.argmax(1).tolist())
    for name, x in parts.items()
  }


def probes(*, config, folder, sources):
  """Yields None, then 'once' and 'anew' in turn, each when it is done.

  A probe of the strong model learns labels of so many sources: from features
  that all of them share, or from features of its own.
  """
  import numpy as np
  import rich.console

  import launch
  from w2s_jax import checkpoint
  from w2s_jax import checks
  from w2s_jax import sharding
  from w2s_jax import stages
  from w2s_jax import starting_points
  from w2s_jax import study as study_lib
  from w2s_jax import weak_labels
  from w2s_jax import workdir

  launch.keep_memory()
  launch.keep_compiled_programs()
  mesh = sharding.make_mesh()
  evaluated, slices = study_lib.load_splits(
    config.task, config.data, seeds=(0,), num_transfer=1
  )
  rows = slices[0][1]
  evaluation = stages.Evaluation(
    splits=evaluated,
    max_length=config.data.max_length,
    num_buckets=config.data.num_buckets,
    measure=None,
  )
  spec = config.models.strong
  model = checks.build_model(spec, 'strong', config.task, config.data, mesh)
  everything = study_lib.union([*evaluated.values(), rows])

  def labels_of(source):
    """The truth, but for a share that is turned around."""
    turned_N = np.random.default_rng(source).random(len(rows)) < 0.3
    probs_NxC = rows.label_probs_NxC.copy()
    probs_NxC[turned_N] = probs_NxC[turned_N, ::-1]
    return weak_labels.Labels(rows.ids, probs_NxC, {'source': source})

  def learn(source, folder):
    runtime = workdir.Runtime(
      workdir=folder,
      mesh=mesh,
      console=rich.console.Console(quiet=True),
      eval_batch_size=config.eval_batch_size,
      checkpoint_every=config.checkpoint_every,
      tensorboard=False,
      num_stages=0,
    )
    lesson = stages.Lesson(
      name='probe',
      model=starting_points.features_stage(
        runtime, model=model, inputs=everything, evaluation=evaluation, seed=0
      ),
      fine_tuning=spec.adapt.probe.to_dict(),
      lora=None,
      loss='xent',
      loss_args={},
      seed=0,
      inputs=study_lib.without_truth(rows),
      labels=labels_of(source),
      judge=None,
    )
    stages.train_stages(runtime, [lesson], evaluation)

  folder = checkpoint.absolute(folder)
  learn(0, folder / 'compiles')
  yield None
  for turn in itertools.count():
    for source in range(sources):
      learn(source, folder / f'{turn}-once')
    yield 'once'
    for source in range(sources):
      learn(source, folder / f'{turn}-anew-{source}')
    yield 'anew'


# What JAX says it spends time on, before a program runs first.
_COMPILING = {
  '/jax/core/compile/jaxpr_trace_duration': 'tracing',
  '/jax/core/compile/jaxpr_to_mlir_module_duration': 'tracing',
  '/jax/core/compile/backend_compile_duration': 'compiling',
}


class _Reached(Exception):
  """Breaks off a program at the moment that was waited for."""


def start_up(*, command, started):
  """Runs experiments/main.py up to the metrics of its first training step.

  Yields CPU and wall seconds since the start of this process, and {what: wall
  seconds} of it, each moment counted for the innermost that it was spent on.

  Args:
    command: arguments of main.py. started: time.time() of the start.
  """
  import runpy
  import sys

  intervals = []
  main_started = time.time()
  intervals.append(('Python', started, main_started))
  import jax  # as main.py does when its flags are read

  from w2s_jax import checks
  from w2s_jax import logger
  from w2s_jax import models
  from w2s_jax import stages
  from w2s_jax import study as study_lib

  intervals.append(('imports', main_started, time.time()))

  def watch(module, name, what):
    function = getattr(module, name)

    def watched(*args, **kwargs):
      begun = time.time()
      try:
        return function(*args, **kwargs)
      finally:
        intervals.append((what, begun, time.time()))

    setattr(module, name, watched)

  watch(study_lib, 'load_splits', 'rows')
  watch(checks, 'build_model', 'models')
  watch(models, 'initial', 'weights')
  watch(stages, 'zero_shot_stage', 'zero-shot answers')

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
  folder = pathlib.Path(__file__).parent
  sys.argv = ['main.py', *command]
  try:
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
      runpy.run_path(str(folder / 'main.py'), run_name='__main__')
  except _Reached as reached:
    cpu, now = reached.args
  intervals.append(('the rest', started, now))
  parts = innermost(intervals, until=now)
  yield {'cpu': cpu, 'wall': now - started, 'wall seconds of': parts}


def innermost(intervals, *, until):
  """{what: seconds} of (what, start, end); the latest start has the moment."""
  seconds = collections.Counter()
  moments = sorted({min(t, until) for _, *ends in intervals for t in ends})
  for start, end in itertools.pairwise(moments):
    over = [x for x in intervals if x[1] <= start and x[2] >= end]
    if over:
      seconds[max(over, key=lambda x: x[1])[0]] += end - start
  return dict(seconds)
