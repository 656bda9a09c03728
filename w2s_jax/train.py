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

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import losses
from w2s_jax import optimizer
from w2s_jax import sharding
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import preemption


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
    return losses.with_arguments(self.loss, self.loss_args)


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
    labels, weight_R = model.targets(batch)  # [R, K], or class indices [R]

    def logits_of(params, inputs, piece):
      """Float32 logits_RxK of (a piece of) the batch."""
      params = adapt.stored(params, model.config.param_dtype)
      return model.apply(
        {'params': adapt.merge(params, frozen)},
        *inputs,
        deterministic=model.config.dropout == 0,
        rngs={'dropout': jax.random.fold_in(dropout, piece)},
      )

    def mean_loss(logits_RxK):
      step_fraction = state.step / numbers['total_steps']
      loss_R = _loss(
        program, numbers, logits_RxK, labels, weight_R, step_fraction
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

  return init_state, train_step


def _loss(program, numbers, logits_RxK, labels, weight_R, step_fraction):
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
  if labels.ndim == 1:  # class indices, of a language model
    branches, chosen = [branch(losses.xent, (), {})], 0
  return jax.lax.switch(
    chosen, branches, logits_RxK, labels, weight_R, step_fraction
  )


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
    log = Log([logger], [name], name, total_steps, first_step)
    programs = compile_ahead.Programs(
      train_step, mesh, lengths=lengths, place=2
    )
    # The order below matters. A checkpoint is saved before the next batch is
    # drawn, which would move the iterator, and after every earlier step is
    # logged. A step is dispatched before the metrics of the one before it are
    # read, so the device never waits for the host.
    with programs, log:
      for step in range(first_step, total_steps):
        stop = preemption.stop_requested()
        if watch and step in watch.steps and not stop:
          stop = watch(step, state.params)
        if step > first_step and (stop or step % checkpoint_every == 0):
          log.flush()
          checkpoints.save(step, state, batches.get_state())
        if stop:
          raise preemption.Preempted(f'{name} stopped before step {step}')
        batch = next(batches)
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          placed = sharding.place_batch(mesh, batch)
          state, metrics = programs(state, frozen, placed, seed, numbers)
        log.add(step, metrics, examples=batch['weight'].sum())
    return state.params


class Log:
  """Writes the metrics of each step when the next one is dispatched.

  Of one model, or of several that train in one step: then each metric is an
  array with one value for each.
  """

  def __init__(self, loggers, names, title, total_steps, first_step):
    self._loggers, self._names = loggers, names
    self._waiting = None
    self._progress = loggers[0].progress(
      stage=title, total_steps=total_steps, first_step=first_step
    )
    for logger in loggers:
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
    for i, (name, logger) in enumerate(zip(self._names, self._loggers)):
      values = {key: float(value_S[i]) for key, value_S in metrics_S.items()}
      if not np.isfinite(values['train/loss']):
        raise errors.DivergedError(
          f'{name}: the loss is {values["train/loss"]} at step {step}; '
          'lower train.learning_rate or use dtype float32.'
        )
      logger.write(step, values)
    loss = metrics_S['train/loss'].mean()
    self._progress.update(step + 1, examples=examples, loss=loss)
