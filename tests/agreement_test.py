"""Standard errors of agreement."""

import numpy as np
import pytest

from w2s_jax import metrics
from w2s_jax.report import agreement


def test_of_all_rows_it_is_that_of_a_mean():
  rng = np.random.default_rng(0)
  same_SxN = rng.random((3, 500)) < 0.7
  right_SxN = rng.random((3, 500)) < 0.6
  found = agreement.standard_errors(same_SxN, right_SxN)
  expected = metrics.mean_and_se(same_SxN)[1]
  assert found['agreement_se'] == pytest.approx(expected)


def test_of_a_part_it_is_that_of_its_rows():
  rng = np.random.default_rng(0)
  same_SxN = rng.random((1, 4000)) < 0.7
  right_SxN = rng.random((1, 4000)) < 0.25
  found = agreement.standard_errors(same_SxN, right_SxN)
  share = same_SxN[right_SxN].mean()
  binomial = metrics.binomial_se(share, right_SxN.sum())
  assert found['agreement_supervisor_right_se'] == pytest.approx(binomial, 0.02)


def test_of_no_rows_there_is_none():
  found = agreement.standard_errors(np.ones((1, 9)), np.ones((1, 9), bool))
  assert found['agreement_supervisor_wrong_se'] is None
