"""Writes the metrics of training steps without making the device wait."""

from typing import NamedTuple

import numpy as np

from w2s_jax import errors
from w2s_jax.runtime import chips


class StepLog:
  """Writes the metrics of each step when the next one is dispatched.

  Of one model, or of several that train in one step: then each metric is an
  array with one value for each. Tokens, without padding, per second are added
  to them, and on known chips MFU, that of all models; not where the time of
  the step is not known, see pace.Pace.
  """

  def __init__(self, loggers, names, title, total_steps, first_step, programs):
    """Initializes the log.

    Args:
      programs: the compile_ahead.Programs of the training step.
    """
    self._loggers, self._names = loggers, names
    self._programs = programs
    self._peak_flops = chips.peak_flops(programs.mesh.devices.flat)
    self._waiting = None
    self._progress = loggers[0].progress(
      stage=title, total_steps=total_steps, first_step=first_step
    )
    for logger in loggers:
      logger.truncate(first_step)

  def __enter__(self):
    self._progress.__enter__()
    return self

  def __exit__(self, kind, *error):
    if kind is None:
      self.flush()
    self._progress.__exit__(kind, *error)
    for logger in self._loggers:
      logger.flush()

  def add(self, step, metrics, batches):
    """Takes the metrics of a dispatched step, and the batch of each model."""
    self._write()
    self._waiting = _Dispatched(
      step,
      metrics,
      examples=sum(int(batch['weight'].sum()) for batch in batches),
      tokens_S=[int(batch['length'].sum()) for batch in batches],
      flops=self._programs.flops,
      waits=self._programs.waits,
    )

  def flush(self):
    self._write()
    for logger in self._loggers:
      logger.flush()

  def _write(self):
    if not self._waiting:
      return
    dispatched, self._waiting = self._waiting, None
    step, programs = dispatched.step, self._programs
    metrics_S = {
      key: np.atleast_1d(value) for key, value in dispatched.metrics.items()
    }
    for name, loss in zip(self._names, metrics_S['train/loss']):
      if not np.isfinite(loss):
        raise errors.DivergedError(
          f'{name}: the loss is {float(loss)} at step {step}; '
          'lower train.learning_rate or use dtype float32.'
        )
    at_peak = dispatched.flops / self._peak_flops if self._peak_flops else 0.0
    seconds = self._progress.update(
      step + 1,
      examples=dispatched.examples,
      tokens=sum(dispatched.tokens_S),
      peak_seconds=at_peak,
      waited=programs.waits > dispatched.waits,
      compiling=programs.num_compiling(),
      loss=metrics_S['train/loss'].mean(),
    )
    for i, logger in enumerate(self._loggers):
      values = {key: float(value_S[i]) for key, value_S in metrics_S.items()}
      if seconds:
        values['train/tokens_per_second'] = dispatched.tokens_S[i] / seconds
        if at_peak:
          values['train/mfu'] = at_peak / seconds
      logger.write(step, values)


class _Dispatched(NamedTuple):
  """A step whose metrics are not read yet."""

  step: int
  metrics: dict
  examples: int
  tokens_S: list
  flops: int
  waits: int  # for compilation, until it was dispatched
