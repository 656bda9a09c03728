"""Early stopping and learning curves: models are measured while they train.

The best parameters so far are on the disk, and no others: `snapshots/<step>` of
a stage. What was measured is kept beside them, so that a run that was stopped
goes on from there.
"""

import json

import jax

from w2s_jax import adapt
from w2s_jax import checkpoint
from w2s_jax import evaluate
from w2s_jax import metrics
from w2s_jax import weak_labels
from w2s_jax.runtime import files
from w2s_jax.runtime import preemption
from w2s_jax.runtime import trackers
from w2s_jax.runtime import workdir

# Number of checkpoints considered for early stopping, the last one included.
NUM_CANDIDATES = 10


def candidate_steps(total_steps):
  """Steps, evenly spaced, before which early stopping considers a model."""
  steps = (total_steps * i // NUM_CANDIDATES for i in range(1, NUM_CANDIDATES))
  return sorted({*steps} - {0})


class Watch:
  """Measures a model before some steps of its training, and at the end.

  Attributes:
    steps: before which train.fit calls it.
  """

  def __init__(self, job, model, frozen, evaluation, *, judge, curve, steps):
    """Loads what an earlier run measured; without it, the stage starts over.

    Args:
      job, model, frozen, evaluation, judge, curve: of fine_tune.
      steps: of the whole training.
    """
    self._job, self._model, self._frozen = job, model, frozen
    self._evaluation, self._judge, self._curve = evaluation, judge, curve
    self._total_steps = steps
    self._candidates = candidate_steps(steps) if judge is not None else []
    self._points = []
    if curve is not None:
      self._points = list(range(curve['every'], steps, curve['every']))
    self.steps = {*self._candidates, *self._points}
    self._folder = job.folder / 'snapshots'
    self._record = self._folder / 'measured.json'
    self._load()

  def __call__(self, step, params):
    """Measures the trainable parameters, unless an earlier run did.

    Returns:
      Whether a stop was requested meanwhile: then it has to be called again.
    """
    try:
      self._measure(step, params)
    except preemption.Preempted:
      return True
    return False

  def finish(self, params):
    """Measures trained parameters; returns the best, or these without a judge.

    Leaves the agreement of all candidates in early_stopping.json, and accuracy
    and agreement on test rows over training in curve.json.
    """
    self._measure('end', params)
    if self._curve is not None:
      self._write('curve.json', [*self._curve_points.values()])
    if self._judge is None:
      return params
    self._write('early_stopping.json', self._agreement)
    best = max(self._agreement, key=self._agreement.get)
    if best == 'end':
      return params
    try:
      return checkpoint.load_params(self._folder / best, mesh=self._job.mesh)
    except files.DamagedError:
      self._start_over()  # the run that repairs it has to train again
      raise

  def _load(self):
    self._agreement, self._curve_points = {}, {}  # by step, as a string
    try:
      measured = files.load_record(self._record)
      self._agreement = measured['agreement']
      self._curve_points = measured['curve']
    except files.DamagedError:
      self._start_over()
    workdir.barrier(f'{self._job.name}-measured')  # before it is written again

  def _start_over(self):
    """Without what was measured, training cannot resume after it."""
    if jax.process_index() == 0:
      for name in ('checkpoints', 'snapshots'):
        (self._job.folder / name).rmtree(missing_ok=True)
      self._save({}, {})

  def _save(self, agreement, curve):
    self._job.check_lock()
    if jax.process_index() == 0:
      files.save_record(self._record, {'agreement': agreement, 'curve': curve})

  def _measure(self, step, params):
    """Measures parameters before a step, or at the 'end' of training."""
    is_end, name = step == 'end', str(step)
    params = adapt.stored(params, self._model.network.config.param_dtype)
    curve, agreement = dict(self._curve_points), dict(self._agreement)
    at_point = self._curve is not None and (is_end or step in self._points)
    if at_point and name not in curve:
      curve[name] = self._point(step, params)
    judged = self._judge is not None and (is_end or step in self._candidates)
    if judged and name not in agreement:
      probs_NxC = self._probs(step, params, 'validation')
      labels = weak_labels.join(self._evaluation.validation.ids, self._judge)
      agreement[name] = metrics.accuracy(probs_NxC, labels.probs_NxC)
      # Earlier steps first: of equals the first is the best.
      if not is_end and max(agreement, key=agreement.get) == name:
        self._job.check_lock()
        folder = self._folder / name
        checkpoint.save_params(folder, params, name=self._job.name)
    self._save(agreement, curve)
    self._curve_points, self._agreement = curve, agreement
    self._remove_all_but_the_best()
    values = trackers.curve_values(curve[name]) if at_point else {}
    if judged:
      values |= trackers.judge_values(agreement[name])
    self._job.add_point(self._total_steps if is_end else step, values)

  def _point(self, step, params):
    test, supervisor = self._evaluation.test, self._curve['supervisor']
    truth_NxC = test.label_probs_NxC
    probs_NxC = self._probs(step, params, 'test')
    point = {
      'step': self._total_steps if step == 'end' else step,
      'accuracy': metrics.accuracy(probs_NxC, truth_NxC),
    }
    if supervisor is not None:
      labels = weak_labels.join(test.ids, supervisor)
      agreement = metrics.agreement(probs_NxC, labels.probs_NxC, truth_NxC)
      point |= {f'agreement_{name}': x for name, x in agreement.items()}
    return point

  def _probs(self, step, params, split):
    """Class probabilities [N, C] of the rows of a split."""
    evaluation, model = self._evaluation, self._model
    return evaluate.predictions(
      self._job,
      model,
      adapt.merge(params, self._frozen),
      evaluation.rows(model, split),
      evaluation.splits[split].inputs,
      buckets=evaluation.buckets(model),
      label=f'{split}_{step}',
      show=step == 'end',  # else the progress of training is shown
    )[0]

  def _remove_all_but_the_best(self):
    """Only after what was measured is saved: a run may end in between."""
    if jax.process_index() != 0 or not self._agreement:
      return
    best = max(self._agreement, key=self._agreement.get)
    for path in self._folder.iterdir():
      step = path.name.partition('.')[0]
      if path == self._record or step == best:
        continue
      if path.is_dir():
        path.rmtree()
      else:
        path.unlink()

  def _write(self, name, value):
    if jax.process_index() == 0:
      files.write_atomically(self._job.folder / name, json.dumps(value))
