"""runtime/files.py: what is whole, and how damage is noticed."""

import json

import numpy as np
import pytest

from w2s_jax.runtime import files

ARRAYS = {
  'ids': np.array(['x', 'é', 'z']),
  'probs': np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32),
}


def test_arrays_keep_every_bit(tmp_path):
  path = tmp_path / 'deep' / 'a.npz'
  files.save_arrays(path, **ARRAYS, texts=None)
  loaded = files.load_arrays(path)
  assert loaded.keys() == ARRAYS.keys()
  for name, x in ARRAYS.items():
    np.testing.assert_array_equal(loaded[name], x)
    assert loaded[name].dtype == x.dtype
  assert [p.name for p in path.parent.iterdir()] == ['a.npz']


def test_a_damaged_byte_of_arrays_is_found(tmp_path):
  path = tmp_path / 'a.npz'
  files.save_arrays(path, **ARRAYS)
  whole = path.read_bytes()
  for place in range(len(whole)):
    content = bytearray(whole)
    content[place] ^= 16
    path.write_bytes(bytes(content))
    try:  # dates and flags of the zip format carry nothing
      loaded = files.load_arrays(path)
    except files.DamagedError as e:
      assert 'a.npz is damaged' in str(e) and e.path.name == 'a.npz'
    else:
      for name, x in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], x)


def test_exchanged_arrays_are_found(tmp_path):
  """A valid npz with the values of another under the digest of the first."""
  path = tmp_path / 'a.npz'
  files.save_arrays(path, **ARRAYS)
  with np.load(path) as loaded:
    arrays = dict(loaded)
  np.savez(path, **arrays | {'probs': arrays['probs'][::-1]})
  with pytest.raises(files.DamagedError, match='digest is wrong'):
    files.load_arrays(path)


def test_a_missing_file_is_named(tmp_path):
  for load in (files.load_arrays, files.load_record):
    with pytest.raises(files.DamagedError, match='none is damaged .it is miss'):
      load(tmp_path / 'none')


def test_every_flipped_bit_of_a_record_is_found(tmp_path):
  path = tmp_path / 'DONE'
  record = {'summary': {'rows': 3, 'x': 0.25}, 'files': {}}
  files.save_record(path, record)
  assert files.load_record(path) == record
  whole = path.read_bytes()
  for place in range(len(whole) - 1):
    content = bytearray(whole)
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(files.DamagedError, match='DONE is damaged'):
      files.load_record(path)


@pytest.mark.parametrize(
  'name', ['weak-bag-seed0', 'a.b_c@1', 'student-xent+2=x']
)
def test_plain_names_stay(name):
  assert files.safe_name(name) == name


def test_names_that_are_no_folder_names_become_ones():
  strange = [
    'a/b',
    'a_b/',
    '../../evil',
    '.hidden',
    'ä ö',
    'x' * 240,
    'x' * 241,
  ]
  safe = [files.safe_name(name) for name in strange]
  assert len(set(safe)) == len(strange)
  for name in safe:
    assert len(name) <= 80 and not set(name) & set('/ ')
    assert not name.startswith('.')


def test_lines_are_the_same_bytes_each_time(tmp_path):
  rows = [{'id': 'x', 'text': 'é'}, {'id': 'y', 'text': ''}]
  for name in ('a', 'b'):
    files.save_lines(tmp_path / name, rows)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
  assert json.loads(files.to_json(rows)) == rows


def test_lines_keep_every_character(tmp_path):
  """str.splitlines would break a row at some of these."""
  rows = [{'text': 'a\n\x85b\u2028c\x0b'}, {'text': ''}]
  path = tmp_path / 'rows.jsonl.gz'
  files.save_lines(path, rows)
  assert files.load_lines(path) == rows
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(files.DamagedError, match='rows.jsonl.gz is damaged'):
    files.load_lines(path)
