"""Learning-rate schedules and weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import optimizer

PARAMS = {
  'transformer': {
    'token_embed': {'embedding': jnp.ones((4, 3))},
    'layer_0': {'mlp': {'kernel': jnp.ones((3, 3)), 'bias': jnp.ones(3)}},
  },
  'head': {'kernel': jnp.ones((3, 2))},
}


def schedule(decay, warmup_steps=10):
  made = optimizer.make_schedule(
    peak=2.0, total_steps=100, warmup_steps=warmup_steps, decay=decay
  )
  return np.array([made(step) for step in range(100)])


def test_warmup_starts_above_zero_and_reaches_the_peak():
  for decay in ('linear', 'cosine', 'constant'):
    values = schedule(decay)
    np.testing.assert_allclose(values[:10], 0.2 * np.arange(1, 11), rtol=1e-5)
    assert values[10] == pytest.approx(2.0)
  assert schedule('constant')[99] == 2.0
  assert schedule('linear')[99] == pytest.approx(2 / 90, rel=1e-5)
  assert 0 < schedule('cosine')[99] < 0.01


def test_without_warmup_the_first_step_is_at_the_peak():
  assert schedule('linear', warmup_steps=0)[0] == pytest.approx(2.0)


def test_unknown_decay_is_an_error():
  with pytest.raises(ValueError, match='decay'):
    schedule('exponential')


def test_weight_decay_skips_vectors():
  tx = optimizer.make_optimizer(lambda _: 0.1, weight_decay=0.5, clip_norm=1.0)
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
  mlp = updates['transformer']['layer_0']['mlp']
  np.testing.assert_allclose(mlp['kernel'], -0.05, rtol=1e-6)
  np.testing.assert_array_equal(mlp['bias'], 0.0)
