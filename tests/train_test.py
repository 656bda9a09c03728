import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import losses
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.runtime import chips
from w2s_jax.runtime import logger

import tiny

LOGCONF = (('alpha_max', 0.5), ('warmup', 0.2))


def leaves(params):
  return {
    sharding.path_string(path): np.asarray(x)
    for path, x in jax.tree_util.tree_leaves_with_path(params)
  }


@pytest.fixture(scope='module')
def mesh():
  return tiny.one_device()


def step_and_state(mesh, *, recipe, model=None):
  """The jitted step of a recipe, and a fresh state with a random head."""
  model = model or tiny.network()
  init_state, train_step = train.make_step(model, recipe, mesh)
  return train_step, init_state(tiny.random_params(model, mesh, head=1.0))


def test_losses_numbers_and_sizes_share_a_program(mesh, tmp_path):
  """Of two lengths, whatever the loss, its arguments, rate and epochs are."""

  def own(logits_BxC, labels_BxC, *, weight_B, step_fraction, scale=1.0):
    del weight_B, step_fraction
    return scale * jnp.sum((jax.nn.softmax(logits_BxC) - labels_BxC) ** 2, -1)

  recipe = tiny.RECIPE._replace(decay='constant')  # no other test's
  _, train_step = train.make_step(tiny.network(), recipe, mesh)

  def fit(name, epochs=4, **fields):
    _, metrics = tiny.fit(
      tmp_path / name,
      mesh=mesh,
      buckets=(8, 16),
      epochs=epochs,
      recipe=recipe._replace(**fields),
    )
    assert len(metrics) == 3 * epochs
    return metrics[-1]['train/loss']

  outcomes = [
    fit('xent'),
    fit('rate', learning_rate=3e-3, weight_decay=0.1, clip_norm=0.5),
    fit('warmup', warmup=0.5),
    fit('epochs', epochs=2),
    fit('logconf', loss=losses.logconf, loss_args=LOGCONF),
    fit('alpha', loss=losses.logconf, loss_args=(('alpha_max', 0.9),)),
  ]
  assert train_step._cache_size() == 2
  assert len(set(outcomes)) == len(outcomes)
  fit('own', loss=own)  # one more program, of its own
  fit('scale', loss=own, loss_args=(('scale', 2.0),))
  assert train_step._cache_size() == 2
  _, own_step = train.make_step(tiny.network(), recipe._replace(loss=own), mesh)
  assert own_step._cache_size() == 2


def test_nothing_compiles_after_the_first_epoch(mesh, tmp_path):
  steps, compiled = [], []
  event = '/jax/core/compile/backend_compile_duration'

  def listen(name, *_, **__):
    if name == event:
      compiled.append(len(steps))

  class Counting(logger.Logger):
    def write(self, step, values):
      steps.append(step)
      super().write(step, values)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    tiny.fit(
      tmp_path,
      mesh=mesh,
      buckets=(8, 16),
      epochs=4,
      recipe=tiny.RECIPE._replace(decay='cosine'),  # no other test's
      logger_class=Counting,
    )
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  # Three steps an epoch; a step is dispatched before the one before is logged.
  assert len(steps) == 12 and compiled and max(compiled) < 3


def test_parameters_are_donated_to_the_state(mesh):
  params = tiny.random_params(tiny.network(), mesh)
  init_state, _ = train.make_step(tiny.network(), tiny.RECIPE, mesh)
  state = init_state(params)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_state_is_donated(mesh):
  recipe = tiny.RECIPE._replace(total_steps=6)
  train_step, state = step_and_state(mesh, recipe=recipe)
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)
  with jax.set_mesh(mesh):
    train_step(
      state, {}, sharding.place_batch(mesh, batch), 0, recipe.numbers()
    )
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_trained_parameters_and_moments_are_held_once(mesh, tmp_path):
  def live():
    return sum(x.nbytes for x in jax.live_arrays())

  params = tiny.random_params(tiny.network(), mesh)
  size = sum(x.nbytes for x in jax.tree.leaves(params))
  del params
  before, held = live(), []

  class Weighing(logger.Logger):
    def write(self, step, values):
      held.append(live() - before)
      super().write(step, values)

  tiny.fit(tmp_path, mesh=mesh, logger_class=Weighing)
  assert 2.9 * size < max(held) < 3.3 * size  # parameters and two moments


def test_loss_goes_down(mesh, tmp_path):
  _, metrics = tiny.fit(tmp_path, mesh=mesh, epochs=4)
  assert [line['step'] for line in metrics] == list(range(12))
  losses = [line['train/loss'] for line in metrics]
  assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_every_parameter_moves(mesh, tmp_path):
  before = leaves(tiny.random_params(tiny.network(), mesh))
  after = leaves(tiny.fit(tmp_path, mesh=mesh)[0])
  assert before.keys() == after.keys()
  still = [name for name in before if np.array_equal(before[name], after[name])]
  assert not still


def test_bfloat16_parameters_train_as_float32_ones_do(mesh):
  """Updates and the decay of moments are below what bfloat16 resolves."""
  recipe = tiny.RECIPE._replace(
    total_steps=400, learning_rate=1e-5, decay='constant', weight_decay=0.0
  )
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)
  stored = tiny.random_params(
    tiny.network(param_dtype='bfloat16'), mesh, head=1.0
  )
  stored = jax.tree.map(np.asarray, stored)
  changes = {}
  for param_dtype in ('float32', 'bfloat16'):
    model = tiny.network(param_dtype=param_dtype)
    init_state, train_step = train.make_step(model, recipe, mesh)
    start, frozen = adapt.split(jax.tree.map(jnp.asarray, stored))
    before = leaves(start)
    state = init_state(start)
    with jax.set_mesh(mesh):
      placed = sharding.place_batch(mesh, batch)
      for _ in range(400):
        state, _ = train_step(state, frozen, placed, 0, recipe.numbers())
    assert all(
      x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state)
    )
    after = leaves(state.params)
    changes[param_dtype] = {k: after[k] - before[k] for k in after}
  for name, expected in changes['float32'].items():
    if name.endswith('key/bias'):
      continue  # its gradient is zero but for rounding
    size, other = np.linalg.norm(expected), changes['bfloat16'][name]
    assert np.linalg.norm(other) == pytest.approx(size, rel=0.01), name
    assert np.linalg.norm(other - expected) < 0.02 * size, name


def test_frozen_parameters_do_not_move(mesh, tmp_path):
  before = leaves(tiny.random_params(tiny.network(), mesh))
  params, _ = tiny.fit(tmp_path, mesh=mesh, freeze='_embed/|mlp/up')
  after = leaves(params)
  still = {name for name in before if np.array_equal(before[name], after[name])}
  assert still == {
    name for name in before if '_embed/' in name or 'mlp/up' in name
  }
  assert len(still) == 5


def test_equal_seeds_give_equal_bits_and_others_do_not(mesh, tmp_path):
  runs = [
    tiny.fit(tmp_path / str(i), mesh=mesh, seed=seed)
    for i, seed in enumerate((3, 3, 4))
  ]
  first, again, other = (leaves(params) for params, _ in runs)
  for name in first:
    np.testing.assert_array_equal(first[name], again[name])
  assert runs[0][1] == runs[1][1]
  head = 'head/kernel'
  assert not np.array_equal(first[head], other[head])


def test_dropout_changes_with_step_and_seed_only(mesh):
  recipe = tiny.RECIPE._replace(total_steps=6)
  model = tiny.network(dropout=0.5)
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)

  def loss(step, seed):
    train_step, state = step_and_state(mesh, recipe=recipe, model=model)
    state = state.replace(step=jax.numpy.int32(step))
    with jax.set_mesh(mesh):
      placed = sharding.place_batch(mesh, batch)
      return float(
        train_step(state, {}, placed, seed, recipe.numbers())[1]['train/loss']
      )

  assert loss(2, seed=0) == loss(2, seed=0)
  assert len({loss(2, seed=0), loss(3, seed=0), loss(2, seed=1)}) == 3


def test_resumes_to_the_same_bits_from_a_checkpoint(mesh, tmp_path):
  settings = dict(mesh=mesh, epochs=4, checkpoint_every=2)
  with pytest.raises(tiny.MachineLost):
    stopping = tiny.stopping_logger(at_step=7)
    tiny.fit(tmp_path / 'ours', logger_class=stopping, **settings)
  written = []

  class Recording(logger.Logger):
    def write(self, step, values):
      written.append(step)
      super().write(step, values)

  params, metrics = tiny.fit(
    tmp_path / 'ours', logger_class=Recording, **settings
  )
  assert written[0] == 6 and written[-1] == 11
  uninterrupted, whole = tiny.fit(tmp_path / 'theirs', **settings)
  assert metrics == whole
  ours, theirs = leaves(params), leaves(uninterrupted)
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name])


def test_loss_that_is_no_number_names_stage_and_step(mesh, tmp_path):
  examples = tiny.rows(24)
  examples.label_probs_NxC[5] = np.nan
  plan = batching.EpochPlan(
    examples.lengths_N, batch_size=8, buckets=(16,), epochs=2, seed=0
  )
  (bad, *_) = [step for step in range(len(plan)) if 5 in plan[step][0]]
  with pytest.raises(
    FloatingPointError, match=f'student: the loss is nan at step {bad};'
  ):
    tiny.fit(tmp_path, mesh=mesh, examples=examples)


@pytest.mark.parametrize('loss, args', [('xent', ()), ('logconf', LOGCONF)])
def test_padding_rows_change_nothing(loss, args, mesh):
  recipe = tiny.RECIPE._replace(
    total_steps=6, loss=losses.LOSSES[loss], loss_args=args
  )
  examples = tiny.rows(5)

  def one_step(batch_size):
    train_step, state = step_and_state(mesh, recipe=recipe)
    batch = batching.assemble(examples, np.arange(5), 16, batch_size=batch_size)
    # Rubbish in padding rows, which nothing may look at.
    batch['tokens'][5:] = 7
    batch['label_probs'][5:] = [[0.9, 0.1]]
    with jax.set_mesh(mesh):
      placed = sharding.place_batch(mesh, batch)
      state = state.replace(step=jax.numpy.int32(3))
      return train_step(state, {}, placed, 0, recipe.numbers())[1]

  real, padded = one_step(batch_size=5), one_step(batch_size=8)
  for name in real:  # the loss, and through the norm its gradients
    np.testing.assert_allclose(
      padded[name], real[name], rtol=1e-5, err_msg=name
    )


def test_wrong_freeze_and_decay_name_the_field(mesh, tmp_path):
  with pytest.raises(ValueError, match=re.escape("freeze='nothing'")):
    tiny.fit(tmp_path, mesh=mesh, freeze='nothing')
  recipe = tiny.RECIPE._replace(decay='sudden')
  with pytest.raises(ValueError, match=re.escape("decay='sudden'")):
    tiny.fit(tmp_path, mesh=mesh, recipe=recipe)


@pytest.mark.parametrize(
  'loss, sizes',
  [
    ('logconf', (1, 1, 1)),
    ('xent', (1, 1, 1)),
    ('xent', (2, 2, 2)),
    pytest.param('logconf', (2, 2, 2), marks=pytest.mark.slow),
  ],
)
def test_pieces_of_a_batch_give_the_gradient_of_the_whole(loss, sizes):
  """The threshold of logconf too is that of the whole batch."""
  devices = jax.devices()[: np.prod(sizes)]
  names = ('data', 'fsdp', 'tensor')
  mesh = sharding.make_mesh(**dict(zip(names, sizes)), devices=devices)
  recipe = tiny.RECIPE._replace(
    total_steps=6,
    loss=losses.LOSSES[loss],
    loss_args=LOGCONF if loss == 'logconf' else (),
  )
  # Two rows of padding, in pieces of their own size.
  batch = batching.assemble(tiny.rows(14), np.arange(14), 16, batch_size=16)
  results = []
  for pieces in (1, 4):
    recipe = recipe._replace(accumulate=pieces)
    step, state = step_and_state(mesh, recipe=recipe)
    state = state.replace(step=state.step + 3)  # when alpha has grown
    with jax.set_mesh(mesh):
      state, metrics = step(
        state, {}, sharding.place_batch(mesh, batch), 0, recipe.numbers()
      )
    results.append((leaves(state.opt_state), jax.tree.map(float, metrics)))
  (moments, metrics), (moments_4, metrics_4) = results
  assert metrics == pytest.approx(metrics_4, rel=1e-4)
  for name, moment in moments.items():
    np.testing.assert_allclose(
      moment, moments_4[name], atol=1e-6, rtol=1e-4, err_msg=name
    )


def timed_lines(folder):
  """Lines of metrics.jsonl, with times."""
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.parametrize('peak', [None, 1e12])
def test_tokens_per_second_and_utilization_of_a_known_chip(
  peak, mesh, tmp_path, monkeypatch
):
  monkeypatch.setattr(chips, 'peak_flops', lambda devices: peak)
  examples = batching.Rows(
    [np.ones(10, np.int32)] * 24, tiny.rows(24).label_probs_NxC
  )
  tiny.fit(tmp_path, mesh=mesh, examples=examples, epochs=3)
  first, *others = timed_lines(tmp_path)
  assert 'train/tokens_per_second' not in first  # its program was compiled
  assert len(others) == 8
  for line in others:
    seconds = 8 * 10 / line['train/tokens_per_second']  # without padding to 16
    assert 0 < seconds < 10
    assert ('train/mfu' in line) == (peak is not None)
    if peak:
      kernels = 8 * 16 * 32 * (4 * 32 + 2 * 64) + 8 * 32 * 2
      attention = 2 * 8 * 16 * 16 * 32
      flops = line['train/mfu'] * seconds * peak
      assert flops == pytest.approx(3 * 2 * (kernels + attention))


def test_steps_that_waited_for_a_compilation_have_no_speed(mesh, tmp_path):
  examples = tiny.rows(48, lengths=[4, 16])
  tiny.fit(tmp_path, mesh=mesh, examples=examples, buckets=(4, 16), epochs=1)
  known = ['train/tokens_per_second' in x for x in timed_lines(tmp_path)]
  assert known[-1] and not known[0]
