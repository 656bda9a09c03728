"""Examples, and hard labels of many classes."""

import dataclasses

import numpy as np
import pytest

from w2s_jax import metrics
from w2s_jax.tasks import examples as examples_lib

CLASSES = [2, 0, 4, 4, 1, 3, 0, 2, 2]


@pytest.fixture
def sparse():
  ids = np.array([f'id{i * 7 % 9}' for i in range(len(CLASSES))])
  return examples_lib.Examples(
    ids=ids,
    groups=ids,
    inputs=list('abcdefghi'),
    label_probs_NxC=examples_lib.label_probs(CLASSES, 5),
  )


def dense(examples):
  return dataclasses.replace(
    examples, label_probs_NxC=np.asarray(examples.label_probs_NxC)
  )


def test_one_hot_labels_are_as_dense_ones(sparse, monkeypatch):
  monkeypatch.setattr(examples_lib, '_CHUNK', 4)
  one_hot, expected = sparse.label_probs_NxC, np.eye(5, dtype='f4')[CLASSES]
  assert isinstance(one_hot, examples_lib.OneHot)
  assert one_hot.shape == expected.shape and one_hot.dtype == expected.dtype
  np.testing.assert_array_equal(one_hot, expected)
  np.testing.assert_array_equal(one_hot[3], expected[3])
  for index in ([5, 1], np.array([8, 8]), slice(2, 6), expected[:, 2] > 0):
    assert isinstance(one_hot[index], examples_lib.OneHot)
    np.testing.assert_array_equal(one_hot[index], expected[index])
  assert np.argmax(one_hot, -1).tolist() == CLASSES
  for taken in (sparse, sparse.take([4, 2])):
    assert dense(taken).fingerprint == taken.fingerprint
  other = dataclasses.replace(
    sparse, label_probs_NxC=examples_lib.label_probs(CLASSES[::-1], 5)
  )
  assert other.fingerprint != sparse.fingerprint


def test_scores_by_one_hot_labels(sparse):
  probs_NxC = np.random.default_rng(0).dirichlet(np.ones(5), 9)
  found, expected = (
    metrics.summary(probs_NxC, x.label_probs_NxC)
    for x in (sparse, dense(sparse))
  )
  assert found == expected


def test_which_labels_are_dense():
  assert examples_lib.label_probs([1, 0], 2).tolist() == [[0, 1], [1, 0]]
  soft = examples_lib.label_probs([(0.5, 0.25, 0.25), 2], 3)
  assert soft.tolist() == [[0.5, 0.25, 0.25], [0, 0, 1]]
  assert soft.dtype == np.float32
