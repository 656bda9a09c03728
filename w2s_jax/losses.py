"""Losses: cross-entropy and the confidence loss (paper sections 4.1 and 4.3.2).

Below, f(x) are the probabilities of the student, f_w(x) the weak labels, and
CE(p, q) = -sum_c q_c log p_c. With ground truth in place of f_w(x), `xent` is
the loss of weak supervisors and ceilings too.

Every loss takes

  logits_BxC     of any dtype; losses are computed in float32
  labels_BxC     probabilities: weak labels, or one-hot ground truth
  weight_B       0 for padding rows; the caller leaves their losses out
  step_fraction  share of training done, 0 to 1

and returns loss_B, float32. B is the global batch over all devices. To add a
loss: one function, one line in LOSSES, and its hyper-parameters in `loss_args`
of the config.

All losses are branches of one compiled step, and numbers among their arguments
are arguments of the step: another loss, or another value, compiles nothing.
"""

import inspect

import jax
import jax.numpy as jnp
import optax

from w2s_jax import errors
from w2s_jax import sharding


def xent(logits_BxC, labels_BxC, *, weight_B, step_fraction):
  """Cross-entropy to soft labels: naive fine-tuning (paper section 4.1).

  L(f) = CE(f(x), f_w(x))
  """
  del weight_B, step_fraction
  logits_BxC = logits_BxC.astype(jnp.float32)
  return optax.losses.softmax_cross_entropy(logits_BxC, labels_BxC)


def logconf(
  logits_BxC,
  labels_BxC,
  *,
  weight_B,
  step_fraction,
  alpha_max=0.5,
  start=0.0,
  warmup=0.2,
  compat='paper',
  jump=0.1,
):
  """Auxiliary confidence loss (paper section 4.3.2 and appendix A.4).

    L_conf(f) = (1 - a) CE(f(x), f_w(x)) + a CE(f(x), fhat_t(x))
    fhat_t(x) = 1[f(x) > t], without a gradient

  The threshold t makes exactly half of the batch positive, which keeps the
  student from collapsing to one class. The weight `a` grows linearly from 0 to
  `alpha_max` over the first `warmup` of training: in the paper 0.75 for the
  largest students, 0.5 for others, and 20 % of training. It is 0 before `start`
  of training: a student has to learn something before it is hardened (our
  extension). With C > 2 there is no half to take; predictions are hardened by
  argmax (our extension).

  Half of a batch is positive even where half of its rows are not. Of a student
  that ranks all rows rightly, 7 % of the hardened targets are wrong in random
  batches of 32, and where the length of a text tells its class more, as rows of
  a batch are of about one length (batching.py): 12.6 % on clickbait and 11.7 %
  on tweet_eval_sentiment with 8 lengths, 7 % with data.num_buckets=2. For
  probes, which read features in batches of 128, it is 3.5 % on any task.

  compat='openai' reproduces the public code, openai/weak-to-strong: t is the
  quantile of p(class 0) at the mean weak label, ties all go to class 0, and `a`
  is alpha_max * step_fraction until `jump`, where it jumps to alpha_max;
  `warmup` is not used.

  Raises:
    errors.UserError: `compat` is neither, or is 'openai' with C > 2.
  """
  logits_BxC = logits_BxC.astype(jnp.float32)
  own_BxC = jax.lax.stop_gradient(logits_BxC)
  if compat == 'openai':
    ramp = jnp.where(step_fraction > jump, 1.0, step_fraction)
    hard_BxC = _harden_at_weak_prior(own_BxC, labels_BxC, weight_B)
  elif compat == 'paper':
    grown = (step_fraction - start) / jnp.maximum(warmup - start, 1e-6)
    ramp = jnp.where(step_fraction >= warmup, 1.0, jnp.maximum(grown, 0.0))
    hard_BxC = _harden_top_half(own_BxC, weight_B)
  else:
    raise errors.UserError(
      f"loss_args.logconf.compat={compat!r} must be 'paper' or 'openai'."
    )
  alpha = alpha_max * ramp
  # CE is linear in its target, so one CE to the mixed target is both terms.
  target_BxC = (1 - alpha) * labels_BxC + alpha * hard_BxC
  return optax.losses.softmax_cross_entropy(logits_BxC, target_BxC)


def _harden_top_half(logits_BxC, weight_B):
  """Returns one-hot labels, positive for exactly the top half of the real rows.

  By rank and not by a threshold: all predictions of a zero-initialized head are
  equal, and a threshold would give all of them one class. Ties go to the later
  row. Gathered, since the half is that of the global batch, not of a device.
  """
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
  """Returns one-hot labels as the public code does: see compat='openai'."""
  if logits_BxC.shape[-1] != 2:
    raise errors.UserError(
      "loss_args.logconf.compat='openai' needs two classes."
    )
  real_B = sharding.gather(weight_B > 0)
  p0_B = sharding.gather(jax.nn.softmax(logits_BxC)[:, 0])
  count = jnp.sum(real_B)
  prior = jnp.sum(jnp.where(real_B, labels_BxC[:, 1], 0.0)) / count
  # Interpolates linearly between order statistics, as torch.quantile does.
  sorted_B = jnp.sort(jnp.where(real_B, p0_B, jnp.inf))
  place = prior * (count - 1)
  low = jnp.floor(place).astype(jnp.int32)
  high = jnp.minimum(low + 1, count - 1)
  threshold = sorted_B[low] + (place - low) * (sorted_B[high] - sorted_B[low])
  return jax.nn.one_hot((p0_B < threshold).astype(jnp.int32), 2)


LOSSES = {'xent': xent, 'logconf': logconf}
# Those of which a row's loss depends on this row alone; see accumulate.py.
BY_ROW = (xent,)


def with_arguments(loss, loss_args):
  """{loss: its arguments by name} of all losses of a compiled step.

  These are `loss`, with `loss_args`, and those of LOSSES that can do with their
  defaults.
  """
  given = ('logits_BxC', 'labels_BxC', 'weight_B', 'step_fraction')
  found = {}
  for each in dict.fromkeys((*LOSSES.values(), loss)):
    parameters = inspect.signature(each).parameters.values()
    own = [p for p in parameters if p.name not in given]
    defaults = {p.name: p.default for p in own if p.default is not p.empty}
    if each is loss:
      found[each] = defaults | dict(loss_args)
    elif len(defaults) == len(own):
      found[each] = defaults
  return found
