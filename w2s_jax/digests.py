"""Digests of large files, computed once for as long as a file is the same.

A file is the same while its size and modification time are, or, in a bucket,
its size and generation.
"""

import contextlib
import hashlib
import json
import os
import time

import fsspec

_REQUEST = 1 << 24  # bytes that one request asks a bucket for
_CHUNK = 1 << 27  # bytes that are hashed at once
_SMALL = 1 << 20  # bytes; such files are read as fast as their digest is
# A file that changed so lately may change again within one tick of its time.
_SETTLED_NS = 2 * 10**9


def in_bucket(path):
  return '://' in str(path)


def read(path, start, stop):
  """Returns the bytes [start, stop) of a file, on a disk or in a bucket."""
  if in_bucket(path):
    files, name = fsspec.core.url_to_fs(str(path))
    starts = range(start, stop, _REQUEST)
    stops = [min(each + _REQUEST, stop) for each in starts]
    names = [name] * len(stops)
    parts = files.cat_ranges(names, list(starts), stops, on_error='raise')
    return b''.join(parts)
  with open(path, 'rb') as file:
    file.seek(start)
    return file.read(stop - start)


def size_of(path):
  """Returns the size of a file in bytes."""
  if in_bucket(path):
    files, name = fsspec.core.url_to_fs(str(path))
    return files.info(name)['size']
  return os.path.getsize(path)


def sha256(path, *, cache):
  """Returns the sha256 of a file; a large one is read only when it changed.

  Args:
    path: on a disk or in a bucket.
    cache: folder, with a file for each path. What is damaged there is ignored,
      and so is a cache that cannot be written.
  """
  if not in_bucket(path) and os.path.getsize(path) < _SMALL:
    return _computed(path)
  version, settled = _version(path)
  cached = _cache_file(cache, path)
  if found := _cached(cached, version):
    return found
  found = _computed(path)
  if settled and _version(path)[0] == version:
    _remember(cached, version, found)
  return found


def _version(path):
  """Returns (what changes with the file, whether it is sure to change)."""
  if in_bucket(path):
    files, name = fsspec.core.url_to_fs(str(path))
    return f'{path} {files.ukey(name)}', True
  path = os.path.realpath(path)
  stat = os.stat(path)
  settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
  return f'{path} {stat.st_size} {stat.st_mtime_ns}', settled


def _computed(path):
  if not in_bucket(path):
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  digest, size = hashlib.sha256(), size_of(path)
  for start in range(0, size, _CHUNK):
    digest.update(read(path, start, min(start + _CHUNK, size)))
  return digest.hexdigest()


def _cache_file(cache, path):
  where = str(path) if in_bucket(path) else os.path.realpath(path)
  name = hashlib.sha256(where.encode()).hexdigest()[:32]
  return cache / f'{name}.json'


def _record(version, digest):
  fields = {'version': version, 'sha256': digest}
  check = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
  return {**fields, 'checksum': check}


def _cached(file, version):
  """Returns the digest of a file of the cache, or None."""
  try:
    record = json.loads(file.read_bytes())
    digest = record['sha256']
  except (OSError, ValueError, KeyError, TypeError):  # absent or damaged
    return None
  return digest if record == _record(version, digest) else None


def _remember(file, version, digest):
  partial = file.with_name(f'{file.name}.{os.getpid()}')
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(_record(version, digest)) + '\n')
    os.replace(partial, file)
  except OSError:  # a read-only or full disk: computed at each load
    with contextlib.suppress(OSError):
      partial.unlink()
