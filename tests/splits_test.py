import dataclasses

import numpy as np
import pytest

from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import splits
from w2s_jax.tasks import workers


def _examples(*, n=600, groups=150, classes=2, seed=0, skew=0.5):
  """Returns rows in groups of different sizes, with unequal classes."""
  random = np.random.RandomState(seed)
  rest = (1 - skew) / (classes - 1)
  labels = random.choice(classes, n, p=[skew] + [rest] * (classes - 1))
  members = (groups * random.rand(n) ** 2).astype(int)
  return examples_lib.Examples(
    ids=np.array([f'{random.randint(2**31):08x}{i}' for i in range(n)]),
    groups=np.array([f'group {member}' for member in members]),
    inputs=[f'text {i}' for i in range(n)],
    label_probs_NxC=np.eye(classes, dtype=np.float32)[labels],
  )


def _named(examples, rows):
  return {name: examples.take(found) for name, found in rows.items()}


SIZES = {'test': 51, 'validation': 20, 'weak': -1, 'transfer': -1}


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('classes, skew', [(2, 0.5), (2, 0.75), (3, 0.4)])
def test_sizes_balance_and_groups(classes, skew, seed):
  examples = _examples(classes=classes, skew=skew, seed=seed)
  rows = splits.split(examples, SIZES, seed=seed)
  named = _named(examples, rows)
  assert list(named) == list(SIZES)
  assert (len(named['test']), len(named['validation'])) == (51, 20)
  splits.check_disjoint(named)
  for split in named.values():
    counts = split.label_probs_NxC.sum(axis=0)
    assert counts.max() - counts.min() <= 1
    assert (np.diff(counts) <= 0).all()  # The first classes get the remainder.
    assert len(set(split.ids.tolist())) == len(split)
  weak, transfer = (set(named[n].groups.tolist()) for n in ('weak', 'transfer'))
  assert len(weak) > 10 and abs(len(weak) - len(transfer)) < 25


@pytest.mark.parametrize('seed', range(5))
def test_order_of_rows_does_not_matter(seed):
  examples = _examples(seed=seed)
  order = np.random.RandomState(seed).permutation(len(examples))
  shuffled = examples.take(order)
  expected = _named(examples, splits.split(examples, SIZES, seed=1))
  found = _named(shuffled, splits.split(shuffled, SIZES, seed=1))
  for name in SIZES:
    assert found[name].ids.tolist() == expected[name].ids.tolist()
    assert found[name].inputs == expected[name].inputs


def test_same_on_every_machine_and_another_with_another_seed():
  examples = _examples(n=40, groups=20)
  sizes = {'test': 4, 'weak': -1}
  rows = splits.split(examples, sizes, seed=0)
  assert rows['test'].tolist() == [26, 1, 11, 9]
  other = splits.split(examples, sizes, seed=1)
  assert set(rows['test'].tolist()) != set(other['test'].tolist())


def test_an_earlier_split_does_not_depend_on_later_ones():
  examples = _examples()
  rows = splits.split(examples, SIZES, seed=0)
  fewer = splits.split(
    examples, {'test': 51, 'weak': 40, 'transfer': 30}, seed=0
  )
  assert rows['test'].tolist() == fewer['test'].tolist()


def test_smaller_split_is_part_of_the_larger():
  examples = _examples(n=400, groups=10**6)
  small = splits.split(examples, {'weak': 50}, seed=0)['weak'].tolist()
  large = splits.split(examples, {'weak': 100}, seed=0)['weak'].tolist()
  assert set(small) < set(large)


def test_halves_use_every_row_of_balanced_singletons():
  examples = _examples(n=400, groups=10**6)
  rows = splits.split(examples, {'weak': -1, 'transfer': -1}, seed=0)
  used = len(rows['weak']) + len(rows['transfer'])
  fewest = examples.label_probs_NxC.sum(axis=0).min()
  assert used > 2 * fewest - 60
  assert abs(len(rows['weak']) - len(rows['transfer'])) < 60


def test_rows_of_a_group_beyond_the_quota_go_nowhere():
  labels = [0] * 6 + [1] * 6
  examples = examples_lib.Examples(
    ids=np.array([f'{i:02}' for i in range(12)]),
    groups=np.array(['one'] * 5 + ['two'] * 7),
    inputs=list('abcdefghijkl'),
    label_probs_NxC=np.eye(2, dtype=np.float32)[labels],
  )
  rows = splits.split(examples, {'test': 2}, seed=0)
  assert len(rows['test']) == 2
  with pytest.raises(ValueError, match='data.splits.weak = 2 needs'):
    splits.split(examples, {'test': 4, 'weak': 2}, seed=0)


@pytest.mark.parametrize(
  'sizes, message',
  [
    ({'weak': 10_000}, r'splits.weak = 10000 needs \[5000, 5000\] rows'),
    ({'test': 100, 'weak': 400}, r'splits.weak = 400 needs \[200, 200\]'),
    ({'test': -1, 'weak': -2}, r'splits.weak = -2: a size, or -1'),
  ],
)
def test_too_few_rows_names_the_field(sizes, message):
  with pytest.raises(ValueError, match=message):
    splits.split(_examples(skew=0.75), sizes, seed=0)


def test_nothing_left_to_share_is_an_error():
  examples = _examples(n=40, groups=10**6)
  left = int(examples.label_probs_NxC.sum(axis=0).min())
  with pytest.raises(ValueError, match='data.splits.transfer = -1: nothing'):
    splits.split(examples, {'weak': 2 * left, 'transfer': -1}, seed=0)


def test_overlap_is_an_error():
  examples = _examples(n=50, groups=10)
  with pytest.raises(ValueError, match="'weak' and 'test' share 1 ids"):
    splits.check_disjoint(
      {'weak': examples.take([0]), 'test': examples.take([0])}
    )
  in_group = np.flatnonzero(examples.groups == examples.groups[0])
  halves = {
    'weak': examples.take(in_group[:1]),
    'test': examples.take(in_group[1:]),
  }
  with pytest.raises(
    ValueError, match=f'share 1 groups.*{halves["weak"].inputs[0]}'
  ):
    splits.check_disjoint(halves)
  halves['test'] = splits.exclude_groups(examples, halves['weak'].groups)
  splits.check_disjoint(halves)
  assert len(halves['test']) == len(examples) - len(in_group)


def test_fingerprint_depends_on_rows_and_labels_not_on_their_order():
  examples = _examples()
  expected = examples.fingerprint
  order = np.random.RandomState(0).permutation(len(examples))
  assert examples.take(order).fingerprint == expected
  assert examples.take(order[1:]).fingerprint != expected
  labels = examples.label_probs_NxC.copy()
  labels[0] = labels[0, ::-1]
  other = dataclasses.replace(examples, label_probs_NxC=labels)
  assert other.fingerprint != expected != examples.without_labels().fingerprint


def test_processes_hash_what_one_hashes(monkeypatch):
  keys = np.arange(50, dtype=np.uint64) << np.uint64(50)
  one = splits._hashes('0/1', keys)
  run, shares = workers.run, []
  monkeypatch.setattr(
    workers, 'run', lambda *call: shares.append(run(*call)) or shares[-1]
  )
  monkeypatch.setattr(workers, 'count', lambda: 3)
  monkeypatch.setattr(splits, '_MANY', 10)
  np.testing.assert_array_equal(splits._hashes('0/1', keys), one)
  assert [len(share) for share in shares[0]] == [17, 17, 16]
