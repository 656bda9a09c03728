"""Probes for ten label sources: features computed once or once per source."""

import itertools
import tempfile

import numpy as np

from experiments.benchmarks import own_process
from experiments.benchmarks import small_study
from experiments.benchmarks import table

SOURCES = 10


def rows(options, console):
  del console
  config, here = small_study.config_of(options.rows), own_process.on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    with own_process.Process(
      learn_all,
      pinned=here,
      config=config,
      folder=folder,
      sources=SOURCES,
    ) as process:
      process.next()
      turns = [(process.next(), process.next()) for _ in range(options.repeats)]
  once, anew = (
    np.array([taken.cpu if here else taken.wall for taken in side])
    for side in zip(*turns)
  )
  # once = features + n probes, anew = n features + n probes
  features = float(np.median(anew - once)) / (SOURCES - 1)
  probe = (float(np.median(once)) - features) / SOURCES
  yield table.Row(
    'f',
    f'{SOURCES} label sources, features made for each over made once',
    (anew / once).tolist(),
    'x',
    f'{np.median(anew):.1f} s over {np.median(once):.1f} s: features '
    f'{features:.1f} s, and each probe {probe:.1f} s with its evaluation',
    details={'once': once.tolist(), 'anew': anew.tolist()},
  )


def learn_all(*, config, folder, sources):
  """Yields None, then 'once' and 'anew' in turn, each when it is done.

  Trains a probe of the strong model per label source, on features that all
  share ('once') or that are computed for each ('anew').
  """
  import rich.console

  from experiments import command_line
  from w2s_jax import check_config
  from w2s_jax import checkpoint
  from w2s_jax import graph
  from w2s_jax import sharding
  from w2s_jax import study as study_lib
  from w2s_jax.runtime import workdir

  command_line.keep_memory()
  command_line.keep_compiled_programs()
  config.models.strong.adapt.method = 'probe'
  mesh = sharding.make_mesh()
  evaluated, slices = study_lib.load_splits(config)
  models = check_config.build_models(config, mesh)
  rows = slices[0].transfer[0]

  def describe(study):
    """Yields the stage of a probe for each label source."""
    for source in range(sources):
      labels = graph.Call(with_noise, (study_lib.truth(rows), source))
      yield study_lib.train(study, f'probe{source}', 'strong', rows, labels)

  (probes,) = study_lib.describe_seeds(
    config, models, evaluated, slices, describe
  ).values()

  def learn(source, folder):
    runtime = workdir.Runtime(
      workdir=folder,
      mesh=mesh,
      console=rich.console.Console(quiet=True),
      eval_batch_size=config.eval_batch_size,
      checkpoint_every=config.checkpoint_every,
    )
    graph.Runner(runtime).make(probes[source])

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


def with_noise(labels, source):
  """Flips 30 % of binary labels, chosen by the source."""
  flipped_N = np.random.default_rng(source).random(len(labels.ids_N)) < 0.3
  probs_NxC = labels.probs_NxC.copy()
  probs_NxC[flipped_N] = probs_NxC[flipped_N, ::-1]
  return labels._replace(probs_NxC=probs_NxC)
