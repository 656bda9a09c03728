"""Reads what a study left: tables for a notebook, and models that predict.

  results = w2s_jax.load_results('runs/nlp')
  model = w2s_jax.load_model('runs/nlp')  # the first student of the results
  model.predict(['A warm and clever film that stays with you.'])
  w2s_jax.load_predictions('runs/nlp', model.stage)
  w2s_jax.load_weak_labels('runs/nlp', model.stage)

Tables are pandas DataFrames. Only this module needs pandas, and only when a
table is made.
"""

import dataclasses
import importlib
from typing import Any

from etils import epath

from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import predict
from w2s_jax import results
from w2s_jax.runtime import files
from w2s_jax.runtime import workdir as workdir_lib
from w2s_jax.tasks import chess
from w2s_jax.tasks import class_names
from w2s_jax.tasks import reward

# What a model reads, by the name of its head; texts if it is not here.
_INPUTS = {
  'RewardModel': reward.Pair,
  'MoveScorer': chess.Position,
  'Generator': chess.Position,
}
_NESTED = ('stages', 'links')  # fields of a row that are no column


def pandas():
  """Returns pandas.

  Raises:
    errors.MissingPackageError: it is not installed.
  """
  try:
    return importlib.import_module('pandas')
  except ImportError as error:
    raise errors.MissingPackageError(
      'Tables need pandas, which is not installed: pip install pandas (extra '
      "'notebook')."
    ) from error


def load_results(workdir):
  """Returns the results of a study as a DataFrame.

  One row for each student and seed: models, method, seed, accuracies of all
  roles, PGR, which is NaN where `pgr_status` is not 'ok', calibration,
  agreement, and the names of the stages, such as `student_stage`.

  Args:
    workdir: folder of a study, local or gs://.

  Raises:
    errors.UserError: as `results.read`, or pandas is not installed.
  """
  return results_table(results.read(workdir))


def results_table(rows):
  """Returns rows of `results.read` as a DataFrame."""
  leading = (*results.STUDENT, 'seed')
  accuracies = [f'{role}_accuracy' for role in results.ROLES]
  columns = dict.fromkeys((*leading, *accuracies, 'pgr', 'pgr_status'))
  records = []
  for row in rows:
    record = {k: v for k, v in row.items() if k not in _NESTED}
    record['via'] = ', '.join(row['via'])
    record |= {f'{role}_stage': x for role, x in row['stages'].items()}
    columns |= dict.fromkeys(record)
    records.append(record)
  table = pandas().DataFrame(records, columns=list(columns))
  return table.astype({'pgr': float})


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """A model of a finished stage.

  Attributes:
    stage: name of its folder.
    classes: names of the classes; None where each input has its own.
    params, model, tokenizer, config: as in checkpoint.Loaded, so that
      model.apply({'params': params}, *inputs) gives logits.
  """

  stage: str
  classes: tuple[str, ...] | None
  params: Any
  model: Any
  tokenizer: Any
  config: dict

  def predict(self, inputs, *, batch_size=64):
    """Returns a DataFrame with the prediction for each input.

    Columns: the input; `prediction`, the name of the most probable class; and
    the probability of each class, such as `p(positive)`, or of the prediction
    alone where each input has classes of its own.

    Args:
      inputs: list of texts; reward.Pair or chess.Position for such models.

    Raises:
      errors.UserError: they are not, or pandas is not installed.
    """
    kind = _INPUTS.get(self.config['model']['head'], str)
    # One text, or one pair or position, which are tuples, is no list of them.
    is_list = not isinstance(inputs, str | tuple | None)
    listed = list(inputs) if is_list else []
    if not listed:
      raise errors.UserError(
        f'predict() takes a list with at least one {kind.__name__}; got '
        f'{inputs!r}.'
      )
    for x in listed:
      if not isinstance(x, kind):
        raise errors.UserError(
          f'predict(): {self.stage} reads {kind.__module__}.{kind.__name__}; '
          f'one of the inputs is {x!r}.'
        )
    pandas()  # raises before anything is computed
    probs_NxC = predict.predict_inputs(self, listed, batch_size=batch_size)
    return predictions_table(listed, probs_NxC, self.classes)


def load_model(workdir, stage=None, *, mesh=None, weights=None):
  """Returns the TrainedModel of a finished stage.

  Args:
    workdir: folder of a study, local or gs://.
    stage: name of a folder under `workdir/stages`, or the beginning of one; the
      first student of the results by default.
    mesh, weights: as those of checkpoint.load_model.

  Raises:
    errors.UserError: as checkpoint.load_model; there are no results.
  """
  name = checkpoint.find_stage(workdir, stage or first_student(workdir)).name
  loaded = checkpoint.load_model(workdir, name, mesh=mesh, weights=weights)
  classes = _classes_of(workdir, name, loaded.config)
  return TrainedModel(name, classes, *loaded)


def first_student(workdir):
  """Returns the stage of the first student of the results."""
  return results.read(workdir)[0]['stages']['student']


def load_predictions(workdir, stage=None, split='test'):
  """Returns what a model predicted on test or validation rows: a DataFrame.

  Its index are the ids of the rows, by which tables of several models join.
  Columns: those of TrainedModel.predict, and `label`, the true class.

  Args:
    stage: as for `load_model`; also one without parameters, such as zero-shot.
    split: 'test' or 'validation'.

  Raises:
    errors.UserError: there is no such stage or split, a file is damaged, or
      pandas is not installed.
  """
  if split not in ('test', 'validation'):
    raise errors.UserError(f"split={split!r} must be 'test' or 'validation'.")
  stage = stage or first_student(workdir)
  folder = checkpoint.find_stage(workdir, stage, holding='predictions')
  finished = workdir_lib.Finished.at(folder)
  arrays = finished.predictions(split)
  classes = _classes_of(workdir, folder.name, finished.config())
  return _with_rows(workdir, split, arrays['ids'], arrays['probs'], classes)


def load_weak_labels(workdir, student=None):
  """Returns what a student was taught: a DataFrame as `load_predictions`.

  These are its teacher's predictions on the transfer set, before any transform
  or control of weak_labels.py, beside the true `label`, which no student sees.

  Raises:
    errors.UserError: as `load_predictions`; the stage was trained on the truth,
      or on labels of several supervisors.
  """
  student = student or first_student(workdir)
  folder = checkpoint.find_stage(workdir, student, holding='config.json')
  config = workdir_lib.Finished.at(folder).config()
  found = [
    path
    for key in _texts_in(config.get('labels'))
    for path in folder.parent.glob(f'*-{key}')
    if (path / 'weak_labels.npz').exists()
  ]
  if len(found) != 1:
    raise errors.UserError(
      f'{folder.name} was trained on the labels of {len(found)} supervisors; '
      'name a student, which has one.'
    )
  arrays = workdir_lib.Finished.at(found[0]).arrays('weak_labels.npz')
  classes = _classes_of(workdir, folder.name, config)
  return _with_rows(
    workdir, 'transfer', arrays['ids'], arrays['probs'], classes
  )


def _texts_in(value):
  if isinstance(value, dict):
    value = list(value.values())
  if isinstance(value, list):
    return [text for x in value for text in _texts_in(x)]
  return [value] if isinstance(value, str) else []


def _classes_of(workdir, stage, config):
  """Names of the classes of a stage; None where each input has its own."""
  if _INPUTS.get(config['model']['head']) is chess.Position:
    return None
  task = results.task_of(workdir, stage)
  return class_names.or_numbers(task, config['model']['num_classes'])


def predictions_table(inputs, probs_NxC, classes, labels=None):
  """DataFrame of inputs, true labels if any, and predictions."""
  table = pandas().DataFrame(map(_shown, inputs))
  names_N = [classes or x.completions for x in inputs]
  if labels is not None:
    table['label'] = list(map(_name, names_N, labels))
  table['prediction'] = list(map(_name, names_N, probs_NxC.argmax(1).tolist()))
  if classes is None:
    table['probability'] = probs_NxC.max(1)
  for c, name in enumerate(classes or ()):
    table[f'p({name})'] = probs_NxC[:, c]
  return table


def _shown(x):
  return {'text': x} if isinstance(x, str) else x._asdict()


def _name(names, c):
  """Name of a class; shares of votes are left as they are."""
  if isinstance(c, list):
    return c
  return names[c] if c < len(names) else 'not a legal move'


def _with_rows(workdir, split, ids, probs_NxC, classes):
  """Predictions beside the rows that they are of, known by their ids."""
  known = {}
  for path in (epath.Path(workdir) / 'rows').glob(f'{split}*.jsonl.gz'):
    known |= {row['id']: row for row in files.load_lines(path)}
  ids = ids.tolist()
  missing = [id_ for id_ in ids if id_ not in known]
  if missing:
    raise errors.UserError(
      f'{workdir}/rows has no {split} row {missing[0]}, of {len(missing)} that '
      'are missing; run the same study again to write them.'
    )
  rows = [known[id_] for id_ in ids]
  inputs = [_input_of(row) for row in rows]
  labels = [row['label'] for row in rows]
  table = predictions_table(inputs, probs_NxC, classes, labels)
  return table.set_index(pandas().Index(ids, name='id'))


def _input_of(row):
  """The inputs of an example from its row, see study_splits.as_rows."""
  if 'text' in row:
    return row['text']
  kind = reward.Pair if 'first' in row else chess.Position
  return kind(**{name: row[name] for name in kind._fields})
