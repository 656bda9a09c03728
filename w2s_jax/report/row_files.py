"""Reads the test rows that a study wrote to WORKDIR/rows."""

import gzip
import json
import zlib

from etils import epath

from w2s_jax import errors


def read_test(workdir) -> list[dict]:
  """Returns {id: row} of each file of test rows.

  Raises:
    errors.UserError: a file is damaged.
  """
  paths = (epath.Path(workdir) / 'rows').glob('test-*.jsonl.gz')
  return [_read(path) for path in sorted(paths)]


def _read(path):
  try:
    text = gzip.decompress(path.read_bytes()).decode()
    # Texts may hold other marks that `splitlines` takes for the end of a line.
    rows = [json.loads(line) for line in text.rstrip('\n').split('\n')]
    return {row['id']: row for row in rows}
  except (OSError, EOFError, ValueError, LookupError, TypeError, zlib.error):
    raise errors.UserError(
      f'{path} is damaged; delete it and run again: finished stages are not '
      'repeated.'
    ) from None
