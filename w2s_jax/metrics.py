"""Metrics of predictions, PGR and intervals, in plain NumPy.

Predictions and labels are probabilities over C classes; a prediction is right
where its most probable class is the most probable class of the label.

Shapes: N examples, C classes, S seeds, T tasks, R resamples, K bins or
patterns.
"""

from typing import NamedTuple

import numpy as np

from w2s_jax import errors


def correct(probs_NxC, label_probs_NxC):
  """Whether each prediction is right: bool [N]."""
  return np.argmax(probs_NxC, -1) == np.argmax(label_probs_NxC, -1)


def accuracy(probs_NxC, label_probs_NxC) -> float:
  return float(np.mean(correct(probs_NxC, label_probs_NxC)))


def binomial_se(accuracy: float, n: int) -> float:
  """Standard error of an accuracy measured on n examples."""
  return float(np.sqrt(accuracy * (1 - accuracy) / n))


def auroc(scores_N, positive_N) -> float | None:
  """P(positive scores above negative), ties half; None without both classes."""
  positive_N = np.asarray(positive_N, bool)
  n_positive = int(positive_N.sum())
  n_negative = len(positive_N) - n_positive
  if not n_positive or not n_negative:
    return None
  from scipy import stats  # a second, which training need not wait for

  rank_sum = stats.rankdata(scores_N)[positive_N].sum()
  wins = rank_sum - n_positive * (n_positive + 1) / 2
  return float(wins / (n_positive * n_negative))


def nll(probs_NxC, label_probs_NxC) -> float:
  """Mean cross-entropy to the (possibly soft) labels, in nats."""
  # A float32 softmax can round to 0: its true value is below the smallest
  # float32, which is therefore the mildest finite stand-in.
  floor = np.finfo(np.float32).tiny
  probs_NxC = np.maximum(np.asarray(probs_NxC, np.float64), floor)
  return float(-(label_probs_NxC * np.log(probs_NxC)).sum(-1).mean())


def reliability(probs_NxC, label_probs_NxC, *, bins=15):
  """Equal-width bins of the top probability, empty ones left out.

  Returns (confidence_K, accuracy_K, count_K): mean top probability, share of
  right predictions and number of examples of each bin.
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
  """Expected calibration error: mean |confidence - accuracy| over bins."""
  confidence_K, accuracy_K, count_K = reliability(
    probs_NxC, label_probs_NxC, bins=bins
  )
  return float(np.average(np.abs(confidence_K - accuracy_K), weights=count_K))


def summary(probs_NxC, label_probs_NxC) -> dict:
  """Returns all of the above; `auroc` is None unless two classes occur.

  Raises:
    ValueError: the two are not of one shape [N, C] with N >= 1.
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
  """Returns the share of examples with equal predictions of two models.

  Over `all` examples, and over those where the supervisor is right or wrong
  (paper section 5.1.3, figure 8); None where there are no such examples.
  A student which imitates errors agrees where the supervisor is wrong.
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


def mean_and_se(values_SxN) -> tuple[float, float]:
  """Mean over seeds and examples, and its standard error.

  The variance is that of the mean over examples (of the seed averages) plus
  that of the mean over seeds (of the example averages). The noise special to
  one seed on one example is in both, so the sum errs on the safe side. With
  one seed there is no second term: training noise is then not included.
  """
  values_SxN = np.asarray(values_SxN, np.float64)
  n_seeds, n = values_SxN.shape
  variance = values_SxN.mean(0).var(ddof=1) / n if n > 1 else np.inf
  if n_seeds > 1:
    variance += values_SxN.mean(1).var(ddof=1) / n_seeds
  return float(values_SxN.mean()), float(np.sqrt(variance))


def pgr(weak: float, student: float, ceiling: float) -> float | None:
  """Returns the performance gap recovered; None where there is no gap.

  PGR = (student - weak) / (ceiling - weak), paper section 3.
  """
  if ceiling <= weak:
    return None
  return (student - weak) / (ceiling - weak)


class PGR(NamedTuple):
  """PGR with its interval; the three numbers are None where undefined.

  `gap` is ceiling - weak in accuracy, `gap_se` its standard error.
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
  """PGR of the seed means, with a bootstrap interval over seeds and examples.

  Row s of the three holds where the models of seed s are right on the same N
  test examples. The ratio is meaningless where the gap is noise: undefined
  unless ceiling - weak is above 2 of its standard errors. Those are taken from
  the paired differences by `mean_and_se`, so they hold examples and seeds.

  Raises:
    ValueError: the three are not of one shape [S, N].
  """
  models = weak_correct_SxN, student_correct_SxN, ceiling_correct_SxN
  correct_3xSxN = [np.asarray(model, np.float64) for model in models]
  shapes = [model.shape for model in correct_3xSxN]
  if len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
    raise errors.UserError(
      'PGR needs the weak, student and ceiling results of the same seeds on '
      f'the same examples, each [S, N]; got shapes {shapes}'
    )
  correct_3xSxN = np.stack(correct_3xSxN)
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
  # A resample without a gap is beyond every ratio, on its numerator's side.
  gain_R, gap_R = student_R - weak_R, ceiling_R - weak_R
  ratio_R = np.copysign(np.inf, gain_R)
  np.divide(gain_R, gap_R, out=ratio_R, where=gap_R > 0)
  tail = (1 - confidence) / 2
  low, high = np.quantile(ratio_R, [tail, 1 - tail], method='inverted_cdf')
  value = float(pgr(weak, student, ceiling))
  return PGR(value, float(low), float(high), 'ok', gap, gap_se)


def _bootstrap_means(correct_MxSxN, *, resamples, rng):
  """Accuracies [M, R] of M models on resampled seeds and examples.

  All models see the same resample. Examples on which every model of every
  seed does the same are interchangeable, so the counts of these few patterns
  are drawn in place of the examples. From S > 1 seeds S - 1 are drawn, which
  makes the variance between seeds unbiased; S draws would halve it at S = 2.
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
  """A median with its interval, None of too few values, and standard error."""

  value: float
  low: float | None
  high: float | None
  se: float


def median_interval(
  values_T, *, confidence=0.95, resamples=2000, seed=0
) -> Median:
  """The median over tasks, with a bootstrap interval over tasks.

  The whole range of T tasks holds the true median with a probability of
  1 - 2^(1 - T); where that is below `confidence` there is no interval.
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
