"""Models in one vmapped, sharded step are what they would be alone."""

import jax
import numpy as np
import pytest
import rich.console

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import losses
from w2s_jax import population
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.runtime import logger

import tiny

BUCKETS = (8, 16)
EPOCHS = 3


def member(
  folder,
  mesh,
  *,
  seed,
  rate=1e-2,
  alpha=0.5,
  loss=losses.logconf,
  lora=None,
  frozen=None,
  logger_class=logger.Logger,
):
  """One of 24 rows of its own, 9 steps."""
  examples = tiny.rows(24, seed=seed)
  plan = batching.EpochPlan(
    examples.lengths_N, batch_size=8, buckets=BUCKETS, epochs=EPOCHS, seed=seed
  )
  trainable, own_frozen = adapt.split(
    tiny.random_params(tiny.network(), mesh, head=1.0),
    freeze='' if lora else '_embed/',
    lora=lora,
    seed=seed,
  )
  return dict(
    trainable=trainable,
    frozen=frozen or own_frozen,
    folder=folder,
    logger=logger_class(
      folder, console=rich.console.Console(quiet=True), is_primary=True
    ),
    rows=examples,
    plan=plan,
    recipe=tiny.RECIPE._replace(
      loss=loss,
      loss_args=(('alpha_max', alpha),) if loss is losses.logconf else (),
      total_steps=len(plan),
      learning_rate=rate,
    ),
    seed=seed,
    mesh=mesh,
    name=folder.name,
    watch=None,
    before_save=lambda: None,
    checkpoint_every=1000,
  )


def fit(members, **settings):
  """Alone by the loop of one model, else by that of a population."""
  members = [each | settings for each in members]
  if len(members) == 1:
    return [train.fit(model=tiny.network(), **members[0])]
  return population.fit(tiny.network(), members)


def assert_alike(trained, alone, atol=1e-4):
  """Of parameters that moved by 0.05."""

  def compare(path, x, y):
    # The softmax does not see the bias of keys: its gradient is zero but for
    # rounding, which AdamW makes as large as any.
    if not sharding.path_string(path).endswith('key/bias'):
      np.testing.assert_allclose(x, y, atol=atol, rtol=0)

  for one, other in zip(trained, alone, strict=True):
    jax.tree_util.tree_map_with_path(compare, one, other)


MEMBERS = (
  dict(seed=0),
  dict(seed=1, rate=3e-3, loss=losses.xent),
  dict(seed=2, alpha=0.9),
  dict(seed=2, rate=0.0),
)


def alone(folder, mesh, **fields):
  """Each of MEMBERS in a fit of its own: trained parameters, losses."""
  trained = [
    fit([member(folder / f'{i}', mesh, **each, **fields)])[0]
    for i, each in enumerate(MEMBERS)
  ]
  return trained, [logged_losses(folder / f'{i}') for i in range(len(MEMBERS))]


def logged_losses(folder):
  lines = tiny.metrics(folder)
  assert [line['step'] for line in lines] == list(range(9))
  return [line['train/loss'] for line in lines]


@pytest.fixture(scope='module')
def singles(tmp_path_factory):
  return alone(tmp_path_factory.mktemp('alone'), tiny.one_device())


@pytest.mark.parametrize(
  'sizes',
  [(1, 1, 1), pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)],
)
def test_members_are_what_they_are_alone(sizes, singles, tmp_path):
  devices = jax.devices()[: np.prod(sizes)]
  names = ('data', 'fsdp', 'tensor')
  mesh = sharding.make_mesh(**dict(zip(names, sizes)), devices=devices)
  members = [
    member(tmp_path / f'{i}', mesh, **each) for i, each in enumerate(MEMBERS)
  ]
  trained = fit(members)
  assert_alike(trained, singles[0])
  for i, expected in enumerate(singles[1]):
    np.testing.assert_allclose(
      logged_losses(tmp_path / f'{i}'), expected, atol=1e-5, rtol=1e-5
    )
  before = member(tmp_path / 'untrained', mesh, **MEMBERS[3])['trainable']
  assert_alike([trained[3]], [before], atol=0)  # a rate of zero


def test_members_are_spread_over_the_data_axis():
  mesh = sharding.make_mesh()
  wide = population.mesh_of(mesh, 4)
  assert dict(wide.shape) == dict(population=4, data=2, fsdp=1, tensor=1)
  assert population.mesh_of(mesh, 3).shape['population'] == 1
  trees = [{'head': {'kernel': np.full((4, 2), i)}} for i in range(4)]
  stacked = population.stack(wide, trees)
  kernel = stacked['head']['kernel']
  assert kernel.shape == (4, 4, 2)
  assert kernel.sharding.shard_shape(kernel.shape) == (1, 4, 2)
  for tree, again in zip(trees, population.unstack(mesh, stacked, size=4)):
    assert_alike([again], [tree], atol=0)


def test_a_common_frozen_part_is_held_once(tmp_path):
  mesh = tiny.one_device()
  lora = dict(rank=2, alpha=4.0, targets='attention/(query|value)/kernel')
  first = member(tmp_path / '0', mesh, seed=0, lora=lora)
  second = member(
    tmp_path / '1', mesh, seed=1, lora=lora, frozen=first['frozen']
  )
  apart = [
    fit([member(tmp_path / f'alone{seed}', mesh, seed=seed, lora=lora)])
    for seed in (0, 1)
  ]
  assert_alike(fit([first, second]), [trained for (trained,) in apart])


def test_a_population_resumes_to_the_same_bits(tmp_path):
  mesh = tiny.one_device()

  def members(folder, logger_class=logger.Logger):
    return [
      member(folder / f'{i}', mesh, **each, logger_class=logger_class)
      for i, each in enumerate(MEMBERS)
    ]

  stopping = tiny.stopping_logger(at_step=7)
  with pytest.raises(tiny.MachineLost):
    fit(members(tmp_path / 'ours', stopping), checkpoint_every=2)
  resumed = fit(members(tmp_path / 'ours'), checkpoint_every=2)
  whole = fit(members(tmp_path / 'theirs'), checkpoint_every=2)
  assert_alike(resumed, whole, atol=0)
  for i in range(len(MEMBERS)):
    assert logged_losses(tmp_path / f'ours/{i}') == logged_losses(
      tmp_path / f'theirs/{i}'
    )


def test_a_member_goes_on_alone(singles, tmp_path):
  """Its checkpoint is that of any model, whatever it was trained beside."""
  mesh = tiny.one_device()
  stopping = tiny.stopping_logger(at_step=7)
  pair = [
    member(tmp_path / f'{i}', mesh, **MEMBERS[i], logger_class=stopping)
    for i in range(2)
  ]
  with pytest.raises(tiny.MachineLost):
    fit(pair, checkpoint_every=3)
  assert {x.name for x in (tmp_path / '0/checkpoints').iterdir()} == {'3', '6'}
  again = [member(tmp_path / f'{i}', mesh, **MEMBERS[i]) for i in range(3)]
  # The third begins, so the first two go on beside each other without it.
  assert_alike(fit(again), singles[0][:3])


def test_a_study_of_seeds_side_by_side(tmp_path):
  """The same stages, by name and content, as one seed after the other."""
  together = tmp_path / 'together'
  tiny.run(
    together,
    devices=2,
    losses=('xent',),
    checkpoint_every=1000,
    seeds=(0, 1),
    population=2,
  )
  apart = tiny.xent_workdir()
  assert tiny.stage_names(together) == tiny.stage_names(apart)
  for name in tiny.stage_names(apart):
    for split in ('validation', 'test'):
      path = f'stages/{name}/predictions/{split}.npz'
      if (apart / path).exists():
        ours, theirs = tiny.arrays(together / path), tiny.arrays(apart / path)
        np.testing.assert_array_equal(ours['ids'], theirs['ids'])
        np.testing.assert_allclose(ours['probs'], theirs['probs'], atol=1e-5)
  assert len((together / 'results.jsonl').read_text().splitlines()) == 2
