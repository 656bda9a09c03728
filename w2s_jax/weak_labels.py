"""Labels with their ids: ground truth or a supervisor's predictions.

Both take the same form and reach a model by the same path, joined on ids and
never by position. A function of labels to labels is a transform: what is done
to weak labels before a student sees them. To add one: a function here and a
line in TRANSFORMS.
"""

from typing import NamedTuple

import numpy as np

from w2s_jax import errors


class Labels(NamedTuple):
  ids_N: np.ndarray  # str
  probs_NxC: np.ndarray  # float32 class probabilities
  texts_N: np.ndarray | None = None  # str: completions, of a generating model


def ground_truth(examples):
  """The labels of the data set. The only way for them to reach a model."""
  return Labels(examples.ids, examples.label_probs_NxC)


def predicted(stage):
  """The labels that a `stages.predict` left."""
  arrays = stage.arrays('weak_labels.npz')
  return Labels(arrays['ids'], arrays['probs'], arrays.get('texts'))


def predicted_on(stage, split):
  """A finished model's predictions on 'validation' or 'test', as labels."""
  arrays = stage.predictions(split)
  return Labels(arrays['ids'], arrays['probs'])


def soft(labels):
  """The supervisor's probabilities."""
  return labels


def hard(labels):
  """The supervisor's most probable class of each row (paper appendix A.2)."""
  num_classes = labels.probs_NxC.shape[1]
  choice_N = np.argmax(labels.probs_NxC, axis=1)
  return labels._replace(
    probs_NxC=np.eye(num_classes, dtype=np.float32)[choice_N]
  )


TRANSFORMS = {'soft': soft, 'hard': hard}


# Controls: labels that a student must not, or must, learn from; see
# study.students. Each is a function of weak labels, ground truth and a seed.


def shuffled(labels, truth, seed):
  """The labels of other rows: nothing is left to learn."""
  del truth
  sorted_N = np.argsort(labels.ids_N)
  other_N = np.random.default_rng(seed).permutation(sorted_N)
  return Labels(labels.ids_N[sorted_N], labels.probs_NxC[other_N])


def constant(labels, truth, seed):
  """The mean label for every row: nothing is left to learn."""
  del truth, seed
  mean_C = labels.probs_NxC.mean(0, dtype=np.float64).astype(np.float32)
  return Labels(labels.ids_N, np.tile(mean_C, (len(labels.ids_N), 1)))


def random_errors(labels, truth, seed):
  """As many errors, as confident, in rows drawn at random.

  Errors that no input explains cannot be imitated (paper appendix E).
  """
  rng = np.random.default_rng(seed)
  true_N = join(labels.ids_N, restrict(truth, labels.ids_N)).probs_NxC.argmax(1)
  right_N = labels.probs_NxC.argmax(1) == true_N
  sorted_N = np.argsort(labels.ids_N)
  other_N = rng.permutation(sorted_N)  # whose label a row gets
  probs_NxC, true_N = labels.probs_NxC[other_N].copy(), true_N[sorted_N]
  num_rows, num_classes = probs_NxC.shape
  wrong_N = (true_N + rng.integers(1, num_classes, num_rows)) % num_classes
  wanted_N = np.where(right_N[other_N], true_N, wrong_N)
  rows_N, top_N = np.arange(num_rows), probs_NxC.argmax(1)
  swapped = probs_NxC[rows_N, wanted_N], probs_NxC[rows_N, top_N]
  probs_NxC[rows_N, top_N], probs_NxC[rows_N, wanted_N] = swapped
  return Labels(labels.ids_N[sorted_N], probs_NxC)


def true(labels, truth, seed):
  """The truth of the same rows: no loss should do worse than the ceiling."""
  del seed
  return restrict(truth, labels.ids_N)


CONTROLS = {
  'shuffled': shuffled,
  'constant': constant,
  'random errors': random_errors,
  'truth': true,
}


def restrict(labels, ids_N):
  """The labels of some ids; ids without a label are left out."""
  kept_N = np.isin(labels.ids_N, ids_N)
  texts_N = labels.texts_N
  return Labels(
    labels.ids_N[kept_N],
    labels.probs_NxC[kept_N],
    None if texts_N is None else texts_N[kept_N],
  )


def labelled(examples, labels):
  """The examples that have a label, in their own order.

  Raises:
    errors.UserError: a label is of no example, or there are none.
  """
  odd = sorted(set(labels.ids_N.tolist()) - set(examples.ids.tolist()))
  if odd or not len(labels.ids_N):
    raise errors.UserError(
      f'{len(odd)} of {len(labels.ids_N)} labels are of none of the '
      f'{len(examples)} rows, for example {odd[:3]}.'
    )
  return examples.take(np.isin(examples.ids, labels.ids_N))


def join(ids_N, labels):
  """The labels in the order of `ids_N`.

  Raises:
    errors.UserError: the two sets of ids differ or repeat.
  """
  row_of = {id_: i for i, id_ in enumerate(labels.ids_N.tolist())}
  wanted = ids_N.tolist()
  if len(row_of) != len(labels.ids_N) or len(set(wanted)) != len(wanted):
    raise errors.UserError('Ids repeat; weak labels cannot be joined.')
  if row_of.keys() != set(wanted):
    odd = sorted(row_of.keys() ^ set(wanted))
    raise errors.UserError(
      f'{len(odd)} ids are missing from one side of the join of {len(wanted)} '
      f'rows with {len(row_of)} weak labels, for example {odd[:3]}.'
    )
  order_N = [row_of[id_] for id_ in wanted]
  texts_N = labels.texts_N
  return Labels(
    ids_N,
    labels.probs_NxC[order_N],
    None if texts_N is None else texts_N[order_N],
  )
