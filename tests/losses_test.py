"""Losses against NumPy references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import losses

PAPER = dict(alpha_max=0.5, warmup=0.2)


def softmax(logits):
  exp = np.exp(logits - logits.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


def cross_entropy(logits, target):
  return -(target * np.log(softmax(logits))).sum(-1)


def batch(seed=0, size=16, classes=2):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(size, classes)).astype(np.float32)
  labels = softmax(rng.normal(size=(size, classes))).astype(np.float32)
  return logits, labels, np.ones(size, np.float32)


def test_xent_accepts_soft_labels():
  logits, labels, weight = batch()
  got = losses.xent(logits, labels, weight_B=weight, step_fraction=0.5)
  np.testing.assert_allclose(got, cross_entropy(logits, labels), rtol=1e-5)


@pytest.mark.parametrize('fraction', [0.0, 0.05, 0.1, 0.2, 0.7])
def test_logconf_matches_the_equation_of_the_paper(fraction):
  logits, labels, weight = batch()
  alpha = 0.5 * min(1.0, fraction / 0.2)
  margin = logits[:, 1] - logits[:, 0]
  hard = np.eye(2)[(margin > np.median(margin)).astype(int)]
  want = cross_entropy(logits, (1 - alpha) * labels + alpha * hard)
  got = losses.logconf(
    logits, labels, weight_B=weight, step_fraction=fraction, **PAPER
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize('jump', [0.1, 0.3])
@pytest.mark.parametrize('fraction', [0.04, 0.1, 0.1001, 0.9])
def test_logconf_openai_matches_the_public_code(fraction, jump):
  logits, labels, weight = batch(size=15)
  coef = 0.5 * (1.0 if fraction > jump else fraction)
  p0 = softmax(logits.astype(np.float64))[:, 0]
  threshold = np.quantile(p0, labels[:, 1].mean())
  hard = np.stack([p0 >= threshold, p0 < threshold], 1)
  want = cross_entropy(logits, labels * (1 - coef) + hard * coef)
  got = losses.logconf(
    logits,
    labels,
    weight_B=weight,
    step_fraction=fraction,
    alpha_max=0.5,
    warmup=0.2,
    compat='openai',
    **({} if jump == 0.1 else {'jump': jump}),  # 0.1 is the public code's
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_half_is_positive_with_ties():
  flat = np.zeros((8, 2), np.float32)
  hard = losses._harden_top_half(jnp.asarray(flat), jnp.ones(8))
  np.testing.assert_array_equal(hard[:, 1], [0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize('compat', ['paper', 'openai'])
def test_padding_rows_do_not_move_the_threshold(compat):
  logits, labels, weight = batch(size=12)
  loss = functools.partial(
    losses.logconf, step_fraction=0.5, compat=compat, **PAPER
  )
  want = loss(logits, labels, weight_B=weight)
  padded = [np.concatenate([x, 9 + x[:5]]) for x in (logits, labels)]
  got = loss(*padded, weight_B=np.concatenate([weight, np.zeros(5)]))
  np.testing.assert_allclose(got[:12], want, rtol=1e-6)


def test_no_gradient_through_the_hardened_prediction():
  logits, labels, weight = batch()

  def total(logits):
    return losses.logconf(
      logits, labels, weight_B=weight, step_fraction=1.0, **PAPER
    ).sum()

  hard = losses._harden_top_half(jnp.asarray(logits), jnp.asarray(weight))
  want = softmax(logits) - (0.5 * labels + 0.5 * np.asarray(hard))
  np.testing.assert_allclose(jax.grad(total)(logits), want, atol=1e-5)


def test_more_than_two_classes_are_hardened_by_argmax():
  logits, labels, weight = batch(classes=4)
  hard = np.eye(4)[logits.argmax(-1)]
  got = losses.logconf(
    logits, labels, weight_B=weight, step_fraction=1.0, **PAPER
  )
  want = cross_entropy(logits, 0.5 * labels + 0.5 * hard)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_unknown_compat_is_an_error():
  logits, labels, weight = batch()
  with pytest.raises(ValueError, match='compat'):
    losses.logconf(
      logits, labels, weight_B=weight, step_fraction=0, compat='x', **PAPER
    )
