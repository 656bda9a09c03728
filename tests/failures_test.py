"""How commands end: one line, and the traceback in a file."""

import errno
import os
import shutil
import subprocess

import pytest

from experiments import failures
from w2s_jax import errors

import tiny


def ended(error, workdir, monkeypatch):
  """(status or message of the exit) of a command that raises an error."""

  def leave():
    raise SystemExit('left at once')

  monkeypatch.setattr(failures, '_exit_now', leave)
  with pytest.raises(SystemExit) as exit:
    with failures.one_line(str(workdir)):
      raise error
  return exit.value.code


def raised(error, *, cause=None, context=None):
  """The error after it was raised from another, or while one was handled."""
  error.__context__ = context
  if cause:
    error.__cause__ = cause
  try:
    raise error
  except Exception as e:
    return e


def test_a_mistake_of_the_user_is_its_message(tmp_path, monkeypatch):
  error = errors.MissingFileError('a\n  b: not there')
  error.add_note('Process 1 ends.')
  said = ended(error, tmp_path, monkeypatch)
  assert said == 'error: a b: not there Process 1 ends.'
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', [ValueError, ImportError, RuntimeError])
def test_a_defect_keeps_its_traceback(kind, tmp_path, monkeypatch):
  cause = KeyError('inner')
  error = raised(kind('of\nJAX'), cause=cause)
  error.add_note('-----\nFor simplicity, JAX has removed its frames.')
  error.add_note('Process 1\nends.')
  said = ended(error, tmp_path / 'w', monkeypatch)
  (path,) = (tmp_path / 'w' / 'errors').iterdir()
  assert (
    said
    == f'error: {kind.__name__}: of JAX Process 1 ends. (traceback: {path})'
  )
  text = path.read_text()
  for part in ("KeyError: 'inner'", 'in raised', 'direct cause', kind.__name__):
    assert part in text
  assert path.name.endswith(f'-{os.getpid()}.txt')


def test_a_traceback_that_cannot_be_written_is_printed(
  tmp_path, monkeypatch, capsys
):
  (tmp_path / 'errors').touch()  # no folder
  said = ended(RuntimeError('a'), tmp_path, monkeypatch)
  assert said == 'error: RuntimeError: a'
  assert 'Traceback' in capsys.readouterr().err


def test_without_a_workdir_a_defect_passes():
  with pytest.raises(ValueError, match='a defect'):
    with failures.one_line(None):
      raise ValueError('a defect')


FULL = OSError(errno.ENOSPC, 'No space left on device')
TENSORSTORE = (
  'RESOURCE_EXHAUSTED: Error writing local file "{}/stages/a/_sharding": Failed'
  ' to write 10272 bytes to file 12: No space left on device'
)


@pytest.mark.parametrize(
  'wrap',
  [
    lambda full: full,
    lambda full: raised(ValueError('a'), cause=full),
    lambda full: raised(RuntimeError('a'), context=full),
    lambda full: raised(KeyError('a'), cause=raised(ValueError(), cause=full)),
    lambda full: ExceptionGroup('a', [KeyError('b'), full]),
  ],
)
@pytest.mark.parametrize('named', [True, False])
def test_a_full_disk_is_named(wrap, named, tmp_path, monkeypatch, capsys):
  if named:
    full = OSError(errno.ENOSPC, 'full', str(tmp_path / 'stages' / 'DONE'))
  else:
    full = ValueError(TENSORSTORE.format(tmp_path))
  assert ended(wrap(full), tmp_path, monkeypatch) == 'left at once'
  assert capsys.readouterr().err == (
    f'error: {tmp_path}: No space left on device. Free some space; the same '
    'command goes on from the last checkpoint.\n'
  )


@pytest.mark.parametrize(
  'code, advice',
  [
    (errno.EDQUOT, 'Disk quota exceeded. Free some space or raise the quota;'),
    (errno.EROFS, 'Read-only file system. Make it writable;'),
    (errno.EACCES, 'Permission denied. Change its permissions;'),
  ],
)
def test_other_reasons_of_disks(code, advice, tmp_path, monkeypatch, capsys):
  ended(OSError(code, 'a'), tmp_path, monkeypatch)
  assert f'{tmp_path}: {advice} the same' in capsys.readouterr().err


def test_a_full_disk_other_than_the_workdir(monkeypatch):
  elsewhere = OSError(errno.ENOSPC, 'full', '/cache/a/b.zip')
  code, path = failures.disk_failure(elsewhere)
  assert failures.disk_message(code, path, '/runs').startswith('/cache/a: No')
  free = {'/runs': 9, '/cache': 0, failures.tempfile.gettempdir(): 9}
  monkeypatch.setattr(failures, '_free', free.get)
  monkeypatch.setattr(failures.assets, 'cache_dir', lambda: '/cache')
  code, path = failures.disk_failure(FULL)
  assert failures.disk_message(code, path, '/runs').startswith('/cache: No')
  free['/cache'] = 9
  assert failures.disk_message(code, path, '/runs').startswith('/runs: No')


def test_what_only_looks_like_a_disk():
  memory = RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes')
  assert failures.disk_failure(memory) is None
  missing = FileNotFoundError(errno.ENOENT, 'a')
  assert failures.disk_failure(missing) is None
  hidden = raised(ValueError('a'), context=FULL)
  hidden.__suppress_context__ = True  # as by `from None`
  assert failures.disk_failure(hidden) is None


@pytest.mark.skipif(
  os.geteuid() != 0 or not shutil.which('mount'), reason='cannot mount a disk'
)
def test_a_study_on_a_disk_that_fills_up(tmp_path):
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', tmp_path]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('cannot mount a disk')
  workdir = tmp_path / 'w'
  try:
    process = tiny.start(workdir)
    stderr = process.communicate(timeout=300)[1]
    record = (workdir / 'run.json').read_text()
  finally:
    subprocess.run(['umount', tmp_path], check=True)
  assert process.returncode == 1
  assert stderr.splitlines()[-1] == (
    f'error: {workdir}: No space left on device. Free some space; the same '
    'command goes on from the last checkpoint.'
  )
  assert 'orbax' not in stderr
  assert '"status": "' in record
