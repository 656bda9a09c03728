"""Checks the path of a workdir before anything is computed; imports no JAX."""

import os
import pathlib

from w2s_jax import errors


def check(workdir, field='workdir'):
  """Raises errors.UserError unless a workdir can be made and written to.

  Args:
    workdir: path as the user gave it, local or gs://.
    field: what the user knows it by.
  """
  if not isinstance(workdir, str | os.PathLike):
    raise errors.UserError(
      f'{field}={workdir!r} is not a path; name a folder for results.'
    )
  if not str(workdir):
    raise errors.UserError(f'{field} is empty; name a folder for results.')
  path = pathlib.Path(workdir).expanduser()
  if found := set('*?[') & set(str(path.absolute())):
    raise errors.UserError(
      f'{field}={workdir}: its path must not have {" ".join(sorted(found))}, '
      'which checkpoints cannot be found under.'
    )
  if '://' in str(workdir):
    return
  existing = next(p for p in (path, *path.parents) if os.path.exists(p))
  if not existing.is_dir():
    raise errors.UserError(
      f'{field}={workdir}: {existing} is a file; name another folder.'
    )
  if not os.access(existing, os.W_OK | os.X_OK):
    raise errors.UserError(
      f'{field}={workdir}: {existing} is not writable; change its '
      'permissions or name another folder.'
    )
