"""The jitted training step and `fit`, the training loop of one model."""

import contextlib
import functools
from typing import Any
from typing import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import accumulate
from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import preemption
from w2s_jax.runtime import profiling
from w2s_jax.runtime import step_log


class TrainState(flax.struct.PyTreeNode):
  """All that training changes; frozen parameters are passed beside it."""

  step: jax.Array
  params: Any
  opt_state: Any


class Recipe(NamedTuple):
  """Loss, schedule and optimizer of a training step."""

  loss: Callable  # see losses.py
  loss_args: tuple  # sorted (name, value) pairs
  total_steps: int
  learning_rate: float
  warmup: float  # share of all steps
  decay: str  # see optimizer.py
  weight_decay: float
  clip_norm: float
  accumulate: int = 1  # pieces that a batch goes through the model in

  def program(self):
    """What is compiled: recipes equal in it share a compiled step."""
    constants = tuple(
      (
        loss,
        tuple(sorted((k, v) for k, v in args.items() if not _is_number(v))),
      )
      for loss, args in self._losses().items()
    )
    return Program(constants, self.decay, self.accumulate)

  def numbers(self):
    """Arguments of the compiled step."""
    known = self._losses()
    numbers = {
      'loss_args': [
        {name: x for name, x in args.items() if _is_number(x)}
        for args in known.values()
      ],
      'total_steps': self.total_steps,
      'warmup_steps': round(self.warmup * self.total_steps),
      'learning_rate': self.learning_rate,
      'weight_decay': self.weight_decay,
      'clip_norm': self.clip_norm,
    }
    chosen = np.int32(list(known).index(self.loss))
    return {'loss': chosen, **jax.tree.map(np.float32, numbers)}

  def _losses(self):
    known = losses.with_arguments(self.loss, self.loss_args)
    # Of a batch in pieces the loss decides how gradients add up.
    return known if self.accumulate == 1 else {self.loss: known[self.loss]}


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


class Program(NamedTuple):
  """The part of a recipe that is compiled; the rest are numbers."""

  losses: tuple  # (loss, sorted (name, value) of constants in it) of each
  decay: str
  accumulate: int


def make_step(model, recipe, mesh):
  """Jitted (init_state, train_step) of a recipe on a mesh.

  init_state(params) -> TrainState; `params` are donated.
  train_step(state, frozen, batch, seed, numbers) -> (TrainState, metrics);
  `numbers` are those of the recipe, the state is donated. Loss and metrics are
  weighted means over the global batch.
  """
  return _make_step(model, recipe.program(), mesh)


@functools.lru_cache(maxsize=8)
def _make_step(model, program, mesh):
  init_state, train_step = step_functions(model, program, mesh)

  def replicated_metrics(*args):
    state, metrics = train_step(*args)
    everywhere = sharding.replicated(mesh)
    return state, jax.lax.with_sharding_constraint(metrics, everywhere)

  return tuple(
    jax.jit(function, donate_argnums=0)
    for function in (init_state, replicated_metrics)
  )


def step_functions(model, program, mesh):
  """(init_state, train_step) of `make_step`, neither jitted nor donated."""

  def optimizer_of(numbers):
    schedule = optimizer.make_schedule(
      peak=numbers['learning_rate'],
      total_steps=numbers['total_steps'],
      warmup_steps=numbers['warmup_steps'],
      decay=program.decay,
    )
    tx = optimizer.make_optimizer(
      schedule,
      weight_decay=numbers['weight_decay'],
      clip_norm=numbers['clip_norm'],
    )
    return tx, schedule

  def placed(state):
    shardings = sharding.tree_sharding(mesh, state)
    return jax.lax.with_sharding_constraint(state, shardings)

  def init_state(params):
    # Numbers do not matter before the first step.
    tx = optimizer.make_optimizer(
      lambda step: 0.0, weight_decay=0.0, clip_norm=1.0
    )
    step = jnp.zeros((), jnp.int32)
    return placed(TrainState(step, params, tx.init(params)))

  def train_step(state, frozen, batch, seed, numbers):
    tx, schedule = optimizer_of(numbers)
    dropout = jax.random.fold_in(jax.random.key(seed), state.step)
    _, weight_R = model.targets(batch)
    total = jnp.maximum(jnp.sum(weight_R), 1)

    def logits_of(params, batch, piece):
      """Float32 logits_RxK of (a piece of) the batch."""
      # Else XLA could gather what is rounded, of all layers at once.
      params = placed(adapt.stored(params, model.config.param_dtype))
      return model.apply(
        {'params': adapt.merge(params, frozen)},
        *(batch[name] for name in model.INPUTS),
        deterministic=model.config.dropout == 0,
        rngs={'dropout': jax.random.fold_in(dropout, piece)},
      )

    def mean_loss(logits_RxK, labels_RxK, weight_R):
      """Shares of these rows in the means over the batch: (loss, agreement).

      Without labels the model has scored itself: nats, and whether it is right.
      """
      if labels_RxK is None:
        loss_R, right_R = logits_RxK.T
      else:
        step_fraction = state.step / numbers['total_steps']
        loss_R = _loss(
          program, numbers, logits_RxK, labels_RxK, weight_R, step_fraction
        )
        right_R = jnp.argmax(logits_RxK, -1) == jnp.argmax(labels_RxK, -1)
      return (
        jnp.sum(loss_R * weight_R) / total,
        jnp.sum(right_R * weight_R) / total,
      )

    (loss, agreement), grads = accumulate.value_and_grad(
      logits_of,
      mean_loss,
      model.targets,
      state.params,
      batch,
      pieces=program.accumulate,
      by_row=all(loss in losses.BY_ROW for loss, _ in program.losses),
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

  return init_state, train_step


def _loss(program, numbers, logits_RxK, labels_RxK, weight_R, step_fraction):
  """loss_R by the chosen one of the losses of a program."""

  def branch(loss, constants, arguments):
    return lambda logits, labels, weight, fraction: loss(
      logits,
      labels,
      weight_B=weight,
      step_fraction=fraction,
      **dict(constants),
      **arguments,
    )

  known = zip(program.losses, numbers['loss_args'], strict=True)
  branches = [branch(*loss, arguments) for loss, arguments in known]
  chosen = numbers['loss']
  return jax.lax.switch(
    chosen, branches, logits_RxK, labels_RxK, weight_R, step_fraction
  )


def prepare(rows, fields, *, buckets, loss=losses.xent, loss_args=(), seed):
  """Arguments of `fit` that follow from the `train` fields of a config.

  All but `freeze`: adapt.py decides which parameters train.
  """
  recipe = {k: v for k, v in fields.items() if k != 'freeze'}
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
  logger,
  checkpoint_every,
  name,
  watch=None,
  before_save=lambda: None,
  profile=None,
):
  """Trains the trainable parameters of one model; returns them in float32.

  Resumes from `folder`/checkpoints: state, place in the data and log continue
  at the same step, and all randomness is a function of seed and step, so the
  outcome is the same to the bit.

  Args:
    model: one of heads.py.
    trainable, frozen: of adapt.split; `trainable` is donated.
    rows, plan, recipe, seed: of `prepare`.
    logger: its metrics.jsonl is truncated to the steps before a resume.
    watch: None, or called with (step, trainable parameters) before each of its
      `steps`, and again where training resumes at one; returns whether a stop
      was requested meanwhile. It keeps no reference: they are donated next.
    before_save: called before anything is written.
    profile: a profiling.Window of steps to trace, or None.

  Raises:
    errors.DivergedError: the loss is not finite.
    preemption.Preempted: a stop was requested; a checkpoint is saved.
  """
  init_state, train_step = make_step(model, recipe, mesh)
  numbers, total_steps = recipe.numbers(), recipe.total_steps
  batches = batching.train_iterator(rows, plan)
  checkpoints = checkpoint.Training(folder / 'checkpoints', before_save)
  with contextlib.closing(checkpoints), jax.set_mesh(mesh):
    state, first_step = init_state(trainable), 0
    if found := checkpoints.restore(state):
      first_step, state, data_state = found
      batches.set_state(data_state)
    lengths = plan.lengths_from(first_step)
    programs = compile_ahead.Programs(
      train_step, mesh, lengths=lengths, place=2
    )
    log = step_log.StepLog(
      [logger], [name], name, total_steps, first_step, programs
    )
    tracer = profiling.Tracer(
      profile, folder, name, first_step=first_step, total_steps=total_steps
    )
    # The order below matters. A checkpoint is saved before the next batch is
    # drawn, which would move the iterator, and after every earlier step is
    # logged. A step is dispatched before the metrics of the one before it are
    # read, so the device never waits for the host.
    with programs, tracer, log:
      for step in range(first_step, total_steps):
        stop = preemption.stop_requested()
        if watch and step in watch.steps and not stop:
          stop = watch(step, state.params)
        if step > first_step and (stop or step % checkpoint_every == 0):
          log.flush()
          checkpoints.save(step, state, batches.get_state())
        if stop:
          raise preemption.Preempted(f'{name} stopped before step {step}')
        tracer.before(step, state)
        batch = next(batches)
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          placed = sharding.place_batch(mesh, batch)
          state, metrics = programs(state, frozen, placed, seed, numbers)
        log.add(step, metrics, [batch])
    return state.params
