"""Batches tokenized rows into few shapes; shuffles each epoch; resumes exactly.

Rows are grouped by length into a few buckets: little padding, and few shapes to
compile. A batch is a dict of host arrays, the same on every process:

  id_B             int32, index of the row in its Rows; -1 in padding rows
  tokens_BxL       int32, 0 beyond the length of the row
  length_B         int32, number of tokens
  label_probs_BxC  float32, if the rows have labels
  weight_B         float32, 1; 0 in padding rows

and further inputs of the model's head, such as movers_BxM. The two texts of a
pair are concatenated in one row, with their lengths in length_Bx2: were each
padded to a length of its own, the shorter would be padding for the most part.

Shape suffixes: N rows, B rows of a batch, L padded length, C classes, T
candidate lengths.
"""

import dataclasses
import functools
from typing import Any

import grain.python as grain
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
  """N tokenized rows and their labels."""

  tokens: list  # N int32 arrays [length], or N pairs of them
  label_probs_NxC: Any = None  # an array or tasks.examples.OneHot
  extra: dict = dataclasses.field(default_factory=dict)  # name -> [N, ...]

  def __len__(self):
    return len(self.tokens)

  @functools.cached_property
  def lengths(self):
    """Number of tokens of each row, int32 [N]; of pairs int32 [N, 2]."""
    lengths = [
      [len(text) for text in row] if isinstance(row, tuple) else len(row)
      for row in self.tokens
    ]
    return np.array(lengths, np.int32)

  @property
  def texts(self):
    """Number of texts per row: 1, or 2 if rows are pairs."""
    return self.lengths.size // len(self)

  @functools.cached_property
  def lengths_N(self):
    """Number of tokens of each row, summed over the texts of a pair."""
    return self.lengths.reshape(len(self), -1).sum(1)


class Padded:
  """N int arrays of at most `width`; indexing returns [n, width], padded by -1.

  Rows are padded on access only, to save memory.
  """

  dtype = np.int32

  def __init__(self, rows, width):
    self.shape = len(rows), width
    self._rows = rows

  def __getitem__(self, index):
    taken = np.full((len(index), self.shape[1]), -1, self.dtype)
    for slot, i in enumerate(index):
      taken[slot, : len(self._rows[i])] = self._rows[i]
    return taken


def choose_buckets(lengths_N, *, count, multiple=4):
  """Returns at most `count` padded lengths, ascending, with the least padding.

  Optimal among multiples of `multiple`, by dynamic programming; the last one
  holds the longest row.
  """
  top = -(-int(lengths_N.max()) // multiple)
  rows_T = np.bincount(-(-lengths_N // multiple), minlength=top + 1)
  below_T = np.cumsum(rows_T)
  sizes_T = np.arange(top + 1)
  cost_T, choices = below_T * sizes_T, []
  for _ in range(count - 1):
    # Cost of a last bucket t after a bucket s: rows in (s, t] are padded to t.
    cost_SxT = cost_T[:, None] + (below_T[None] - below_T[:, None]) * sizes_T
    cost_SxT[sizes_T[:, None] > sizes_T[None]] = np.iinfo(np.int64).max
    choices.append(cost_SxT.argmin(0))
    cost_T = cost_SxT.min(0)
  buckets, t = {top}, top
  for choice_T in reversed(choices):
    t = int(choice_T[t])
    buckets.add(t)
  return tuple(multiple * t for t in sorted(buckets) if rows_T[: t + 1].sum())


# Of one CPU core, for a step of training and one of prediction: 9 s for three
# layers of MiniLM, 13 s for six.
_SECONDS_TO_COMPILE = 5.0
_SECONDS_TO_COMPILE_A_LAYER = 1.4
_SECONDS_A_FLOP = 3e-11
# Forward passes, a backward pass being two, in which a row of the transfer set
# goes through a model in a study: two students and a ceiling, for two epochs.
_PASSES = 18


def count_buckets(lengths_N, *, num_rows, layers, width, most=8):
  """Returns the number of padded lengths that makes a study cheapest.

  Each length is a shape to compile; fewer lengths are more padding.

  Args:
    lengths_N: tokens of some rows like those of the study.
    num_rows: rows of the transfer set.
    layers, width: of the model.
  """
  seconds_a_length = _SECONDS_TO_COMPILE + layers * _SECONDS_TO_COMPILE_A_LAYER
  seconds_a_token = 24 * layers * width**2 * _SECONDS_A_FLOP
  seconds = {}
  for count in range(1, most + 1):
    buckets = np.array(choose_buckets(lengths_N, count=count))
    padded = buckets[bucket_of(lengths_N, buckets)].mean()
    compiling = len(buckets) * seconds_a_length
    computing = num_rows * _PASSES * padded * seconds_a_token
    seconds[count] = compiling + computing
  return min(seconds, key=seconds.get)


def bucket_of(lengths, buckets):
  """Returns the index of the smallest bucket that holds each length."""
  return np.searchsorted(buckets, lengths)


class EpochPlan:
  """The batches of a training run: plan[step] is (row indices, padded length).

  A pure function of seed and step, so that training resumes from a step alone.
  Every epoch has each row once. Rows are sorted by bucket, shuffled within it,
  and cut into batches whose sizes differ by one at most: each batch is a step,
  so a row of a small one would weigh more. A batch that spans two buckets is
  padded to the longer. The order of the batches is shuffled last and does not
  depend on the seed: of models that train side by side (population.py) the
  longest batch sets the length of a step.
  """

  def __init__(self, lengths_N, *, batch_size, buckets, epochs, seed):
    self._bucket_N = bucket_of(lengths_N, buckets)
    self.batch_size = batch_size
    self._buckets = buckets
    self._seed = seed
    self.steps_per_epoch = -(-len(lengths_N) // batch_size)
    self._steps = self.steps_per_epoch * epochs
    self._epoch = functools.lru_cache(maxsize=2)(self._plan_epoch)

  def __len__(self):
    return self._steps

  def __getitem__(self, step):
    if step >= self._steps:
      raise IndexError(step)
    epoch, place = divmod(int(step), self.steps_per_epoch)
    return self._epoch(epoch)[place]

  def lengths_from(self, step):
    """Returns the lengths of up to one epoch of batches, from `step` on."""
    end = min(step + self.steps_per_epoch, len(self))
    return [self[i][1] for i in range(step, end)]

  def _plan_epoch(self, epoch):
    rng = np.random.default_rng((self._seed, epoch))
    order_N = rng.permutation(len(self._bucket_N))
    order_N = order_N[np.argsort(-self._bucket_N[order_N], kind='stable')]
    batches = np.array_split(order_N, self.steps_per_epoch)
    order = np.random.default_rng(epoch).permutation(len(batches))
    return [
      (batches[i], self._buckets[self._bucket_N[batches[i][0]]]) for i in order
    ]


def assemble(rows, index, length, *, batch_size):
  """Returns the batch, see the module, of rows `index`, padded to `length`.

  With fewer than `batch_size` rows the others are padding rows of weight 0.
  """
  batch = {
    'id': np.full(batch_size, -1, np.int32),
    'tokens': np.zeros((batch_size, length), np.int32),
    'length': np.zeros((batch_size, *rows.lengths.shape[1:]), np.int32),
    'weight': np.zeros(batch_size, np.float32),
  }
  for slot, i in enumerate(index):
    row = rows.tokens[i]
    if isinstance(row, tuple):
      row = np.concatenate(row)
    batch['tokens'][slot, : len(row)] = row
  real = slice(0, len(index))
  batch['id'][real] = index
  batch['length'][real] = rows.lengths[index]
  arrays = dict(rows.extra)
  if rows.label_probs_NxC is not None:
    arrays['label_probs'] = rows.label_probs_NxC
  for name, array in arrays.items():
    batch[name] = np.zeros((batch_size, *array.shape[1:]), array.dtype)
    batch[name][real] = array[index]
  batch['weight'][real] = 1.0
  return batch


def train_iterator(rows, plan):
  """Returns a Grain iterator over all batches of an EpochPlan.

  get_state and set_state resume at the next batch.
  """
  dataset = grain.MapDataset.source(plan).map(
    lambda item: assemble(rows, *item, batch_size=plan.batch_size)
  )
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  return iter(dataset.to_iter_dataset(options))


def sorted_plan(lengths_N, *, batch_size, buckets):
  """Returns [(row indices, padded length)] for inference, each row once.

  By descending length; the last batch may have fewer than `batch_size` rows.
  """
  order_N = np.argsort(-lengths_N, kind='stable')
  batches = np.split(order_N, range(batch_size, len(order_N), batch_size))
  return [(x, buckets[bucket_of(lengths_N[x[0]], buckets)]) for x in batches]


def padding_ratio(rows, plan):
  """Returns padded over real tokens, summed over a plan; 1 is no padding."""
  slots = sum(plan.batch_size * length for _, length in plan)
  return slots / sum(int(rows.lengths_N[index].sum()) for index, _ in plan)
