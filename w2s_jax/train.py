"""The jitted training step and `fit`, the one loop of the project."""

import collections
import contextlib
import functools
from typing import Any
from typing import NamedTuple

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
from w2s_jax import population
from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import preemption


class TrainState(flax.struct.PyTreeNode):
  """All that training changes; frozen parameters stand beside it."""

  step: jax.Array
  params: Any
  opt_state: Any


class Recipe(NamedTuple):
  """What a training step computes."""

  loss: str
  loss_args: tuple  # sorted (name, value) pairs
  total_steps: int
  learning_rate: float
  warmup: float  # share of all steps
  decay: str
  weight_decay: float
  clip_norm: float
  accumulate: int = 1  # pieces that a batch goes through the model in

  def numbers(self):
    """What is an argument of the compiled step, so that any value will do."""
    fields = {name: getattr(self, name) for name in _NUMBERS}
    fields['loss_args'] = {k: v for k, v in self.loss_args if _is_number(v)}
    return jax.tree.map(np.float32, fields)

  def program(self):
    """What is compiled: recipes equal in this share a step, or a population."""
    loss_args = tuple(
      (name, 0.0 if _is_number(value) else value)
      for name, value in self.loss_args
    )
    zeros = dict.fromkeys(_NUMBERS, 0.0)
    return self._replace(loss_args=loss_args, **zeros)


_NUMBERS = ('learning_rate', 'weight_decay')


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


class Member(NamedTuple):
  """One model to train, and what on; the last five are those of `prepare`."""

  trainable: Any  # of adapt.split; must not be used afterwards
  frozen: Any
  folder: Any  # for checkpoints/ and snapshots/
  logger: Any
  rows: batching.Rows
  plan: batching.EpochPlan
  recipe: Recipe
  seed: int


def make_step(model, recipe, mesh, *, size=1, share_frozen=True):
  """Jitted (init_state, train_step) of a recipe on a mesh.

  init_state(params) -> TrainState
  train_step(state, frozen, batch, seed, numbers) -> (TrainState, metrics);
  `numbers` are those of the recipe, the state is donated. Loss and metrics are
  weighted means over the global batch. For a population of more than one
  (population.py) all arrays have an axis of members, but for frozen parameters
  that they share.
  """
  return _make_step(model, recipe.program(), mesh, size, share_frozen)


@functools.lru_cache(maxsize=8)
def _make_step(model, program, mesh, size, share_frozen):
  loss_args = dict(program.loss_args)

  def optimizer_of(numbers):
    schedule = optimizer.make_schedule(
      peak=numbers['learning_rate'],
      total_steps=program.total_steps,
      warmup=program.warmup,
      decay=program.decay,
    )
    tx = optimizer.make_optimizer(
      schedule,
      weight_decay=numbers['weight_decay'],
      clip_norm=program.clip_norm,
    )
    return tx, schedule

  def placed(state):
    shardings = sharding.tree_sharding(mesh, state)
    return jax.lax.with_sharding_constraint(state, shardings)

  def init_state(params):
    tx, _ = optimizer_of(program.numbers())
    step = jnp.zeros((), jnp.int32)
    return placed(TrainState(step, params, tx.init(params)))

  def train_step(state, frozen, batch, seed, numbers):
    loss_fn = functools.partial(
      losses.LOSSES[program.loss], **loss_args | numbers['loss_args']
    )
    tx, schedule = optimizer_of(numbers)
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
        step_fraction=state.step / program.total_steps,
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
      pieces=program.accumulate,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      'train/loss': loss,
      'train/label_agreement': agreement,
      'train/grad_norm': optax.tree.norm(grads),
      'train/learning_rate': schedule(state.step),
    }
    return placed(TrainState(state.step + 1, params, opt_state)), metrics

  init_state = population.over_members(init_state, size)
  step_of_all = population.over_members(
    train_step, size, shared=(1,) if share_frozen else ()
  )

  def readable_step(*args):
    state, metrics = step_of_all(*args)
    return state, jax.lax.with_sharding_constraint(
      metrics, sharding.replicated(mesh)
    )

  return jax.jit(init_state), jax.jit(readable_step, donate_argnums=0)


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
  """The fields of a Member that follow from the `train` fields of a config.

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


def fit(*, model, members, mesh, checkpoint_every, name, snapshots=0):
  """Trains what of a model is trainable, for each member; returns it as a list.

  Members of one program train side by side in one step, as a population, to
  what each would be alone but for rounding; the others one after the other.

  Resumes from a member's `folder`/checkpoints: the state, the place in the data
  and the log are taken up at the same step, and all randomness is a function of
  seed and step, so that the outcome is the same to the bit. With `snapshots`,
  what is trainable at so many moments, the end not among them, is left in
  `folder`/snapshots/<step>.

  Raises:
    FloatingPointError: the loss is not finite.
    preemption.Preempted: the machine is taken away; a checkpoint is saved.
  """
  trained = [None] * len(members)
  with contextlib.ExitStack() as opened:
    checkpoints = [
      opened.enter_context(
        contextlib.closing(checkpoint_lib.Training(m.folder / 'checkpoints'))
      )
      for m in members
    ]
    side_by_side = collections.defaultdict(list)
    for i, member in enumerate(members):
      start = checkpoints[i].latest_step()
      side_by_side[member.recipe.program(), start].append(i)
    for places in side_by_side.values():
      outcome = _fit_population(
        model=model,
        members=[members[i] for i in places],
        checkpoints=[checkpoints[i] for i in places],
        mesh=mesh,
        checkpoint_every=checkpoint_every,
        name=name,
        snapshots=snapshots,
      )
      for i, params in zip(places, outcome, strict=True):
        trained[i] = params
  return trained


def _fit_population(
  *, model, members, checkpoints, mesh, checkpoint_every, name, snapshots
):
  size, program = len(members), members[0].recipe.program()
  total_steps = program.total_steps
  joint_mesh = population.mesh_of(mesh, size)
  frozen = [m.frozen for m in members]
  share_frozen = all(_are_same(frozen[0], other) for other in frozen)
  init_state, train_step = make_step(
    model, program, joint_mesh, size=size, share_frozen=share_frozen
  )
  batches = [batching.train_iterator(m.rows, m.plan) for m in members]
  singles = functools.partial(population.unstack, mesh, size=size)
  moments = {total_steps * i // (snapshots + 1) for i in range(snapshots + 1)}

  with jax.set_mesh(joint_mesh):
    frozen = frozen[0] if share_frozen else population.stack(joint_mesh, frozen)
    seeds = population.stack_numbers([m.seed for m in members])
    numbers = population.stack_numbers([m.recipe.numbers() for m in members])
    state = init_state(
      population.stack(joint_mesh, [m.trainable for m in members])
    )
    first_step = checkpoints[0].latest_step() or 0
    if first_step:
      states = []
      for single, saved, iterator in zip(singles(state), checkpoints, batches):
        restored, data_state = saved.restore(single)
        iterator.set_state(data_state)
        states.append(restored)
      state = population.stack(joint_mesh, states)

    # The order below matters. A save comes before the next batch is drawn and
    # after every earlier step is logged; a step is dispatched before the
    # metrics of the one before it are read, so the device never waits.
    with (
      compile_ahead.Programs(
        train_step, joint_mesh, lengths=_lengths(members, first_step), place=2
      ) as train_step,
      _Log(members, name, total_steps, first_step) as log,
    ):
      for step in range(first_step, total_steps):
        if step in moments - {0}:
          for member, params in zip(members, singles(state.params)):
            checkpoint_lib.save_params(
              member.folder / 'snapshots' / str(step), params
            )
        stop = preemption.stop_requested()
        if step > first_step and (stop or step % checkpoint_every == 0):
          log.flush()
          for saved, single, iterator in zip(
            checkpoints, singles(state), batches
          ):
            saved.save(step, single, iterator.get_state())
            if size > 1:  # several processes can save one thing at a time
              saved.wait()
        if stop:
          raise preemption.Preempted(f'{name} stopped before step {step}')
        batch = [next(iterator) for iterator in batches]
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          placed = population.place_batch(joint_mesh, batch)
          state, metrics = train_step(state, frozen, placed, seeds, numbers)
        log.add(step, metrics, examples=sum(b['weight'].sum() for b in batch))
    return list(singles(state.params))


def _lengths(members, step):
  """Of the batches of an epoch, from a step on."""
  plans = [member.plan for member in members]
  end = min(step + plans[0].steps_per_epoch, len(plans[0]))
  return [max(plan[i][1] for plan in plans) for i in range(step, end)]


def _are_same(left, right):
  """Whether two trees hold the very same arrays."""
  left, right = jax.tree.leaves(left), jax.tree.leaves(right)
  return len(left) == len(right) and all(x is y for x, y in zip(left, right))


class _Log:
  """Metrics of all members to their logs, each step when the next is asked."""

  def __init__(self, members, name, total_steps, first_step):
    self._loggers = [member.logger for member in members]
    self._names = [name]
    if len(members) > 1:
      self._names = [member.folder.name for member in members]
    self._waiting = None
    self._progress = self._loggers[0].progress(
      stage=name, total_steps=total_steps, first_step=first_step
    )
    for logger in self._loggers:
      logger.truncate(first_step)

  def __enter__(self):
    self._progress.__enter__()
    return self

  def __exit__(self, kind, *error):
    if kind is None:
      self.flush()
    self._progress.__exit__(kind, *error)
    for logger in self._loggers:
      logger.close()

  def add(self, step, metrics, *, examples):
    self._write()
    self._waiting = step, metrics, int(examples)

  def flush(self):
    self._write()
    for logger in self._loggers:
      logger.flush()

  def _write(self):
    if not self._waiting:
      return
    step, metrics, examples = self._waiting
    self._waiting = None
    metrics_S = {key: np.atleast_1d(value) for key, value in metrics.items()}
    for member, (name, logger) in enumerate(zip(self._names, self._loggers)):
      values = {
        key: float(value_S[member]) for key, value_S in metrics_S.items()
      }
      if not np.isfinite(values['train/loss']):
        raise FloatingPointError(
          f'{name}: the loss is {values["train/loss"]} at step {step}; '
          'lower train.learning_rate or use dtype float32.'
        )
      logger.write(step, values)
    loss = metrics_S['train/loss'].mean()
    self._progress.update(step + 1, examples=examples, loss=loss)
