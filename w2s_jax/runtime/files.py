"""Files that are whole or absent, and whose damage is noticed.

All of it works on a disk and on object stores (gs://).
"""

import gzip
import hashlib
import io
import json
import re
import zlib

from etils import epath
import numpy as np

from w2s_jax import errors


class DamagedError(errors.UserError):
  """A file that this project wrote is missing, truncated or changed.

  `path` names it; graph.Runner makes the stage that left it again.
  """

  def __init__(self, path, reason):
    super().__init__(
      f'{path} is damaged ({reason}); run the experiment again to repair it.'
    )
    self.path = epath.Path(path)


def write_atomically(path, content):
  """Writes bytes or text: a reader sees all of it or what was there before."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, str):
    content = content.encode()
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_bytes(content)
  except OSError:  # a full disk needs the room
    partial.unlink(missing_ok=True)
    raise
  partial.replace(path)


def sha256(content):
  """Hex digest of bytes or text."""
  if isinstance(content, str):
    content = content.encode()
  return hashlib.sha256(content).hexdigest()


def to_json(value):
  """The one JSON text of a value, for hashes and for files of one line."""
  return json.dumps(value, sort_keys=True, default=list)


def sealed(record):
  """A dict with the checksum of all its other fields."""
  return {**record, 'checksum': sha256(to_json(record))[:16]}


def unsealed(record, path):
  """The fields of a `sealed` dict that was read from `path`.

  Raises:
    DamagedError: it has another checksum.
  """
  if not isinstance(record, dict) or 'checksum' not in record:
    raise DamagedError(path, 'it has no checksum')
  record = dict(record)
  if record.pop('checksum') != sha256(to_json(record))[:16]:
    raise DamagedError(path, 'its checksum is wrong')
  return record


def save_record(path, record):
  """Writes a dict as JSON with its checksum."""
  write_atomically(path, json.dumps(sealed(record), default=list) + '\n')


def load_record(path):
  """Reads a dict of `save_record`; DamagedError where it is not as written."""
  try:
    record = json.loads(epath.Path(path).read_bytes())
  except FileNotFoundError:
    raise DamagedError(path, 'it is missing') from None
  except ValueError as error:
    raise DamagedError(path, f'not JSON: {error}') from error
  return unsealed(record, path)


def save_arrays(path, **arrays):
  """Writes an npz with a digest of its arrays; those that are None are left
  out."""
  arrays = {name: np.asarray(x) for name, x in arrays.items() if x is not None}
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays, digest=_digest(arrays))
  write_atomically(path, buffer.getvalue())


def load_arrays(path):
  """{name: array} of `save_arrays`.

  Raises:
    DamagedError: the file is missing or not as it was written.
  """
  try:
    # Read at once: on an object store each seek would be a request.
    content = io.BytesIO(epath.Path(path).read_bytes())
    with np.load(content, allow_pickle=False) as loaded:
      arrays = dict(loaded)
  except FileNotFoundError:
    raise DamagedError(path, 'it is missing') from None
  except Exception as error:  # zipfile, zlib and NumPy raise all kinds
    raise DamagedError(path, error) from error
  if str(arrays.pop('digest', '')) != _digest(arrays):
    raise DamagedError(path, 'its digest is wrong')
  return arrays


def _digest(arrays):
  total = hashlib.sha256()
  for name, x in sorted(arrays.items()):
    total.update(f'{name} {x.dtype.str} {x.shape}\n'.encode())
    total.update(np.ascontiguousarray(x).tobytes())
  return total.hexdigest()


def save_lines(path, rows):
  """Writes dicts as gzipped JSON lines; the same rows give the same bytes."""
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  write_atomically(path, gzip.compress(text.encode(), mtime=0))


def load_lines(path):
  """The dicts of `save_lines`.

  Raises:
    DamagedError: the file is not gzipped JSON lines.
  """
  try:
    # Texts may hold other marks that `splitlines` takes for the end of a line.
    lines = gzip.decompress(epath.Path(path).read_bytes()).split(b'\n')
    return [json.loads(line) for line in lines if line]
  except (OSError, EOFError, ValueError, zlib.error) as error:
    raise DamagedError(path, error) from error


def safe_name(text, *, longest=80):
  """A name for a file or folder, anywhere: 'EleutherAI/pythia' has a slash.

  Names that would become equal, or are too long, get a hash of the original.
  """
  name = re.sub(r'[^\w.@+=-]+', '_', text, flags=re.ASCII).lstrip('.')
  if name == text and len(name) <= longest:
    return name
  return f'{name[: longest - 9]}-{sha256(text)[:8]}'
