"""A study of seconds for the tests, in this process or in one of its own."""

import dataclasses
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import rich.console

from configs import nlp
from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import losses
from w2s_jax import sharding
from w2s_jax import study
from w2s_jax import train
from w2s_jax.models import presets
from w2s_jax.models import stacking
from w2s_jax.models import text_heads
from w2s_jax.runtime import files as files_lib
from w2s_jax.runtime import lock
from w2s_jax.runtime import logger
from w2s_jax.tasks import synthetic

ROOT = pathlib.Path(__file__).parents[1]

# The debug config with one compiled shape and few steps.
FIELDS = {
  'seeds': (0,),
  'losses': ('logconf',),
  'checkpoint_every': 1000,
  'eval_batch_size': 32,
  'tracker': '',
  'data.max_length': 16,
  'data.num_buckets': 1,
  'data.splits.weak': 32,
  'data.splits.transfer': 64,
  'data.splits.validation': 32,
  'data.splits.test': 64,
  'models.weak.train.batch_size': 8,
  'models.weak.train.epochs': 2,
  'models.strong.train.batch_size': 8,
  'models.strong.train.epochs': 2,
}


MESH_STUDY = {
  'losses': ('xent',),
  'mesh.data': 2,
  'mesh.fsdp': 2,
  'mesh.tensor': 2,
}


def config(**fields):
  """The config of the tiny study; fields as {'a.b': value} change it."""
  c = nlp.get_config('debug')
  c.update_from_flattened_dict(FIELDS | {'data.source': source()} | fields)
  return c


@functools.cache
def source():
  """A file of 1,000 rows of the synthetic task, which is quick to read."""
  path = temporary_folder() / 'synthetic.jsonl'
  rows = synthetic.reviews(rows=1000)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  files_lib.write_atomically(path, text)
  return f'file:{path}'


def splits(seeds=(0,)):
  """Evaluated splits, and [weak half, transfer half] by seed."""
  evaluated, slices = study.load_splits(config(seeds=seeds))
  return evaluated, {s: [x.weak, *x.transfer] for s, x in slices.items()}


def run(workdir, *, devices=1, console=None, **fields):
  """Runs the study here, on some of the simulated devices; returns rows."""
  return study.run(
    config(**fields),
    workdir,
    console=console or rich.console.Console(quiet=True),
    devices=jax.devices()[:devices],
    as_frame=False,
  )


def start(workdir, *flags, stdout=subprocess.DEVNULL, env=None, **fields):
  """Starts experiments/main.py in a process of its own, on one device."""
  fields = FIELDS | {'data.source': source()} | fields
  values = [f'--config.{k}={v}' for k, v in fields.items()]
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'experiments' / 'main.py'),
      f'--config={ROOT}/configs/nlp.py:debug',
      f'--workdir={workdir}',
      *values,
      *flags,
    ],
    stdout=stdout,
    stderr=subprocess.PIPE,
    text=True,
    env=environment() | (env or {}),
  )


def start_together(workdir, count, *, devices=1, **fields):
  """Starts as many processes of one study, over loopback."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  return [
    start(
      workdir,
      f'--coordinator=127.0.0.1:{port}',
      f'--num_processes={count}',
      f'--process_id={i}',
      stdout=subprocess.PIPE,
      env={'JAX_NUM_CPU_DEVICES': str(devices)},
      **fields,
    )
    for i in range(count)
  ]


def finish(process):
  """Waits for a process of `start` and returns its stderr."""
  stderr = process.communicate(timeout=300)[1]
  assert process.returncode == 0, stderr
  return stderr


def temporary_folder():
  """One for all processes of the test session."""
  return pathlib.Path(os.environ['W2S_TESTS'])


def environment():
  """The processes of a session share what they compile."""
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'W2S_CACHE': str(temporary_folder() / 'cache'),
  }


def process_workdir():
  """Workdir of a study that ran in one process on one device."""
  workdir = temporary_folder() / 'process'
  with lock.hold(temporary_folder() / 'LOCK'):
    if not (workdir / 'report.html').exists():
      finish(start(workdir))
  return workdir


@functools.cache
def xent_workdir():
  """Workdir of a study of two seeds that was run here, on one device."""
  workdir = temporary_folder() / f'xent-{os.getpid()}'
  run(workdir, losses=('xent',), seeds=(0, 1))
  return workdir


@functools.cache
def mesh_workdir():
  """Workdir of the same study, of one seed, on a mesh with all three axes."""
  workdir = temporary_folder() / f'mesh-{os.getpid()}'
  run(workdir, devices=8, **MESH_STUDY)
  return workdir


def stage(workdir, role):
  """Folder of the one stage of this role with seed 0, such as 'weak'."""
  (folder,) = pathlib.Path(workdir).glob(f'stages/{role}-*-seed0-*')
  return folder


def stage_names(workdir):
  return {path.name for path in (pathlib.Path(workdir) / 'stages').iterdir()}


def files(folder):
  """{relative path: (time of its last change, content)}."""
  return {
    str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file()
  }


def assert_same_results(left, right):
  """Two folders of a stage agree in every bit of what was computed."""
  if (left / 'metrics.jsonl').exists():
    assert metrics(left) == metrics(right)
  if (left / 'config.json').exists():
    ours, theirs = (x / 'config.json' for x in (left, right))
    assert ours.read_text() == theirs.read_text()
  paths = [path.relative_to(left) for path in left.rglob('*.npz')]
  assert paths
  for path in paths:
    ours, theirs = arrays(left / path), arrays(right / path)
    for name in ours.keys() | theirs.keys():
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=str(path))
  if (left / 'params').exists():
    jax.tree.map(
      np.testing.assert_array_equal,
      checkpoint.load_params(left / 'params'),
      checkpoint.load_params(right / 'params'),
    )


def network(**fields):
  """A classifier of one small layer."""
  architecture = dataclasses.replace(
    presets.PRESETS['tiny-encoder'], **{'num_layers': 1} | fields
  )
  return text_heads.Classifier(architecture, num_classes=2)


@functools.cache
def _initializer(model, mesh):
  def init(key):
    one_row = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    params = model.init(key, *one_row)['params']
    noise_DxC = jax.random.normal(key, params['head']['kernel'].shape)
    return {**params, 'head': {'kernel': noise_DxC}}

  place = sharding.tree_sharding(mesh, jax.eval_shape(init, jax.random.key(0)))
  return jax.jit(init, out_shardings=place)


def random_params(model, mesh, *, head=0.0):
  """Parameters of `network` on a mesh; the head is zero unless scaled."""
  params = _initializer(model, mesh)(jax.random.key(0))
  return {**params, 'head': {'kernel': head * params['head']['kernel']}}


def rows(count, *, lengths=range(1, 17), seed=0):
  """Random token rows of random lengths, with soft labels."""
  rng = np.random.default_rng(seed)
  lengths_N = rng.choice(lengths, count)
  tokens = [rng.integers(1, 1024, n).astype(np.int32) for n in lengths_N]
  positive_N = rng.random(count, np.float32)
  return batching.Rows(tokens, np.stack([1 - positive_N, positive_N], 1))


def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


class MachineLost(Exception):
  """Of a stopping logger."""


def stopping_logger(at_step):
  """A class of loggers that break off training before they log a step."""

  class Stopping(logger.Logger):
    def write(self, step, values):
      if step == at_step:
        raise MachineLost
      super().write(step, values)

  return Stopping


RECIPE = train.Recipe(
  loss=losses.xent,
  loss_args=(),
  total_steps=0,  # filled in by `fit`
  learning_rate=1e-2,
  warmup=0.1,
  decay='linear',
  weight_decay=0.01,
  clip_norm=1.0,
)


def fit(
  folder,
  *,
  mesh,
  model=None,
  examples=None,
  buckets=(16,),
  batch_size=8,
  epochs=2,
  seed=0,
  freeze='',
  lora=None,
  checkpoint_every=1000,
  logger_class=logger.Logger,
  recipe=RECIPE,
  **settings,
):
  """train.fit on few rows; returns the trained params and the metrics."""
  model = model or network()
  examples = examples or rows(24)
  plan = batching.EpochPlan(
    examples.lengths_N,
    batch_size=batch_size,
    buckets=buckets,
    epochs=epochs,
    seed=seed,
  )
  parts = adapt.split(random_params(model, mesh), freeze=freeze, lora=lora)
  trainable, frozen = stacking.stack_parts(parts, model.config)
  trained = train.fit(
    model=model,
    trainable=trainable,
    frozen=frozen,
    folder=folder,
    logger=logger_class(
      folder, console=rich.console.Console(quiet=True), is_primary=True
    ),
    rows=examples,
    plan=plan,
    recipe=recipe._replace(total_steps=len(plan)),
    seed=seed,
    mesh=mesh,
    checkpoint_every=checkpoint_every,
    name='student',
    **settings,
  )
  return adapt.merge(trained, frozen), metrics(folder)


def metrics(folder):
  """Lines of the log of a stage, each with its step, without times."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [
    {
      name: value
      for name, value in json.loads(line).items()
      if name not in ('train/tokens_per_second', 'train/mfu')
    }
    for line in lines
  ]


def arrays(path):
  return files_lib.load_arrays(path)
