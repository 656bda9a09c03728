import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax import weak_labels
from w2s_jax.tasks import examples as examples_lib

LABELS = weak_labels.Labels(
  ids_N=np.array(['x', 'y', 'z']),
  probs_NxC=np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32),
)


def test_join_is_by_id():
  wanted = np.array(['z', 'x', 'y'])
  for texts_N in (None, np.array(['Nf3', '', 'a1'])):
    joined = weak_labels.join(wanted, LABELS._replace(texts_N=texts_N))
    np.testing.assert_array_equal(joined.ids_N, wanted)
    np.testing.assert_array_equal(joined.probs_NxC, LABELS.probs_NxC[[2, 0, 1]])
    assert joined.probs_NxC.dtype == np.float32
  assert joined.texts_N.tolist() == ['a1', 'Nf3', '']


@pytest.mark.parametrize(
  'ids, says',
  [
    (['x', 'y'], '1 ids.*2 rows with 3 weak labels.*z'),
    (['x', 'y', 'z', 'w'], '1 ids.*4 rows with 3 weak labels.*w'),
    (['x', 'y', 'w'], "2 ids.*'w', 'z'"),
    (['x', 'y', 'y'], 'repeat'),
  ],
)
def test_other_ids_are_refused(ids, says):
  with pytest.raises(ValueError, match=says):
    weak_labels.join(np.array(ids), LABELS)


def test_repeated_labels_are_refused():
  twice = LABELS._replace(ids_N=np.array(['x', 'y', 'y']))
  with pytest.raises(ValueError, match='repeat'):
    weak_labels.join(np.array(['x', 'y']), twice)


def test_a_filter_decides_which_rows_are_trained_on():
  examples = examples_of(['a', 'b', 'c'])
  kept = weak_labels.Labels(LABELS.ids_N[[2, 0]], LABELS.probs_NxC[[2, 0]])
  assert weak_labels.labelled(examples, kept).ids.tolist() == ['x', 'z']
  strange = kept._replace(ids_N=np.array(['z', 'w']))
  with pytest.raises(errors.UserError, match="1 of 2 labels.*3 rows.*'w'"):
    weak_labels.labelled(examples, strange)
  with pytest.raises(errors.UserError, match='0 labels'):
    weak_labels.labelled(examples, weak_labels.Labels(kept.ids_N[:0], None))


def test_hard_labels_are_the_best_class():
  hard = weak_labels.hard(LABELS)
  np.testing.assert_array_equal(hard.probs_NxC, [[1, 0], [0, 1], [0, 1]])
  assert hard.probs_NxC.dtype == np.float32


def examples_of(inputs):
  return examples_lib.Examples(
    ids=LABELS.ids_N,
    groups=LABELS.ids_N,
    inputs=inputs,
    label_probs_NxC=np.eye(2, dtype=np.float32)[[0, 1, 1]],
  )


def test_ground_truth_takes_the_same_form():
  examples = examples_of(['a', 'b', 'c'])
  truth = weak_labels.ground_truth(examples)
  joined_NxC = weak_labels.join(examples.ids[::-1], truth).probs_NxC
  np.testing.assert_array_equal(joined_NxC, examples.label_probs_NxC[::-1])


def many_labels(num_rows=400, num_classes=3):
  """(weak labels, truth) of which the weak ones are right on about 60 %."""
  rng = np.random.default_rng(0)
  ids = np.array([f'{i:03}' for i in rng.permutation(num_rows)])
  true_N = rng.integers(num_classes, size=num_rows)
  truth = weak_labels.Labels(ids, np.eye(num_classes, dtype=np.float32)[true_N])
  said_N = np.where(rng.random(num_rows) < 0.6, true_N, (true_N + 1) % 3)
  noise_NxC = rng.dirichlet(np.ones(num_classes), num_rows)
  probs_NxC = (0.55 * np.eye(num_classes)[said_N] + 0.45 * noise_NxC).astype(
    np.float32
  )
  return weak_labels.Labels(ids, probs_NxC), truth


def right(labels, truth):
  of_rows = weak_labels.restrict(truth, labels.ids_N)
  joined = weak_labels.join(labels.ids_N, of_rows)
  return labels.probs_NxC.argmax(1) == joined.probs_NxC.argmax(1)


@pytest.mark.parametrize('name', ['shuffled', 'random errors'])
def test_controls_move_labels_to_other_rows(name):
  labels, truth = many_labels()
  control = weak_labels.CONTROLS[name]
  moved = control(labels, truth, 0)
  # The same rows, and the same probabilities in some order.
  assert sorted(moved.ids_N) == sorted(labels.ids_N)
  np.testing.assert_array_equal(
    np.sort(moved.probs_NxC, None), np.sort(labels.probs_NxC, None)
  )
  again = control(labels._replace(ids_N=labels.ids_N.copy()), truth, 0)
  np.testing.assert_array_equal(moved.probs_NxC, again.probs_NxC)
  assert (control(labels, truth, 1).probs_NxC != moved.probs_NxC).any()
  # Any order of the rows gives each row the same label.
  order_N = np.argsort(labels.ids_N)[::-1]
  turned = weak_labels.Labels(labels.ids_N[order_N], labels.probs_NxC[order_N])
  mine = weak_labels.join(moved.ids_N, control(turned, truth, 0))
  if name == 'random errors':
    assert right(mine, truth).mean() == right(labels, truth).mean()
    errors_before = ~right(labels, truth)
    errors_after = ~right(weak_labels.join(labels.ids_N, moved), truth)
    overlap = (errors_before & errors_after).mean()
    assert abs(overlap - errors_before.mean() ** 2) < 0.05
  else:
    assert abs(right(moved, truth).mean() - 1 / 3) < 0.08


def test_a_constant_label_is_the_mean_and_the_truth_is_the_truth():
  labels, truth = many_labels()
  constant = weak_labels.CONTROLS['constant'](labels, truth, 0)
  assert len(np.unique(constant.probs_NxC, axis=0)) == 1
  np.testing.assert_allclose(
    constant.probs_NxC[0], labels.probs_NxC.mean(0), rtol=1e-6
  )
  half = weak_labels.Labels(labels.ids_N[:9], labels.probs_NxC[:9])
  true = weak_labels.CONTROLS['truth'](half, truth, 0)
  assert true.ids_N.tolist() == half.ids_N.tolist()
  assert right(true, truth).all()
