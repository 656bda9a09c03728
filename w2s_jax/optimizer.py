"""Schedules and the AdamW chain."""

import jax
import optax

from w2s_jax import errors


def make_schedule(*, peak, total_steps, warmup, decay):
  """Returns a schedule: linear warm-up, a share of all steps, then decay."""
  warmup_steps = round(warmup * total_steps)
  decay_steps = max(1, total_steps - warmup_steps)
  tails = {
    'cosine': optax.cosine_decay_schedule(peak, decay_steps),
    'linear': optax.linear_schedule(peak, 0.0, decay_steps),
    'constant': optax.constant_schedule(peak),
  }
  if decay not in tails:
    raise errors.UserError(f'decay={decay!r} must be one of {sorted(tails)}.')
  # The ramp starts at peak / warmup_steps, so that the first step moves, too.
  ramp = optax.linear_schedule(
    peak / max(1, warmup_steps), peak, max(1, warmup_steps - 1)
  )
  return optax.join_schedules([ramp, tails[decay]], [warmup_steps])


def make_optimizer(schedule, *, weight_decay, clip_norm):
  """Returns AdamW; decay acts on matrices only, clipping is by global norm."""
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.adamw(
      schedule,
      weight_decay=weight_decay,
      mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    ),
  )
