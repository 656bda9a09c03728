"""Safetensors files: reads parts of their tensors, also in a bucket; writes.

A file is the length of its header, the header as JSON, and the tensors in C
order: https://huggingface.co/docs/safetensors.
"""

import json
import math

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from w2s_jax import digests
from w2s_jax import errors

_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U8': np.uint8,
  'BOOL': np.bool_,
}


class Tensor:
  """A tensor of a file; indexing it reads little more than what is asked for.

  On a disk only the pages that hold the part are read; in a bucket, the rows of
  the first axis that it lies in, each once.
  """

  def __init__(self, file, name, *, dtype, shape, start):
    self.file, self.name, self.shape = file, name, tuple(shape)
    self._dtype, self._start = dtype, start  # start: its first byte
    self._rows = {}

  def __getitem__(self, index):
    """Returns the part at a tuple of slices, one for each axis, or at `...`."""
    if self._dtype not in _DTYPES:
      raise errors.UserError(
        f'{self.file}: {self.name} is stored as {self._dtype}; weights are '
        f'read from {", ".join(_DTYPES)}.'
      )
    dtype = np.dtype(_DTYPES[self._dtype])
    if index is Ellipsis:
      index = (slice(None),) * len(self.shape)
    if not digests.in_bucket(self.file):
      # Mapped for each part, as the pages of a mapped file stay in memory.
      return np.memmap(self.file, dtype, 'r', self._start, self.shape)[index]
    rows, *others = index
    start, stop, _ = rows.indices(self.shape[0])
    if (start, stop) not in self._rows:
      nbytes = dtype.itemsize * math.prod(self.shape[1:])  # of a row
      content = digests.read(
        self.file, self._start + start * nbytes, self._start + stop * nbytes
      )
      shape = stop - start, *self.shape[1:]
      self._rows[start, stop] = np.frombuffer(content, dtype).reshape(shape)
    return self._rows[start, stop][(slice(None), *others)]


def read(file):
  """Returns the tensors of a safetensors file; reads the header only.

  Raises:
    ValueError: the file is damaged.
  """
  try:
    return list(_tensors(file, digests.size_of(file)))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f'{file} is damaged or incomplete ({error}); fetch it again.'
    ) from None


def _tensors(file, size):
  data = 8 + int.from_bytes(digests.read(file, 0, 8), 'little')
  if data > size:
    raise ValueError(f'it has {size} bytes, its header ends at {data}')
  header = json.loads(digests.read(file, 8, data))
  header.pop('__metadata__', None)
  end = data
  for name, fields in sorted(header.items(), key=_first_byte):
    dtype, shape = fields['dtype'], fields['shape']
    start, stop = (data + offset for offset in fields['data_offsets'])
    if start != end:
      raise ValueError(f'{name} begins at {start}, not at {end}')
    end = stop
    if dtype in _DTYPES:
      nbytes = np.dtype(_DTYPES[dtype]).itemsize * math.prod(shape)
      if stop - start != nbytes:
        raise ValueError(f'{name} has {stop - start} bytes, not {nbytes}')
    yield Tensor(file, name, dtype=dtype, shape=shape, start=start)
  if end != size:
    raise ValueError(f'it has {size} bytes, its tensors end at {end}')


def _first_byte(item):
  return item[1]['data_offsets']


def save(path, tensors, metadata=None):
  """Writes {name: array} as a safetensors file with the mode of other files."""
  path.touch()
  mode = path.stat().st_mode
  safetensors.numpy.save_file(tensors, path, metadata)
  path.chmod(mode)  # safetensors renames a temporary file of mode 600
