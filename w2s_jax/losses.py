"""Losses of the strong student: f(logits, labels, ...) -> loss per example.

Every loss takes `logits_BxC`, `labels_BxC` (probabilities: one-hot ground
truth or weak labels), `weight_B` (0 for padding rows) and `step_fraction`
(share of training done, 0 to 1), and returns `loss_B` in float32. A batch is
the whole batch over all devices. To add a loss: one function, one line in
LOSSES, and its hyper-parameters under `loss_args` of the config; those that are
numbers are traced, so that one compiled step does for all their values.
"""

import jax
import jax.numpy as jnp
import optax

from w2s_jax import errors
from w2s_jax import sharding


def xent(logits_BxC, labels_BxC, *, weight_B, step_fraction):
  """Cross-entropy with soft labels: naive fine-tuning (paper section 4.1).

  The labels of a language model may be class indices: labels_B.
  """
  del weight_B, step_fraction
  logits_BxC = logits_BxC.astype(jnp.float32)
  if labels_BxC.ndim == 1:
    return optax.losses.softmax_cross_entropy_with_integer_labels(
      logits_BxC, labels_BxC
    )
  return optax.losses.softmax_cross_entropy(logits_BxC, labels_BxC)


def logconf(
  logits_BxC,
  labels_BxC,
  *,
  weight_B,
  step_fraction,
  alpha_max,
  warmup,
  compat='paper',
):
  """Auxiliary confidence loss (paper section 4.3.2, appendix A.4).

  (1 - a) CE(weak label) + a CE(hardened own prediction). The student's own
  prediction is hardened so that half of the batch is positive: the top half
  by rank, ties to the later row. `a` grows linearly from 0 to `alpha_max`
  over the first `warmup` of training. With C > 2 there is no half to take;
  own predictions are hardened by argmax (our extension).

  compat='openai' reproduces the public PyTorch code: the threshold is the
  quantile of p(class 0) at the mean weak label, equal values all fall to
  class 0, and `a` is alpha_max * step_fraction until `warmup`, then jumps to
  alpha_max.
  """
  logits_BxC = logits_BxC.astype(jnp.float32)
  own_BxC = jax.lax.stop_gradient(logits_BxC)
  if compat == 'openai':
    ramp = jnp.where(step_fraction > warmup, 1.0, step_fraction)
    hard_BxC = _harden_at_weak_prior(own_BxC, labels_BxC, weight_B)
  elif compat == 'paper':
    grown = jnp.minimum(1.0, step_fraction / jnp.where(warmup, warmup, 1.0))
    ramp = jnp.where(warmup, grown, 1.0)
    hard_BxC = _harden_top_half(own_BxC, weight_B)
  else:
    raise errors.UserError(
      f"loss_args.logconf.compat={compat!r} must be 'paper' or 'openai'."
    )
  alpha = alpha_max * ramp
  target_BxC = (1 - alpha) * labels_BxC + alpha * hard_BxC
  return optax.losses.softmax_cross_entropy(logits_BxC, target_BxC)


def _harden_top_half(logits_BxC, weight_B):
  """One-hot labels, positive for exactly the top half of the real rows."""
  num_classes = logits_BxC.shape[-1]
  if num_classes != 2:
    return jax.nn.one_hot(jnp.argmax(logits_BxC, -1), num_classes)
  real_B = sharding.gather(weight_B > 0)
  margin_B = sharding.gather(logits_BxC[:, 1] - logits_BxC[:, 0])
  order_B = jnp.argsort(jnp.where(real_B, margin_B, -jnp.inf), stable=True)
  rank_B = jnp.argsort(order_B, stable=True)
  positive_B = rank_B >= rank_B.shape[0] - jnp.sum(real_B) // 2
  return jax.nn.one_hot(positive_B.astype(jnp.int32), 2)


def _harden_at_weak_prior(logits_BxC, labels_BxC, weight_B):
  if logits_BxC.shape[-1] != 2:
    raise errors.UserError(
      "loss_args.logconf.compat='openai' needs two classes."
    )
  real_B = sharding.gather(weight_B > 0)
  p0_B = sharding.gather(jax.nn.softmax(logits_BxC)[:, 0])
  count = jnp.sum(real_B)
  prior = jnp.sum(jnp.where(real_B, labels_BxC[:, 1], 0.0)) / count
  # Linear interpolation between order statistics, as torch.quantile.
  sorted_B = jnp.sort(jnp.where(real_B, p0_B, jnp.inf))
  place = prior * (count - 1)
  low = jnp.floor(place).astype(jnp.int32)
  high = jnp.minimum(low + 1, count - 1)
  threshold = sorted_B[low] + (place - low) * (sorted_B[high] - sorted_B[low])
  return jax.nn.one_hot((p0_B < threshold).astype(jnp.int32), 2)


LOSSES = {'xent': xent, 'logconf': logconf}
