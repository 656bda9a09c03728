"""Standard errors of how often a student agrees with its supervisor.

Shapes: S seeds, N test examples.
"""

import numpy as np

from w2s_jax import metrics
from w2s_jax import results


def standard_errors(same_SxN, right_SxN):
  """Returns {name + '_se': standard error} of the shares results.AGREEMENT.

  Over examples and seeds, as metrics.mean_and_se; None of a share of no rows.

  Args:
    same_SxN: whether the student answers as the supervisor.
    right_SxN: whether the supervisor is right.
  """
  of_rows = np.ones_like(right_SxN), right_SxN, ~right_SxN
  return {
    f'{name}_se': _share_se(same_SxN, rows_SxN)
    for name, rows_SxN in zip(results.AGREEMENT, of_rows, strict=True)
  }


def _share_se(same_SxN, rows_SxN):
  counted_S = rows_SxN.mean(1)
  if not counted_S.all():
    return None
  share_S = (same_SxN * rows_SxN).mean(1) / counted_S
  # A share is a ratio of two means: what each row adds to it, to first order.
  adds_SxN = rows_SxN * (same_SxN - share_S[:, None]) / counted_S[:, None]
  return metrics.mean_and_se(share_S[:, None] + adds_SxN)[1]
