"""The optimizer of all training: AdamW with its learning-rate schedule."""

import jax
import optax

from w2s_jax import errors


def make_schedule(*, peak, total_steps, warmup, decay):
  """Returns a learning-rate schedule: linear warm-up, then decay to 0.

  Args:
    peak: learning rate at the end of the warm-up.
    total_steps: steps of warm-up and decay together.
    warmup: share of total_steps.
    decay: 'cosine', 'linear' or 'constant', which stays at the peak.

  Raises:
    errors.UserError: `decay` is none of these.
  """
  warmup_steps = round(warmup * total_steps)
  decay_steps = max(1, total_steps - warmup_steps)
  tails = {
    'cosine': optax.cosine_decay_schedule(peak, decay_steps),
    'linear': optax.linear_schedule(peak, 0.0, decay_steps),
    'constant': optax.constant_schedule(peak),
  }
  if decay not in tails:
    raise errors.UserError(f'decay={decay!r} must be one of {sorted(tails)}.')
  # Starts at peak / warmup_steps, not at 0, where the first step would do
  # nothing.
  ramp = optax.linear_schedule(
    peak / max(1, warmup_steps), peak, max(1, warmup_steps - 1)
  )
  return optax.join_schedules([ramp, tails[decay]], [warmup_steps])


def make_optimizer(schedule, *, weight_decay, clip_norm):
  """Returns AdamW after clipping by global norm.

  Weight decay is for matrices only, not for biases and scales of norms.
  """
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.adamw(
      schedule,
      weight_decay=weight_decay,
      mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    ),
  )
