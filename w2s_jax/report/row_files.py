"""Reads the test rows that a study wrote to WORKDIR/rows."""

from etils import epath

from w2s_jax import errors
from w2s_jax.runtime import files


def read_test(workdir) -> list[dict]:
  """Returns {id: row} of each file of test rows.

  Raises:
    errors.UserError: a file is damaged.
  """
  paths = (epath.Path(workdir) / 'rows').glob('test-*.jsonl.gz')
  return [_read(path) for path in sorted(paths)]


def _read(path):
  try:
    rows = {row['id']: row for row in files.load_lines(path)}
  except (files.DamagedError, LookupError, TypeError):
    rows = {}
  if not rows:
    raise errors.UserError(
      f'{path} is damaged; delete it and run again: finished stages are not '
      'repeated.'
    )
  return rows
