"""Computes PGR, its interval and all other metrics, in plain NumPy.

Predictions and labels are probabilities over C classes. A prediction is right
if its most probable class is the most probable class of the label.

Shapes: N examples, C classes, S seeds, T tasks, R resamples, K bins or
patterns.
"""

from typing import NamedTuple

import numpy as np

from w2s_jax import errors


def correct(probs_NxC, label_probs_NxC):
  """Returns whether each prediction is right: bool [N]."""
  return np.argmax(probs_NxC, -1) == np.argmax(label_probs_NxC, -1)


def accuracy(probs_NxC, label_probs_NxC) -> float:
  """Returns the share of right predictions: the metric of the paper."""
  return float(np.mean(correct(probs_NxC, label_probs_NxC)))


def binomial_se(accuracy: float, n: int) -> float:
  """Returns the standard error of an accuracy on n independent examples."""
  return float(np.sqrt(accuracy * (1 - accuracy) / n))


def auroc(scores_N, positive_N) -> float | None:
  """Returns the area under the ROC curve; None unless both classes occur.

  The probability that a positive example scores above a negative one, where a
  tie counts half (Mann-Whitney U).
  """
  scores_N, positive_N = np.asarray(scores_N), np.asarray(positive_N, bool)
  positive_P, negative_Q = scores_N[positive_N], np.sort(scores_N[~positive_N])
  if not len(positive_P) or not len(negative_Q):
    return None
  below_P = np.searchsorted(negative_Q, positive_P, side='left')
  not_above_P = np.searchsorted(negative_Q, positive_P, side='right')
  twice_wins = (below_P + not_above_P).sum()
  return float(twice_wins / (2 * len(positive_P) * len(negative_Q)))


def nll(probs_NxC, label_probs_NxC) -> float:
  """Returns the mean cross-entropy to the labels, soft or not, in nats."""
  # A float32 softmax can round to 0. The true value is then below the smallest
  # normal float32, so this floor keeps the loss finite and never overstates it.
  floor = np.finfo(np.float32).tiny
  probs_NxC = np.maximum(np.asarray(probs_NxC, np.float64), floor)
  return float(-(label_probs_NxC * np.log(probs_NxC)).sum(-1).mean())


def reliability(probs_NxC, label_probs_NxC, *, bins=15):
  """Returns (confidence_K, accuracy_K, count_K) of a reliability diagram.

  They are the mean top probability, the share of right predictions and the
  number of examples in each equal-width bin of the top probability (Guo et al.
  2017, arXiv 1706.04599). Empty bins are left out.
  """
  top_N = np.max(probs_NxC, -1).astype(np.float64)
  right_N = correct(probs_NxC, label_probs_NxC)
  bin_N = np.clip(np.ceil(top_N * bins).astype(int) - 1, 0, bins - 1)
  count_K = np.bincount(bin_N, minlength=bins)
  used_K = count_K > 0
  count_K = count_K[used_K]
  top_K = np.bincount(bin_N, weights=top_N, minlength=bins)[used_K]
  right_K = np.bincount(bin_N, weights=right_N, minlength=bins)[used_K]
  return top_K / count_K, right_K / count_K, count_K


def ece(probs_NxC, label_probs_NxC, *, bins=15) -> float:
  """Returns the expected calibration error (Guo et al. 2017).

  ECE = sum_k n_k / N |confidence_k - accuracy_k| over the bins k.
  """
  confidence_K, accuracy_K, count_K = reliability(
    probs_NxC, label_probs_NxC, bins=bins
  )
  return float(np.average(np.abs(confidence_K - accuracy_K), weights=count_K))


def summary(probs_NxC, label_probs_NxC) -> dict:
  """Returns accuracy with its standard error, AUROC, NLL, ECE and N.

  `auroc` is None with C > 2 or if one class does not occur.

  Raises:
    errors.UserError: the two are not of one shape [N, C] with N >= 1.
  """
  probs_NxC, label_probs_NxC = (
    np.asarray(probs_NxC),
    np.asarray(label_probs_NxC),
  )
  if probs_NxC.shape != label_probs_NxC.shape or not len(probs_NxC):
    raise errors.UserError(
      'predictions and labels must be of one shape [N, C] with N >= 1, got '
      f'{probs_NxC.shape} and {label_probs_NxC.shape}'
    )
  value = accuracy(probs_NxC, label_probs_NxC)
  binary = probs_NxC.shape[-1] == 2
  positive_N = np.argmax(label_probs_NxC, -1) == 1
  return {
    'accuracy': value,
    'accuracy_se': binomial_se(value, len(probs_NxC)),
    'auroc': auroc(probs_NxC[:, 1], positive_N) if binary else None,
    'nll': nll(probs_NxC, label_probs_NxC),
    'ece': ece(probs_NxC, label_probs_NxC),
    'n': len(probs_NxC),
  }


def agreement(student_NxC, supervisor_NxC, label_probs_NxC) -> dict:
  """Returns student-supervisor agreement (paper section 5.1.3, figure 8).

  The share of examples on which both predict the same class: over `all`, and
  over those where the supervisor is right or wrong; None if there are none. A
  student that imitates the errors of its supervisor has a high agreement where
  the supervisor is wrong.
  """
  same_N = correct(student_NxC, supervisor_NxC)
  right_N = correct(supervisor_NxC, label_probs_NxC)

  def share(rows_N):
    return float(same_N[rows_N].mean()) if rows_N.any() else None

  return {
    'all': share(np.ones_like(right_N)),
    'supervisor_right': share(right_N),
    'supervisor_wrong': share(~right_N),
  }


def link_errors(student_NxC, teacher_NxC, label_probs_NxC) -> dict:
  """Returns what became of a teacher's answers in the model that it taught.

  Of the teacher's errors the share `repeated`, the same wrong class, and
  `corrected`; with two classes these sum to 1. Of its right answers the share
  `lost`, on which the student is wrong. None if there are none.
  """
  same_N = correct(student_NxC, teacher_NxC)
  student_N = correct(student_NxC, label_probs_NxC)
  teacher_N = correct(teacher_NxC, label_probs_NxC)

  def share(hits_N, rows_N):
    return float(hits_N[rows_N].mean()) if rows_N.any() else None

  return {
    'repeated': share(same_N, ~teacher_N),
    'corrected': share(student_N, ~teacher_N),
    'lost': share(~student_N, teacher_N),
  }


def mean_and_se(values_SxN) -> tuple[float, float]:
  """Returns the mean over seeds and examples, and its standard error.

  The variance is that of the mean over examples (of the seed averages) plus
  that of the mean over seeds (of the example averages). Noise of a single seed
  on a single example is counted in both terms, so the sum is conservative. With
  one seed there is no second term: noise of training is then not included. With
  one example the standard error is infinite.
  """
  values_SxN = np.asarray(values_SxN, np.float64)
  n_seeds, n = values_SxN.shape
  variance = values_SxN.mean(0).var(ddof=1) / n if n > 1 else np.inf
  if n_seeds > 1:
    variance += values_SxN.mean(1).var(ddof=1) / n_seeds
  return float(values_SxN.mean()), float(np.sqrt(variance))


def pgr(weak: float, student: float, ceiling: float) -> float | None:
  """Returns the performance gap recovered (paper section 3).

    PGR = (student - weak) / (ceiling - weak)

  of three accuracies: 0 for a student no better than its supervisor, 1 for one
  as good as the ceiling; it may be below 0 or above 1. None if the ceiling is
  not above the supervisor.
  """
  if ceiling <= weak:
    return None
  return (student - weak) / (ceiling - weak)


class PGR(NamedTuple):
  """PGR with its interval.

  `value`, `low` and `high` are None if PGR is undefined; `status` is 'ok' or
  the reason. `gap` is ceiling - weak in accuracy, `gap_se` its standard error.
  """

  value: float | None
  low: float | None
  high: float | None
  status: str
  gap: float
  gap_se: float


def pgr_interval(
  weak_correct_SxN,
  student_correct_SxN,
  ceiling_correct_SxN,
  *,
  confidence=0.95,
  resamples=2000,
  seed=0,
) -> PGR:
  """Returns the PGR of mean accuracies, with a bootstrap interval.

  Row s of the three arrays is whether the models of seed s are right on each of
  the same N test examples. Seeds and examples are resampled. The ratio is
  ill-conditioned where the gap is small, so it is undefined unless ceiling -
  weak is above 2 of its standard errors. These are those of `mean_and_se` for
  the paired differences, so they cover examples and seeds.

  Raises:
    errors.UserError: the three are not of one shape [S, N].
  """
  correct_3xSxN = _stacked(
    [weak_correct_SxN, student_correct_SxN, ceiling_correct_SxN],
    'PGR needs the weak, student and ceiling results',
  )
  weak, student, ceiling = correct_3xSxN.mean((1, 2))
  gap, gap_se = mean_and_se(correct_3xSxN[2] - correct_3xSxN[0])
  if not gap > 2 * gap_se:
    status = (
      f'undefined: ceiling - weak = {gap:+.3f} +- {gap_se:.3f} '
      '(needs > 2 standard errors)'
    )
    return PGR(None, None, None, status, gap, gap_se)
  weak_R, student_R, ceiling_R = _bootstrap_means(
    correct_3xSxN, resamples=resamples, rng=np.random.default_rng(seed)
  )
  # `pgr` of each resample, but infinite, with the sign of the gain, where the
  # resample has no gap: dropping those would make the interval too narrow.
  gain_R, gap_R = student_R - weak_R, ceiling_R - weak_R
  ratio_R = np.copysign(np.inf, gain_R)
  np.divide(gain_R, gap_R, out=ratio_R, where=gap_R > 0)
  tail = (1 - confidence) / 2
  low, high = np.quantile(ratio_R, [tail, 1 - tail], method='inverted_cdf')
  value = float(pgr(weak, student, ceiling))
  return PGR(value, float(low), float(high), 'ok', gap, gap_se)


class Difference(NamedTuple):
  """A difference of accuracies and its interval, None with too few values."""

  value: float
  low: float | None
  high: float | None


def paired_difference(
  left_correct_SxN,
  right_correct_SxN,
  *,
  confidence=0.95,
  resamples=2000,
  seed=0,
) -> Difference:
  """Returns left - right in mean accuracy, with a bootstrap interval.

  Row s of the arrays is whether the models of seed s are right on each of the
  same N test examples. Paired by seed and example: both models have the same
  resample, so what is hard for both cancels. With one seed the noise of
  training is not in the interval.

  Raises:
    errors.UserError: the two are not of one shape [S, N].
  """
  pair_2xSxN = _stacked(
    [left_correct_SxN, right_correct_SxN],
    'a paired difference needs the results',
  )
  left_R, right_R = _bootstrap_means(
    pair_2xSxN, resamples=resamples, rng=np.random.default_rng(seed)
  )
  tail = (1 - confidence) / 2
  low, high = np.quantile(left_R - right_R, [tail, 1 - tail])
  value = (pair_2xSxN[0] - pair_2xSxN[1]).mean()
  return Difference(float(value), float(low), float(high))


def _stacked(correct_SxN_of_models, needs):
  """Returns float64 [M, S, N]; `needs` begins the error for other shapes."""
  models = [np.asarray(x, np.float64) for x in correct_SxN_of_models]
  shapes = [model.shape for model in models]
  if len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
    raise errors.UserError(
      f'{needs} of the same seeds on the same examples, each [S, N]; got '
      f'shapes {shapes}'
    )
  return np.stack(models)


def _bootstrap_means(correct_MxSxN, *, resamples, rng):
  """Returns accuracies [M, R] of M models on R resamples of seeds and examples.

  Paired: all models have the same resample. Examples with the same pattern of
  right and wrong over all models and seeds are interchangeable, so counts of
  the few patterns are drawn in place of N examples. Of S > 1 seeds S - 1 are
  drawn, which makes the variance between seeds unbiased; with S draws it would
  be (S - 1) / S of that, half at S = 2.
  """
  n_models, n_seeds, n = correct_MxSxN.shape
  pattern_MSxK, count_K = np.unique(
    correct_MxSxN.reshape(-1, n), axis=1, return_counts=True
  )
  count_RxK = rng.multinomial(n, count_K / n, size=resamples)
  means_MxSxR = (pattern_MSxK @ count_RxK.T / n).reshape(n_models, n_seeds, -1)
  seeds_RxS = rng.integers(n_seeds, size=(resamples, max(n_seeds - 1, 1)))
  return means_MxSxR[:, seeds_RxS, np.arange(resamples)[:, None]].mean(-1)


class Median(NamedTuple):
  """A median, its interval (None with too few values) and standard error."""

  value: float
  low: float | None
  high: float | None
  se: float


def median_interval(
  values_T, *, confidence=0.95, resamples=2000, seed=0
) -> Median:
  """Returns the median over tasks, with a bootstrap interval over tasks.

  The paper reports the median PGR over tasks (figure 5). Even the whole range
  of T values covers the true median only with probability 1 - 2^(1 - T); if
  that is below `confidence` there is no interval.
  """
  values_T = np.asarray(values_T, np.float64)
  n_tasks = len(values_T)
  rng = np.random.default_rng(seed)
  tasks_RxT = rng.integers(n_tasks, size=(resamples, n_tasks))
  median_R = np.median(values_T[tasks_RxT], 1)
  low = high = None
  if 1 - 2.0 ** (1 - n_tasks) >= confidence:
    tail = (1 - confidence) / 2
    low, high = map(float, np.quantile(median_R, [tail, 1 - tail]))
  se = float(median_R.std()) if n_tasks > 1 else np.inf
  return Median(float(np.median(values_T)), low, high, se)
