"""A model against the matmuls it is made of: part a of benchmark.py.

Shapes as in w2s_jax/transformer.py.
"""

import collections
import math
import re
import time


def matmuls(config, *, batch, length, num_classes):
  """Those of a forward pass: {(einsum, size of each index): how many}.

  Attention counts whole, masked or not; a lookup
  in a table counts nothing.
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
  """Of all matmuls of `matmuls`."""
  return sum(
    times * 2 * math.prod(dict(sizes).values())
    for (_, sizes), times in count.items()
  )


def peak(turn):
  """FLOP/s of the fastest matmul of a turn."""
  return max(
    flops({name: 1}) / seconds
    for name, seconds in turn.items()
    if isinstance(name, tuple)
  )


def alone(count, turn):
  """Seconds of all matmuls of both passes, each as long as by itself."""
  return sum(
    times * turn[einsum, sizes]
    for (forward, sizes), times in count.items()
    for einsum in with_gradients(forward)
  )


def with_gradients(einsum):
  """A matmul, and those that its two gradients are."""
  left, right, out = re.split(',|->', einsum)
  return einsum, f'{out},{right}->{left}', f'{left},{out}->{right}'


def speed(*, preset, dtype, batch, length, seconds=0.1):
  """Yields what is measured, then {name: seconds a call}, for ever.

  By name: 'forward + backward', 'train step' and each matmul, (einsum, sizes).
  A batch of 0 is the largest power of two that fits an accelerator, or 32.
  """
  import jax
  import jax.numpy as jnp

  import launch
  from w2s_jax import sharding

  launch.keep_memory()
  launch.keep_compiled_programs()
  device = jax.devices()[0]
  mesh = sharding.make_mesh(devices=[device])
  on_cpu = device.platform == 'cpu'
  clock = time.process_time if on_cpu else time.perf_counter

  def counted(call):
    """(call, how many times it fits the seconds)"""
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
      lambda size: _model_calls(preset, dtype, size, length, mesh, counted),
      [batch]
      if batch
      else [32]
      if on_cpu
      else [2**i for i in range(8, -1, -1)],
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
  """(.., size, ..) of the first size whose make does not run out of memory."""
  import jax

  for size in sizes:
    try:
      made = make(size)
      return made[0], size, made[1]
    except jax.errors.JaxRuntimeError as e:
      if 'RESOURCE_EXHAUSTED' not in str(e) or size == sizes[-1]:
        raise


def populations(*, preset, dtype, batch, length, sizes):
  """Yields None, then {size: seconds of a training step}, for ever.

  Of so many models of a preset, each with a batch of its own, side by side.
  """
  import jax

  import launch
  from w2s_jax import population
  from w2s_jax import sharding
  from w2s_jax import train

  launch.keep_memory()
  launch.keep_compiled_programs()
  one_device = sharding.make_mesh(devices=jax.devices()[:1])
  on_cpu = one_device.devices.flat[0].platform == 'cpu'
  clock = time.process_time if on_cpu else time.perf_counter
  network, params, arrays, recipe = _model(
    preset, dtype, batch, length, one_device
  )

  def step_of(size):
    mesh = population.mesh_of(one_device, size)
    init_state, train_step = train.make_step(network, recipe, mesh, size=size)
    with jax.set_mesh(mesh):
      state = init_state(population.stack(mesh, [params] * size))
    arguments = (
      {},
      population.place_batch(mesh, [arrays] * size),
      population.stack_numbers(list(range(size))),
      population.stack_numbers([recipe.numbers()] * size),
    )

    def step():
      nonlocal state
      with jax.set_mesh(mesh):
        state, metrics = train_step(state, *arguments)
      jax.block_until_ready((state, metrics))

    step()
    return step

  steps = {size: step_of(size) for size in sizes}
  yield None
  while True:
    seconds = {}
    for size, step in steps.items():
      started = clock()
      step()
      seconds[size] = clock() - started
    yield seconds


def _model(preset, dtype, batch, length, mesh):
  """(network, its parameters, arrays of a batch on the host, recipe)."""
  import jax
  import numpy as np

  from configs import base
  from w2s_jax import checks
  from w2s_jax import train

  spec = base.model(preset, weights=f'random:{preset}', batch_size=batch)
  spec.dtype = dtype
  data = base.get_config().data
  data.max_length = length
  model = checks.build_model(spec, preset, 'synthetic', data, mesh)
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
    loss='xent', loss_args=(), total_steps=1_000_000, **recipe
  )
  return model.network, params, arrays, recipe


def _model_calls(preset, dtype, batch, length, mesh, counted):
  """(its architecture, {name: counted call}) of the real step and its parts."""
  import jax

  from w2s_jax import losses
  from w2s_jax import sharding
  from w2s_jax import train

  network, params, arrays, recipe = _model(preset, dtype, batch, length, mesh)
  arrays = sharding.place_batch(mesh, arrays)
  inputs = [arrays[name] for name in network.INPUTS]
  init_state, train_step = train.make_step(network, recipe, mesh)
  state, numbers = init_state(params), recipe.numbers()

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
