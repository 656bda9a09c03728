import numpy as np
import pytest

from w2s_jax import weak_labels
from w2s_jax.tasks import examples as examples_lib

PROVENANCE = {'supervisor': 'abc', 'rows': 'def'}
LABELS = weak_labels.Labels(
  ids_N=np.array(['x', 'y', 'z']),
  probs_NxC=np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32),
  provenance=PROVENANCE,
)


def test_join_is_by_id():
  wanted = np.array(['z', 'x', 'y'])
  for texts_N in (None, np.array(['Nf3', '', 'a1'])):
    joined = weak_labels.join(wanted, LABELS._replace(texts_N=texts_N))
    np.testing.assert_array_equal(joined.ids_N, wanted)
    np.testing.assert_array_equal(joined.probs_NxC, LABELS.probs_NxC[[2, 0, 1]])
    assert joined.probs_NxC.dtype == np.float32
    assert joined.provenance == PROVENANCE
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


def test_save_and_load_keep_every_bit(tmp_path):
  path = tmp_path / 'deep' / 'weak_labels.npz'
  weak_labels.save(path, LABELS)
  loaded = weak_labels.load(path, provenance=PROVENANCE)
  np.testing.assert_array_equal(loaded.ids_N, LABELS.ids_N)
  np.testing.assert_array_equal(loaded.probs_NxC, LABELS.probs_NxC)
  assert loaded.provenance == PROVENANCE and loaded.texts_N is None
  assert [p.name for p in path.parent.iterdir()] == ['weak_labels.npz']


def test_texts_are_kept(tmp_path):
  path = tmp_path / 'weak_labels.npz'
  written = LABELS._replace(texts_N=np.array(['Nf3', '', 'a1\ufffd']))
  weak_labels.save(path, weak_labels.harden(written))
  loaded = weak_labels.load(path, provenance=PROVENANCE | {'hardened': True})
  assert loaded.texts_N.tolist() == written.texts_N.tolist()


@pytest.mark.parametrize('changed', ['supervisor', 'rows'])
def test_labels_of_another_origin_are_refused(changed, tmp_path):
  path = tmp_path / 'weak_labels.npz'
  weak_labels.save(path, LABELS)
  with pytest.raises(ValueError, match=f"weak_labels.npz holds.*'{changed}'"):
    weak_labels.load(path, provenance=PROVENANCE | {changed: 'other'})


def test_a_damaged_byte_is_found(tmp_path):
  path = tmp_path / 'weak_labels.npz'
  weak_labels.save(path, LABELS)
  whole = path.read_bytes()
  for place in range(0, whole.index(b'PK\x01\x02'), 7):
    content = bytearray(whole)
    content[place] ^= 16
    path.write_bytes(bytes(content))
    try:  # dates and flags of the zip format carry nothing
      loaded = weak_labels.load(path, provenance=PROVENANCE)
    except ValueError as e:
      assert 'weak_labels.npz is damaged' in str(e)
    else:
      np.testing.assert_array_equal(loaded.probs_NxC, LABELS.probs_NxC)
      np.testing.assert_array_equal(loaded.ids_N, LABELS.ids_N)


def test_a_missing_file_is_no_damage(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.npz'):
    weak_labels.load_arrays(tmp_path / 'none.npz')


def test_ground_truth_takes_the_same_form():
  examples = examples_lib.Examples(
    ids=LABELS.ids_N,
    groups=LABELS.ids_N,
    inputs=['a', 'b', 'c'],
    label_probs_NxC=np.eye(2, dtype=np.float32)[[0, 1, 1]],
  )
  truth = weak_labels.ground_truth(examples)
  joined_NxC = weak_labels.join(examples.ids[::-1], truth).probs_NxC
  np.testing.assert_array_equal(joined_NxC, examples.label_probs_NxC[::-1])
  other = weak_labels.ground_truth(examples.take([0, 1]))
  assert truth.provenance != other.provenance
