"""Training steps of accelerator.py: compiled, timed, and its rows."""

from concurrent import futures
import dataclasses
import functools
import time
from typing import Any
from typing import Callable
from typing import NamedTuple
import zlib

import jax
import numpy as np

from configs import base
from experiments.benchmarks import speed
from experiments.benchmarks import table
from experiments.plan import ahead
from w2s_jax import errors
from w2s_jax import losses
from w2s_jax import population
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.models import heads
from w2s_jax.models import presets
from w2s_jax.models import stacking
from w2s_jax.models import text_heads
from w2s_jax.runtime import chips

WINDOWS = 3
SMALL = dict(
  vocab_size=64, embed_dim=32, num_layers=1, num_heads=4, num_kv_heads=2
)


class Options(NamedTuple):
  """What all parts of accelerator.py read."""

  mesh: Any  # of one device
  small: bool
  deadline: float  # of time.monotonic, for the start of a compilation
  say: Callable  # prints a line


class Job(NamedTuple):
  """A training step to measure; one of many members is that of a population."""

  what: str
  config: presets.TransformerConfig
  batch: int  # rows of each member
  length: int
  members: int = 1

  @property
  def tokens(self):
    return self.members * self.batch * self.length

  @property
  def flops(self):
    """Of the matmuls of a forward and a backward pass, masked ones in full."""
    sizes = dict(batch=self.batch, length=self.length, num_classes=2)
    return 3 * self.members * speed.flops(speed.matmuls(self.config, **sizes))


class Program(NamedTuple):
  """A compiled training step."""

  step: Callable
  mesh: Any
  arguments: tuple  # their shapes
  seconds: float  # of tracing and compilation

  @property
  def memory(self):
    """Bytes of the arguments and of all temporary arrays."""
    stats = self.step.memory_analysis()
    return stats.argument_size_in_bytes + stats.temp_size_in_bytes


class Timed(NamedTuple):
  """A job as it was run in the end, and its times."""

  job: Job
  program: Program
  seconds: list  # a step, one for each window

  @property
  def median(self):
    return float(np.median(self.seconds))


def xl(options):
  """Yields rows of the full fine-tuning of GPT-2 XL."""
  first, *others = xl_jobs(options)
  yield from measured('a', options, [first], target=0.5)
  # The best matmul kernels are now known to the compiler, so programs that
  # compile side by side do not disturb each other's search for them.
  yield from measured('a', options, others)


def xl_jobs(options):
  """Returns the variants, the most important one first.

  Parameters, gradients and moments take 25 GB, and the saved activations of a
  row at most 3.3 GB with cuDNN and 6.8 GB with einsum, by the shapes of what
  the backward pass of a layer reads; fusion halves that.
  """
  stats = options.mesh.devices.flat[0].memory_stats() or {}
  large = stats.get('bytes_limit', 0) > 100e9
  batches = {  # on an H200, or a GPU of 80 GB
    ('cudnn', ''): (32, 12),
    ('cudnn', 'nothing_saveable'): (32, 12),
    ('einsum', ''): (16, 6),
    ('einsum', 'nothing_saveable'): (32, 12),
  }
  return [
    Job(
      f'GPT-2 XL, {kind}{", remat" if remat else ""}',
      config_of('gpt2-xl', options, attention=kind, remat=remat),
      batch=2 if options.small else on_large if large else on_small,
      length=16 if options.small else 512,
    )
    for (kind, remat), (on_large, on_small) in batches.items()
  ]


def smollm(options):
  """Yields rows of the full fine-tuning of SmolLM2-135M."""
  config = config_of('smollm2-135m', options)
  lengths = {8: 2, 16: 1} if options.small else {128: 256, 512: 64}
  jobs = [Job('SmolLM2-135M', config, n, m) for m, n in lengths.items()]
  yield from measured('c', options, jobs)


def population_of_16(options):
  """Yields the throughput of 16 models in one step over that of one alone."""
  sizes = dict(
    vocab_size=1024, embed_dim=320, num_layers=8, num_heads=5, mlp_dim=1280
  )
  config = config_of('gpt2', options, **sizes)
  batch, length = (2, 8) if options.small else (32, 128)
  job = Job('16 models', config, batch, length, members=16)
  together = timed(options, job, functools.partial(compiled, job, options))
  # With the batch and the attention of the population, if it had to change.
  job = together.job._replace(what='one model', members=1)
  alone = timed(options, job, functools.partial(compiled, job, options))
  for each in (together, alone):
    yield from rows_of('b', each, options)
  network = text_heads.Classifier(config, num_classes=2)
  size = sum(x.size for x in jax.tree.leaves(heads.parameter_shapes(network)))
  yield table.Row(
    'b',
    f'throughput of 16 models of {size / 1e6:.1f}M parameters side by side '
    f'over one, {job.batch} x {length} tokens each',
    [16 * alone.median / seconds for seconds in together.seconds],
    'x',
    f'{1 / together.median:,.1f} steps/s of all 16, {1 / alone.median:,.1f} of '
    'one alone',
    target=3.0,
    details={'together': together.seconds, 'alone': alone.seconds},
  )


def config_of(preset, options, **fields):
  """Returns a preset, shrunken if `options.small`."""
  fields = {'dtype': 'bfloat16', **fields}
  if options.small:
    fields |= SMALL | {'mlp_dim': 64}
  return dataclasses.replace(presets.PRESETS[preset], **fields)


def guarded(what, function, options, *args, **kwargs):
  """Yields what the function yields; an error is one line and its end."""
  try:
    yield from function(options, *args, **kwargs)
  except Exception as e:
    options.say(f'{what} left out: {reason(e)}')


def reason(error):
  text = ' '.join(str(error).split())
  return (
    text
    if isinstance(error, errors.UserError)
    else (f'{type(error).__name__}: {text[:300]}')
  )


def measured(part, options, jobs, target=None):
  """Yields rows; compiles all jobs side by side, then times each alone."""
  with futures.ThreadPoolExecutor(len(jobs)) as pool:
    programs = [pool.submit(compiled, job, options) for job in jobs]

  def outcome(options, job, program):
    yield from rows_of(
      part, timed(options, job, program.result), options, target
    )

  for job, program in zip(jobs, programs, strict=True):
    yield from guarded(job.what, outcome, options, job, program)


def timed(options, job, compile_job):
  """Returns Timed; tries a smaller batch, or einsum, if a step cannot run."""
  while True:
    try:
      program = compile_job()
      seconds = 0.01 if options.small else 1.5
      return Timed(job, program, seconds_per_step(job, program, seconds))
    except Exception as e:
      other = next_try(job, e)
      if other is None:
        raise
      options.say(f'{job.what}, {job.batch} rows: {reason(e)}; trying again')
    job = other  # here, where the error holds the memory of its step no more
    compile_job = functools.partial(compiled, job, options)


def next_try(job, error):
  """Returns the job to run in place of one that failed, or None."""
  if isinstance(error, errors.UserError):
    return None
  if 'RESOURCE_EXHAUSTED' in str(error):
    return job._replace(batch=job.batch // 2) if job.batch > 1 else None
  if job.config.attention == 'auto':
    config = dataclasses.replace(job.config, attention='einsum')
    return job._replace(what=f'{job.what}, einsum', config=config)
  return None


def compiled(job, options):
  """Returns the Program of a job; nothing is allocated.

  Raises:
    errors.UserError: it is too late to start.
  """
  started = time.monotonic()
  if started > options.deadline:
    raise errors.UserError('--limit is over.')
  network = text_heads.Classifier(job.config, num_classes=2)
  mesh, recipe = options.mesh, recipe_of()
  init_state, step = train.make_step(network, recipe, mesh)
  with jax.set_mesh(mesh):
    shapes = stacking.stack(heads.parameter_shapes(network), job.config)
    state = jax.eval_shape(init_state, shapes)
  arguments = (
    ahead.placed(mesh, state, field=job.what),
    {},
    ahead.batch_of(network, job.length, mesh, job.batch),
    0,
    recipe.numbers(),
  )
  if job.members > 1:
    mesh = population.mesh_of(mesh, job.members)
    step = population.make_step(network, recipe.program(), mesh, True)
    arguments = stacked(mesh, arguments, job.members)
  with jax.set_mesh(mesh):
    step = step.lower(*arguments).compile()
  return Program(step, mesh, arguments, time.monotonic() - started)


def recipe_of():
  """Returns the default recipe of a study, as train.Recipe."""
  fields = base.fine_tuning(learning_rate=1e-4, epochs=1, batch_size=1)
  fields = {
    name: value
    for name, value in fields.items()
    if name not in ('epochs', 'batch_size', 'freeze')
  }
  return train.Recipe(
    loss=losses.xent, loss_args=(), total_steps=1_000_000, **fields
  )


def stacked(mesh, arguments, members):
  """Returns shapes with a first axis of members, on a population's mesh."""

  def stack(x):
    if not isinstance(x, jax.ShapeDtypeStruct):
      return np.stack([x] * members)
    place = jax.NamedSharding(mesh, jax.P(mesh.axis_names[0], *x.sharding.spec))
    return jax.ShapeDtypeStruct((members, *x.shape), x.dtype, sharding=place)

  return jax.tree.map(stack, arguments)


def seconds_per_step(job, program, seconds):
  """Returns the seconds of a step, one for each of WINDOWS windows.

  Args:
    job: of the program.
    program: of `compiled`.
    seconds: about those of a window.

  Raises:
    FloatingPointError: the loss is not finite.
  """
  state, frozen, batch, *rest = program.arguments
  state = jax.tree_util.tree_map_with_path(initial, state)
  batch = batch_of(job, batch)
  windows, steps = [], 1
  for window in range(-2, WINDOWS):  # the first two warm up and set `steps`
    started = time.perf_counter()
    for _ in range(steps):
      state, metrics = program.step(state, frozen, batch, *rest)
    jax.block_until_ready((state, metrics))
    windows.append((time.perf_counter() - started) / steps)
    if window == -1:
      steps = max(3, min(200, round(seconds / windows[-1])))
  if not np.isfinite(metrics['train/loss']).all():
    raise FloatingPointError(f'the loss is {metrics["train/loss"]}')
  return windows[2:]


def initial(path, x):
  """Returns the initial value of an array of a train state, on its device."""
  name = sharding.path_string(path)
  if name.startswith('params/') and name.endswith(('kernel', 'embedding')):
    return _normal(x.shape, x.sharding)(
      jax.random.key(zlib.crc32(name.encode()))
    )
  value = float(name.startswith('params/') and name.endswith('scale'))
  return jax.numpy.full(x.shape, value, x.dtype, device=x.sharding)


@functools.cache
def _normal(shape, place):
  def draw(key):
    return 0.02 * jax.random.normal(key, shape)

  return jax.jit(draw, out_shardings=place)


def batch_of(job, shapes):
  """Returns a batch of random tokens and labels; no row is padded."""
  rng = np.random.default_rng(0)
  label_shape = shapes['label_probs'].shape
  arrays = {
    'tokens': rng.integers(1, job.config.vocab_size, shapes['tokens'].shape),
    'length': np.full(shapes['length'].shape, job.length),
    'label_probs': rng.dirichlet([1, 1], label_shape[:-1]),
    'weight': np.ones(shapes['weight'].shape),
  }
  return {
    name: jax.device_put(arrays[name].astype(x.dtype), x.sharding)
    for name, x in shapes.items()
  }


def rows_of(part, outcome, options, target=None):
  """Yields tokens/s of a step and, where the peak of the chip is known, MFU."""
  job, seconds = outcome.job, np.array(outcome.seconds)
  what = f'{job.what}, {job.batch} x {job.length} tokens'
  bound = (
    f'{1e3 * outcome.median:,.1f} ms a step, '
    f'{job.flops / outcome.median / 1e12:,.2f} TFLOP/s; needs '
    f'{outcome.program.memory / 1e9:.1f} GB, compiled in '
    f'{outcome.program.seconds:.0f} s'
  )
  details = {
    'tokens': job.tokens,
    'flops': job.flops,
    'seconds': outcome.seconds,
    'bytes': outcome.program.memory,
    'seconds_of_compilation': outcome.program.seconds,
    'attention': job.config.attention,
    'remat': job.config.remat,
  }
  yield table.Row(
    part,
    what,
    (job.tokens / seconds).tolist(),
    'tokens/s',
    bound,
    details=details,
  )
  chip = chips.chip_of(options.mesh.devices.flat[0].device_kind)
  if chip is not None:
    yield table.Row(
      part,
      f'MFU of {what}',
      (job.flops / seconds / chip.flops).tolist(),
      '%',
      f'of {chip.flops / 1e12:,.0f} TFLOP/s',
      target=target,
      details=details,
    )
