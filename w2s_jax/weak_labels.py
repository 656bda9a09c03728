"""Labels with their ids and where they come from; stored, checked, joined.

Weak labels are what a supervisor said of rows that it never saw. Ground truth
takes the same form, so that both reach a model by the same path: joined on
ids, never by position.
"""

import io
import json
from typing import NamedTuple
import zipfile

from etils import epath
import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import splits


class Labels(NamedTuple):
  ids_N: np.ndarray  # str
  probs_NxC: np.ndarray  # float32 class probabilities
  provenance: dict  # of weak labels: {'supervisor': stage key, 'rows': ...}
  texts_N: np.ndarray | None = None  # str: what was written, by such a model


def ground_truth(examples):
  """The labels that the rows came with."""
  return Labels(
    examples.ids,
    examples.label_probs_NxC,
    {'ground_truth': splits.fingerprint(examples)},
  )


def harden(labels):
  """The supervisor's one best class for each row (paper appendix A.2)."""
  num_classes = labels.probs_NxC.shape[1]
  choice_N = np.argmax(labels.probs_NxC, axis=1)
  return labels._replace(
    probs_NxC=np.eye(num_classes, dtype=np.float32)[choice_N],
    provenance={**labels.provenance, 'hardened': True},
  )


# What is done to weak labels before a student sees them.
TRANSFORMS = {'soft': lambda labels: labels, 'hard': harden}


def save_arrays(path, **arrays):
  """Writes an npz atomically: a reader sees all of it or nothing.

  What is None is left out.
  """
  arrays = {name: array for name, array in arrays.items() if array is not None}
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  with partial.open('wb') as f:
    np.savez_compressed(f, **arrays)
  partial.replace(path)


def load_arrays(path):
  """Arrays of `save_arrays`; a damaged file raises ValueError naming it."""
  # Read at once: in a bucket each seek would be a request.
  f = io.BytesIO(epath.Path(path).read_bytes())
  try:
    if zipfile.ZipFile(f).testzip():
      raise errors.UserError('a checksum is wrong')
    f.seek(0)
    with np.load(f) as arrays:
      return dict(arrays)
  except Exception as e:  # zipfile, zlib and NumPy raise all kinds
    raise errors.UserError(
      f'{path} is damaged ({e}); delete its stage folder and run again.'
    ) from e


def save(path, labels):
  save_arrays(
    path,
    ids=labels.ids_N,
    probs=labels.probs_NxC,
    provenance=np.array(json.dumps(labels.provenance, sort_keys=True)),
    texts=labels.texts_N,
  )


def load(path, *, provenance):
  """Reads weak labels and refuses those of another supervisor or split.

  Raises:
    ValueError: damaged, or not made from `provenance`.
  """
  arrays = load_arrays(path)
  found = json.loads(str(arrays['provenance']))
  if found != provenance:
    raise errors.UserError(
      f'{path} holds labels of {found}, but {provenance} was asked for; '
      'delete its stage folder and run again.'
    )
  return Labels(arrays['ids'], arrays['probs'], found, arrays.get('texts'))


def join(ids_N, labels):
  """The labels in the order of `ids_N`.

  Raises:
    ValueError: the two sets of ids differ or repeat.
  """
  place = {id_: i for i, id_ in enumerate(labels.ids_N.tolist())}
  wanted = ids_N.tolist()
  if len(place) != len(labels.ids_N) or len(set(wanted)) != len(wanted):
    raise errors.UserError('Ids repeat; weak labels can not be joined.')
  if place.keys() != set(wanted):
    odd = sorted(place.keys() ^ set(wanted))
    raise errors.UserError(
      f'{len(odd)} ids stand on one side only of the join of {len(wanted)} '
      f'rows with {len(place)} weak labels, for example {odd[:3]}.'
    )
  order_N = [place[id_] for id_ in wanted]
  texts_N = labels.texts_N
  return labels._replace(
    ids_N=ids_N,
    probs_NxC=labels.probs_NxC[order_N],
    texts_N=None if texts_N is None else texts_N[order_N],
  )
