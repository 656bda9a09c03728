"""The optimizer of all training: AdamW with its learning-rate schedule."""

import functools

import jax
import jax.numpy as jnp
import optax

from w2s_jax import errors

# Share of the peak that is left when `done` of the steps after warm-up is done.
DECAYS = {
  'linear': lambda done: 1 - done,
  'cosine': lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
  'constant': jnp.ones_like,
}


def make_schedule(*, peak, total_steps, warmup_steps, decay):
  """Returns step -> learning rate: linear warm-up, then decay to 0.

  optax.schedules, but numbers may be arguments of a compiled step.

  Args:
    peak: learning rate at the end of the warm-up.
    total_steps: steps of warm-up and decay together.
    warmup_steps: starts at peak / warmup_steps, not at 0, where the first step
      would do nothing.
    decay: 'cosine', 'linear' or 'constant', which stays at the peak.

  Raises:
    errors.UserError: `decay` is none of these.
  """
  if decay not in DECAYS:
    raise errors.UserError(f'decay={decay!r} must be one of {sorted(DECAYS)}.')

  def schedule(step):
    decay_steps = jnp.maximum(1, total_steps - warmup_steps)
    done = jnp.clip((step - warmup_steps) / decay_steps, 0, 1)
    ramp = (step + 1) / jnp.maximum(1, warmup_steps)
    return peak * jnp.where(step < warmup_steps, ramp, DECAYS[decay](done))

  return schedule


def make_optimizer(schedule, *, weight_decay, clip_norm):
  """Returns AdamW after clipping by global norm.

  Weight decay is for matrices only, not for biases and scales of norms. By
  name, since those of a stack of layers have two axes, too.
  """

  def decays(path, x):
    return x.ndim > 1 and path[-1].key not in ('bias', 'scale')

  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.adamw(
      schedule,
      weight_decay=weight_decay,
      mask=functools.partial(jax.tree_util.tree_map_with_path, decays),
    ),
  )
