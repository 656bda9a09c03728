"""The jitted training step and `fit`, the one loop of the project."""

import contextlib
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import batching
from w2s_jax import checkpoint as checkpoint_lib
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import sharding


class TrainState(flax.struct.PyTreeNode):
  """All that training changes; frozen parameters stand beside it."""

  step: jax.Array
  params: Any
  opt_state: Any


class Recipe(NamedTuple):
  """What a training step computes; equal recipes share one compiled step."""

  loss: str
  loss_args: tuple  # sorted (name, value) pairs
  total_steps: int
  learning_rate: float
  warmup: float  # share of all steps
  decay: str
  weight_decay: float
  clip_norm: float


@functools.lru_cache(maxsize=4)
def make_step(model, recipe, mesh):
  """Jitted (init_state, train_step) of a recipe on a mesh.

  init_state(params) -> TrainState
  train_step(state, frozen, batch, seed) -> (TrainState, metrics); the state
  is donated. Loss and metrics are weighted means over the global batch.
  """
  loss_fn = functools.partial(
    losses.LOSSES[recipe.loss], **dict(recipe.loss_args)
  )
  schedule = optimizer.make_schedule(
    peak=recipe.learning_rate,
    total_steps=recipe.total_steps,
    warmup=recipe.warmup,
    decay=recipe.decay,
  )
  tx = optimizer.make_optimizer(
    schedule, weight_decay=recipe.weight_decay, clip_norm=recipe.clip_norm
  )

  def placed(state):
    shardings = sharding.tree_sharding(mesh, state)
    return jax.lax.with_sharding_constraint(state, shardings)

  def init_state(params):
    step = jnp.zeros((), jnp.int32)
    return placed(TrainState(step, params, tx.init(params)))

  def train_step(state, frozen, batch, seed):
    dropout = jax.random.fold_in(jax.random.key(seed), state.step)
    labels, weight_R = model.targets(batch)  # [R, K], or class indices [R]

    def mean(x_R):
      return jnp.sum(x_R * weight_R) / jnp.maximum(jnp.sum(weight_R), 1)

    def mean_loss(params):
      logits_RxK = model.apply(
        {'params': optimizer.merge(params, frozen)},
        *(batch[name] for name in model.INPUTS),
        deterministic=model.config.dropout == 0,
        rngs={'dropout': dropout},
      )
      loss_R = loss_fn(
        logits_RxK,
        labels,
        weight_B=weight_R,
        step_fraction=state.step / recipe.total_steps,
      )
      label_R = labels if labels.ndim == 1 else jnp.argmax(labels, -1)
      return mean(loss_R), mean(jnp.argmax(logits_RxK, -1) == label_R)

    (loss, agreement), grads = jax.value_and_grad(mean_loss, has_aux=True)(
      state.params
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      'train/loss': loss,
      'train/label_agreement': agreement,
      'train/grad_norm': optax.global_norm(grads),
      'train/learning_rate': schedule(state.step),
    }
    return placed(TrainState(state.step + 1, params, opt_state)), metrics

  return jax.jit(init_state), jax.jit(train_step, donate_argnums=0)


def prepare(rows, fine_tuning, *, buckets, loss='xent', loss_args=(), seed):
  """Arguments of `fit` that follow from the `train` fields of a config."""
  recipe = dict(fine_tuning)
  freeze = recipe.pop('freeze')
  plan = batching.EpochPlan(
    rows.lengths_N,
    batch_size=recipe.pop('batch_size'),
    buckets=buckets,
    epochs=recipe.pop('epochs'),
    seed=seed,
  )
  recipe = Recipe(
    loss=loss, loss_args=loss_args, total_steps=len(plan), **recipe
  )
  return dict(rows=rows, plan=plan, recipe=recipe, freeze=freeze, seed=seed)


def fit(
  *,
  model,
  params,
  rows,
  plan,
  recipe,
  freeze,
  seed,
  mesh,
  folder,
  checkpoint_every,
  logger,
  name,
  snapshots=0,
):
  """Trains `params` on `rows` and returns the trained parameters.

  Resumes from `folder`/checkpoints to the same bits: the state, the place in
  the data and the log are taken up at the same step, and all randomness is a
  function of seed and step. `params` must not be used afterwards. With
  `snapshots`, parameters at so many moments, the end not among them, are left
  in `folder`/snapshots/<step>.

  Raises:
    FloatingPointError: the loss is not finite.
  """
  trainable, frozen = optimizer.partition(params, freeze=freeze)
  init_state, train_step = make_step(model, recipe, mesh)
  batches = batching.train_iterator(rows, plan)

  saving = contextlib.closing(checkpoint_lib.Training(folder / 'checkpoints'))
  kept = {
    recipe.total_steps * i // (snapshots + 1) for i in range(snapshots + 1)
  }
  with saving as checkpoints, jax.set_mesh(mesh):
    state = init_state(trainable)
    first_step = 0
    restored = checkpoints.restore(state)
    if restored:
      state, data_state = restored
      batches.set_state(data_state)
      first_step = int(state.step)
    logger.truncate(first_step)

    # The order below matters. A save comes before the next batch is drawn and
    # after every earlier step is logged; a step is dispatched before the
    # metrics of the one before it are read, so the device never waits.
    previous = None
    with logger.progress(
      stage=name, total_steps=recipe.total_steps, first_step=first_step
    ) as progress:
      for step in range(first_step, recipe.total_steps):
        if step in kept - {0}:
          checkpoint_lib.save_params(
            folder / 'snapshots' / str(step),
            optimizer.merge(state.params, frozen),
          )
        if step > first_step and step % checkpoint_every == 0:
          _log(*previous, logger, progress, name)
          previous = None
          logger.flush()
          checkpoints.save(step, state, batches.get_state())
        batch = next(batches)
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          state, metrics = train_step(
            state, frozen, sharding.place_batch(mesh, batch), seed
          )
        if previous:
          _log(*previous, logger, progress, name)
        previous = step, metrics, int(np.sum(batch['weight']))
      if previous:
        _log(*previous, logger, progress, name)
  logger.flush()
  return optimizer.merge(state.params, frozen)


def _log(step, metrics, examples, logger, progress, name):
  values = {key: float(value) for key, value in metrics.items()}
  if not np.isfinite(values['train/loss']):
    raise FloatingPointError(
      f'{name}: the loss is {values["train/loss"]} at step {step}; lower '
      'train.learning_rate or use dtype float32.'
    )
  logger.write(step, values)
  progress.update(step + 1, examples=examples, loss=values['train/loss'])
