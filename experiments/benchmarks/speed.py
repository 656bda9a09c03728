"""Compares forward and backward passes of a model with matmuls.

Shapes as in w2s_jax/models/transformer.py.
"""

import collections
import math
import os
import re
import time

import numpy as np

from experiments.benchmarks import own_process
from experiments.benchmarks import table


def rows(options, console):
  del console
  with own_process.Process(
    measure,
    pinned=own_process.on_cpu(),
    preset=options.preset,
    dtype=options.dtype,
    matmul_dtype=options.matmul_dtype,
    batch=options.batch,
    length=options.length,
  ) as measured:
    setting = measured.next().value
    turns = [measured.next().value for _ in range(3 * options.repeats)]
  work = 3 * flops(setting['count'])
  tokens = setting['batch'] * options.length

  def middle(number_of):
    return float(np.median([number_of(turn) for turn in turns]))

  fastest = middle(peak)
  in_matmuls = middle(lambda t: alone(setting['count'], t))
  both = middle(lambda t: t['forward + backward'])
  step = middle(lambda t: t['train step'])
  shapes = f'{options.preset}, {setting["batch"]} x {options.length} tokens'
  bounds = {
    'forward + backward': (
      f'{tokens / both:,.0f} tokens/s, {work / both / 1e9:,.0f} of '
      f'{fastest / 1e9:,.0f} GFLOP/s. Its matmuls, each alone, would take '
      f'{in_matmuls / both:.0%} of the time, at '
      f'{work / in_matmuls / fastest:.0%} of the peak; the rest is softmax, '
      'norms, activations and copies'
    ),
    'train step': (
      f'{tokens / step:,.0f} tokens/s. {1 - both / step:.0%} of it is clipping '
      'and AdamW, of all parameters'
    ),
  }
  # Matmuls of bfloat16 may be faster than the peak of those of float32.
  target = 1.0 if options.matmul_dtype else 0.65
  targets = {'forward + backward': target if setting['on_cpu'] else 0.5}
  rounded = f', {options.matmul_dtype} matmuls' if options.matmul_dtype else ''
  for name, bound in bounds.items():
    yield table.Row(
      'a',
      f'{name} of {shapes}, {options.dtype}{rounded}, to the matmul peak',
      [work / turn[name] / peak(turn) for turn in turns],
      '%',
      bound,
      target=targets.get(name),
      details={
        'device': setting['device'],
        'flops_of_forward_and_backward': work,
        'tokens': tokens,
        'flops_per_second_of_peak': fastest,
        'seconds': {'forward + backward': both, 'train step': step},
        'seconds_of_matmuls_alone': in_matmuls,
      },
    )


def matmuls(config, *, batch, length, num_classes):
  """Returns {(einsum, size of each index): count} of a forward pass.

  Masked attention counts in full; embedding lookups do not count.
  """
  count = collections.Counter()
  heads = config.num_heads * config.head_width
  kv_heads = config.kv_heads * config.head_width

  def dense(num_in, num_out, times, rows=batch * length):
    count['ti,io->to', (('t', rows), ('i', num_in), ('o', num_out))] += times

  layers = config.num_layers
  dense(config.embed_dim, heads, layers)
  dense(config.embed_dim, kv_heads, 2 * layers)
  dense(heads, config.embed_dim, layers)
  dense(config.embed_dim, config.mlp_dim, (1 + config.gated) * layers)
  dense(config.mlp_dim, config.embed_dim, layers)
  dense(config.embed_dim, num_classes, 1, rows=batch)
  queries = config.num_heads // config.kv_heads * length
  sizes = dict(b=batch, g=config.kv_heads, q=queries, m=length)
  sizes = *sizes.items(), ('k', config.head_width)
  count['bgqk,bgmk->bgqm', sizes] += layers
  count['bgqm,bgmk->bgqk', sizes] += layers
  return +count


def flops(count):
  """Returns floating-point operations of the result of `matmuls`."""
  return sum(
    times * 2 * math.prod(dict(sizes).values())
    for (_, sizes), times in count.items()
  )


def peak(turn):
  """Returns FLOP/s of the fastest matmul of a turn."""
  return max(
    flops({name: 1}) / seconds
    for name, seconds in turn.items()
    if isinstance(name, tuple)
  )


def alone(count, turn):
  """Returns seconds of the matmuls of both passes, each timed alone."""
  return sum(
    times * turn[einsum, sizes]
    for (forward, sizes), times in count.items()
    for einsum in with_gradients(forward)
  )


def with_gradients(einsum):
  """Returns the einsums of a matmul and of its two gradients."""
  left, right, out = re.split(',|->', einsum)
  return einsum, f'{out},{right}->{left}', f'{left},{out}->{right}'


def measure(*, preset, dtype, matmul_dtype='', batch, length, seconds=0.1):
  """Yields the setting, then {name: seconds per call} endlessly.

  By name: 'forward + backward', 'train step' and each matmul, (einsum, sizes).
  A batch of 0 is the largest power of two up to 64 that fits an
  accelerator, and 32 on a CPU.
  """
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')  # of a GPU
  import jax
  import jax.numpy as jnp

  from experiments import command_line
  from w2s_jax import sharding

  command_line.keep_memory()
  command_line.keep_compiled_programs()
  device = jax.devices()[0]
  mesh = sharding.make_mesh(devices=[device])
  on_cpu = device.platform == 'cpu'
  clock = time.process_time if on_cpu else time.perf_counter

  def counted(call):
    """Returns (call, number of calls that take about `seconds`)."""
    jax.block_until_ready(call())
    started = clock()
    jax.block_until_ready(call())
    return call, max(1, round(seconds / (clock() - started)))

  def timed(call, times):
    started = clock()
    for _ in range(times):
      out = call()
    jax.block_until_ready(out)
    return (clock() - started) / times

  def matmul(einsum, sizes):
    operands = [
      jax.random.normal(
        jax.random.key(i), [dict(sizes)[x] for x in indices], dtype
      )
      for i, indices in enumerate(einsum.partition('->')[0].split(','))
    ]
    product = jax.jit(lambda *xs: jnp.einsum(einsum, *xs))
    return lambda: product(*operands)

  with jax.set_mesh(mesh):
    config, batch, calls = largest(
      lambda size: _model_calls(
        model_of(preset, dtype, size, length, mesh, matmul_dtype), mesh, counted
      ),
      [batch]
      if batch
      else [32]
      if on_cpu
      else [2**i for i in range(6, -1, -1)],
    )
    count = matmuls(config, batch=batch, length=length, num_classes=2)
    squares = (1024, 2048) if on_cpu else (4096, 8192, 16384)
    shapes = [
      *(('ti,io->to', tuple((x, n) for x in 'tio')) for n in squares),
      *((e, sizes) for einsum, sizes in count for e in with_gradients(einsum)),
    ]
    for shape in shapes:
      calls[shape] = counted(matmul(*shape))
    yield {
      'device': device.device_kind,
      'on_cpu': on_cpu,
      'batch': batch,
      'count': dict(count),
    }
    while True:
      yield {name: timed(*call) for name, call in calls.items()}


def largest(make, sizes):
  """Returns (architecture, size, calls) of the first size that fits."""
  import jax

  for size in sizes:
    try:
      made = make(size)
      return made[0], size, made[1]
    except jax.errors.JaxRuntimeError as e:
      if 'RESOURCE_EXHAUSTED' not in str(e) or size == sizes[-1]:
        raise


def _model_calls(model, mesh, counted):
  """Returns (architecture, {name: counted call}) of the training step."""
  import jax

  from w2s_jax import losses
  from w2s_jax import sharding
  from w2s_jax import train

  network, params, arrays, recipe = model
  arrays = sharding.place_batch(mesh, arrays)
  inputs = [arrays[name] for name in network.INPUTS]
  init_state, train_step = train.make_step(network, recipe, mesh)
  state = init_state(jax.tree.map(jax.numpy.copy, params))
  numbers = recipe.numbers()

  @jax.jit
  @jax.grad
  def gradients(params, inputs, labels_BxC):
    logits_BxC = network.apply({'params': params}, *inputs)
    loss_B = losses.xent(
      logits_BxC, labels_BxC, weight_B=None, step_fraction=0.0
    )
    return loss_B.mean()

  def step():
    nonlocal state
    state, metrics = train_step(state, {}, arrays, 0, numbers)
    return metrics

  return network.config, {
    'forward + backward': counted(
      lambda: gradients(state.params, inputs, arrays['label_probs'])
    ),
    'train step': counted(step),
  }


def model_of(preset, dtype, batch, length, mesh, matmul_dtype=''):
  """Returns (network, parameters, host arrays of a batch, recipe)."""
  import jax
  import numpy as np

  from configs import base
  from w2s_jax import check_config
  from w2s_jax import losses
  from w2s_jax import train

  spec = base.model(preset, weights=f'random:{preset}', batch_size=batch)
  spec.dtype, spec.matmul_dtype = dtype, matmul_dtype
  data = base.get_config().data
  data.max_length = length
  model = check_config.build_model(spec, preset, 'synthetic', data, mesh)
  rng = np.random.default_rng(0)
  vocab_size = model.network.config.vocab_size
  arrays = {
    'tokens': rng.integers(1, vocab_size, (batch, length), np.int32),
    'length': np.full(batch, length, np.int32),
    'label_probs': rng.dirichlet([1, 1], batch).astype(np.float32),
    'weight': np.ones(batch, np.float32),
  }
  params = model.init(mesh, 0)
  # A head of zeros would make all gradients of the trunk zero.
  head_DxC = params['head']['kernel']
  params['head'] = {
    'kernel': jax.random.normal(jax.random.key(0), head_DxC.shape)
  }
  recipe = {
    k: v
    for k, v in spec.train.items()
    if k not in ('epochs', 'batch_size', 'freeze')
  }
  recipe = train.Recipe(
    loss=losses.xent, loss_args=(), total_steps=1_000_000, **recipe
  )
  return model.network, params, arrays, recipe
