"""The jitted training step and `fit`, the one loop of the project."""

import contextlib
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint as checkpoint_lib
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import preemption
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
  accumulate: int = 1  # pieces that a batch goes through the model in


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

    def logits_of(params, inputs, piece):
      """Float32 logits_RxK of (a piece of) the batch."""
      return model.apply(
        {'params': adapt.merge(params, frozen)},
        *inputs,
        deterministic=model.config.dropout == 0,
        rngs={'dropout': jax.random.fold_in(dropout, piece)},
      )

    def mean_loss(logits_RxK):
      loss_R = loss_fn(
        logits_RxK,
        labels,
        weight_B=weight_R,
        step_fraction=state.step / recipe.total_steps,
      )
      label_R = labels if labels.ndim == 1 else jnp.argmax(labels, -1)
      total = jnp.maximum(jnp.sum(weight_R), 1)
      right_R = jnp.argmax(logits_RxK, -1) == label_R
      return (
        jnp.sum(loss_R * weight_R) / total,
        jnp.sum(right_R * weight_R) / total,
      )

    (loss, agreement), grads = _value_and_grad(
      logits_of,
      mean_loss,
      state.params,
      [batch[name] for name in model.INPUTS],
      pieces=recipe.accumulate,
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


def _value_and_grad(logits_of, mean_loss, params, inputs, *, pieces):
  """((loss, agreement), gradients) of mean_loss(logits_of(params, inputs)).

  In more than one piece the activations of only one are in memory at a time,
  for the price of a second forward pass: first all logits, then the loss and
  its gradient by them, which are those of the whole batch whatever the loss is,
  and last each piece's share of the gradient by the parameters.
  """
  value_and_grad = functools.partial(jax.value_and_grad, has_aux=True)
  if pieces == 1:
    return value_and_grad(
      lambda params: mean_loss(logits_of(params, inputs, 0))
    )(params)

  def cut(x):
    """Of neighbouring rows each piece takes one, so all devices have work."""
    x = x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)
    return sharding.constrain_batch(x, axis=1)

  inputs = jax.tree.map(cut, inputs)
  numbers = jnp.arange(pieces)
  logits = jax.lax.map(lambda x: logits_of(params, *x), (inputs, numbers))
  # A row of the batch may be several rows of logits: the tokens of a text.
  in_pieces = (pieces, inputs[0].shape[1], -1, logits.shape[-1])
  logits_RxK = logits.reshape(in_pieces).swapaxes(0, 1)
  in_order = logits_RxK.shape
  values, grad_RxK = value_and_grad(mean_loss)(
    logits_RxK.reshape(-1, in_order[-1])
  )
  by_logits = grad_RxK.reshape(in_order).swapaxes(0, 1).reshape(logits.shape)

  def add(grads, piece):
    inputs, number, by_logits = piece
    _, pull_back = jax.vjp(lambda p: logits_of(p, inputs, number), params)
    return jax.tree.map(jnp.add, grads, *pull_back(by_logits)), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  grads, _ = jax.lax.scan(add, zeros, (inputs, numbers, by_logits))
  return values, grads


def prepare(rows, fine_tuning, *, buckets, loss='xent', loss_args=(), seed):
  """Arguments of `fit` that follow from the `train` fields of a config.

  But for `freeze`: which parameters train is a matter of adapt.py.
  """
  recipe = {k: v for k, v in fine_tuning.items() if k != 'freeze'}
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
  return dict(rows=rows, plan=plan, recipe=recipe, seed=seed)


def fit(
  *,
  model,
  trainable,
  frozen,
  rows,
  plan,
  recipe,
  seed,
  mesh,
  folder,
  checkpoint_every,
  logger,
  name,
  snapshots=0,
):
  """Trains what of a model is trainable (adapt.split), and returns it.

  Resumes from `folder`/checkpoints to the same bits: the state, the place in
  the data and the log are taken up at the same step, and all randomness is a
  function of seed and step. `trainable` must not be used afterwards. With
  `snapshots`, what is trainable at so many moments, the end not among them, is
  left in `folder`/snapshots/<step>.

  Raises:
    FloatingPointError: the loss is not finite.
    preemption.Preempted: the machine is taken away; a checkpoint is saved.
  """
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
            folder / 'snapshots' / str(step), state.params
          )
        stop = preemption.is_asked()
        if step > first_step and (stop or step % checkpoint_every == 0):
          if previous:
            _log(*previous, logger, progress, name)
          previous = None
          logger.flush()
          checkpoints.save(step, state, batches.get_state())
        if stop:
          raise preemption.Preempted(f'{name} stopped before step {step}')
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
  return state.params


def _log(step, metrics, examples, logger, progress, name):
  values = {key: float(value) for key, value in metrics.items()}
  if not np.isfinite(values['train/loss']):
    raise FloatingPointError(
      f'{name}: the loss is {values["train/loss"]} at step {step}; lower '
      'train.learning_rate or use dtype float32.'
    )
  logger.write(step, values)
  progress.update(step + 1, examples=examples, loss=values['train/loss'])
