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
