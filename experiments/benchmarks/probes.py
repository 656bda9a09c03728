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
  import numpy as np
  import rich.console

  from experiments import command_line
  from w2s_jax import check_config
  from w2s_jax import checkpoint
  from w2s_jax import sharding
  from w2s_jax import stages
  from w2s_jax import starting_points
  from w2s_jax import study as study_lib
  from w2s_jax import weak_labels
  from w2s_jax.runtime import workdir

  command_line.keep_memory()
  command_line.keep_compiled_programs()
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
  model = check_config.build_model(
    spec, 'strong', config.task, config.data, mesh
  )
  everything = study_lib.union([*evaluated.values(), rows])

  def labels_of(source):
    """Returns ground truth with 30 % of the labels flipped."""
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
