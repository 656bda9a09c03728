"""Batches: each row once an epoch, few shapes, little padding, exact resume."""

import itertools

import numpy as np
import pytest

from w2s_jax import batching
from w2s_jax.tasks import examples as examples_lib


def make_rows(n=103, seed=0):
  rng = np.random.default_rng(seed)
  lengths = np.clip(np.exp(rng.normal(3, 0.5, n)), 3, 80).astype(int)
  tokens = [rng.integers(1, 99, k).astype(np.int32) for k in lengths]
  labels = rng.dirichlet([1, 1], n).astype(np.float32)
  return batching.Rows(tokens, labels)


def make_plan(rows, *, buckets=(16, 24, 40, 80), epochs=2, seed=0):
  return batching.EpochPlan(
    rows.lengths_N, batch_size=8, buckets=buckets, epochs=epochs, seed=seed
  )


def test_every_epoch_has_each_row_once_in_a_new_order():
  plan = make_plan(make_rows())
  steps = plan.steps_per_epoch
  assert (steps, len(plan)) == (13, 26)
  first, second = (
    np.concatenate([plan[i][0] for i in range(start, start + steps)])
    for start in (0, steps)
  )
  assert sorted(first) == sorted(second) == list(range(103))
  assert list(first) != list(second)
  other = make_plan(make_rows(), seed=1)
  assert any(list(plan[i][0]) != list(other[i][0]) for i in range(steps))


def test_batches_have_minimal_lengths_and_the_smaller_ones_are_shortest():
  rows = make_rows()
  buckets_N = np.sort(batching.bucket_of(rows.lengths_N, (16, 24, 40, 80)))
  plan = make_plan(rows)
  short = [i for i in range(13) if len(plan[i][0]) < 8]
  assert len(short) == 1 and plan[short[0]][1] == 16
  for i in range(13):
    assert rows.lengths_N[plan[i][0]].max() <= plan[i][1]
  # The minimum: the bucket of every eighth row, from the longest row on.
  needed = np.array([16, 24, 40, 80])[buckets_N[::-8]]
  assert sorted(plan[i][1] for i in range(13)) == sorted(needed)


@pytest.mark.parametrize('n', [8, 9, 97, 99, 104])
def test_rows_weigh_alike_in_all_batches(n):
  plan = make_plan(make_rows(n))
  sizes = [len(index) for index, _ in plan]
  assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
  if max(sizes) > min(sizes):  # padding rows cost least where rows are short
    full = [length for index, length in plan if len(index) == max(sizes)]
    smaller = [length for index, length in plan if len(index) == min(sizes)]
    assert max(smaller) <= min(full)


def test_rows_of_a_bucket_are_batched_differently_for_each_seed():
  plan = make_plan(make_rows(), buckets=(80,), epochs=1)
  full = [set(plan[i][0]) for i in range(13) if len(plan[i][0]) == 8]
  again = make_plan(make_rows(), buckets=(80,), seed=1, epochs=1)
  assert len(full) == 12
  assert not any(set(again[i][0]) in full for i in range(13))


def test_texts_of_a_pair_are_concatenated():
  pairs = [(np.array([1, 2, 3]), np.array([4])), (np.array([5]), np.array([6]))]
  rows = batching.Rows(pairs)
  assert rows.texts == 2 and rows.lengths_N.tolist() == [4, 2]
  batch = batching.assemble(rows, np.array([1, 0]), 5, batch_size=3)
  assert batch['tokens'].tolist() == [[5, 6, 0, 0, 0], [1, 2, 3, 4, 0], [0] * 5]
  assert batch['length'].tolist() == [[1, 1], [3, 1], [0, 0]]


def test_batches_hold_the_rows_and_padding_has_zero_weight():
  rows = make_rows()
  iterator = batching.train_iterator(rows, make_plan(rows))
  shapes, padded = set(), 0
  for batch in itertools.islice(iterator, 13):
    shapes.add(batch['tokens'].shape)
    for i, row in enumerate(batch['id']):
      length = batch['length'][i]
      if row < 0:
        padded += 1
        assert batch['weight'][i] == 0 and length == 0
        assert not batch['tokens'][i].any()
      else:
        np.testing.assert_array_equal(
          batch['tokens'][i, :length], rows.tokens[row]
        )
        assert not batch['tokens'][i, length:].any()
        np.testing.assert_array_equal(
          batch['label_probs'][i], rows.label_probs_NxC[row]
        )
  assert padded == 1 and len(shapes) <= 4


def test_iterator_resumes_at_the_next_batch():
  rows = make_rows()
  whole = [
    b['id'].tolist() for b in batching.train_iterator(rows, make_plan(rows))
  ]
  iterator = batching.train_iterator(rows, make_plan(rows))
  for _ in range(17):
    next(iterator)
  state = iterator.get_state()
  resumed = batching.train_iterator(rows, make_plan(rows))
  resumed.set_state(state)
  assert [b['id'].tolist() for b in resumed] == whole[17:]


@pytest.mark.parametrize('count', [1, 2, 3])
def test_choose_buckets_matches_brute_force(count):
  lengths = make_rows(seed=3).lengths_N
  top = -(-lengths.max() // 4) * 4

  def slots(buckets):
    return sum(buckets[batching.bucket_of(n, buckets)] for n in lengths)

  best = min(
    slots((*sorted(lower), top))
    for lower in itertools.combinations(range(4, top, 4), count - 1)
  )
  got = batching.choose_buckets(lengths, count=count)
  assert slots(got) == best and len(got) <= count and got[-1] == top


def test_number_of_buckets_weighs_compilation_against_padding():
  lengths_N = make_rows(seed=3).lengths_N

  def count(num_rows, layers=6, width=384, lengths_N=lengths_N):
    return batching.count_buckets(
      lengths_N, num_rows=num_rows, layers=layers, width=width
    )

  counts = [count(rows) for rows in (10, 300, 1000, 3000, 100_000)]
  assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 8
  assert len(set(counts)) > 2
  assert count(1000, width=64) < count(1000) < count(1000, width=1024)
  assert count(100_000, layers=0) == 1
  # There is nothing to gain where all rows are of one length.
  assert count(100_000, lengths_N=np.full(50, 24)) == 1


def test_inference_batches_have_each_row_once_by_descending_length():
  lengths_N = make_rows().lengths_N
  plan = batching.sorted_plan(lengths_N, batch_size=8, buckets=(16, 40, 80))
  assert sorted(np.concatenate([index for index, _ in plan])) == [*range(103)]
  assert [len(index) for index, _ in plan] == [8] * 12 + [7]
  for index, length in plan:
    longest = lengths_N[index].max()
    assert length == min(b for b in (16, 40, 80) if b >= longest)
  lengths = [length for _, length in plan]
  assert lengths == sorted(lengths, reverse=True)


def test_padding_ratio_includes_padding_rows():
  rows = make_rows()
  plan = make_plan(rows, epochs=1)
  slots = sum(8 * length for _, length in plan)
  got = batching.padding_ratio(rows, plan)
  assert got == pytest.approx(slots / rows.lengths_N.sum())


def test_labels_that_are_classes_are_one_hot_in_a_batch():
  classes = [3, 0, 2]
  tokens = [np.arange(n, dtype=np.int32) for n in (2, 1, 3)]
  sparse, dense = (
    batching.assemble(batching.Rows(tokens, labels), [2, 0], 4, batch_size=3)
    for labels in (
      examples_lib.OneHot(classes, 5),
      np.eye(5, dtype=np.float32)[classes],
    )
  )
  assert sparse.keys() == dense.keys()
  for name, array in dense.items():
    np.testing.assert_array_equal(sparse[name], array)
    assert sparse[name].dtype == array.dtype
