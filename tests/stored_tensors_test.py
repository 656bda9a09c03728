import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from w2s_jax.models import stored_tensors

TENSORS = {
  'matrix': np.arange(24, dtype=np.float32).reshape(4, 6),
  'half': np.arange(6, dtype=jnp.bfloat16).reshape(3, 2),
  'flags': np.array([True, False, True]),
  'scalar': np.array(7, np.int64),
}


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file(TENSORS, path, {'format': 'pt'})
  return path


def test_reads_what_the_library_writes(file):
  found = {x.name: x for x in stored_tensors.read(file)}
  assert found.keys() == TENSORS.keys()
  for name, expected in TENSORS.items():
    assert found[name].shape == expected.shape
    assert found[name][...].dtype == expected.dtype
    np.testing.assert_array_equal(found[name][...], expected)
  part = slice(1, 3), slice(None, 2)
  np.testing.assert_array_equal(found['matrix'][part], TENSORS['matrix'][part])


def rewrite(file, change):
  """Changes the header of a file and writes it back."""
  data = file.read_bytes()
  end = 8 + int.from_bytes(data[:8], 'little')
  header = json.loads(data[8:end])
  header = json.dumps(change(header) or header).encode()
  file.write_bytes(len(header).to_bytes(8, 'little') + header + data[end:])


@pytest.mark.parametrize(
  'change',
  [
    lambda header: header['matrix'].update(shape=[4, 5]),
    lambda header: header['matrix'].pop('shape'),
    lambda header: header['matrix'].update(data_offsets=[0]),
    lambda header: header.pop('matrix') and header.pop('half') and None,
    lambda header: [1],
    lambda header: {'matrix': 1},
  ],
)
def test_a_damaged_header_is_one_line(change, file):
  rewrite(file, change)
  with pytest.raises(ValueError, match='model.safetensors is damaged or'):
    stored_tensors.read(file)


def test_an_unknown_dtype_is_named_when_it_is_read(file):
  rewrite(file, lambda header: header['flags'].update(dtype='F8_E4M3'))
  found = {x.name: x for x in stored_tensors.read(file)}
  found['matrix'][...]
  with pytest.raises(ValueError, match='flags is stored as F8_E4M3; .*BF16'):
    found['flags'][...]
