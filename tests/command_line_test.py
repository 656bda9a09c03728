"""Flags, consoles and memory that all commands share."""

import io
import platform
import subprocess
import sys

import forked
import pytest
import rich.table

from experiments import command_line

import tiny

BUFFERS = """
import resource, threading

from experiments import command_line

def fill():
  b'x' * 2**26  # a buffer of 16,384 pages, written and freed

def pages_of_a_second():
  fill()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  fill()
  pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

command_line.keep_memory()
pages = []
thread = threading.Thread(target=pages_of_a_second)
thread.start()
thread.join()
print(*pages)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='no glibc here')
def test_freed_memory_is_used_again():
  process = subprocess.run(
    [sys.executable, '-c', BUFFERS],
    cwd=tiny.ROOT,
    env=tiny.environment(),
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  )
  assert int(process.stdout) < 100


def run(*flags):
  """(exit status, lines on stderr) of main.py, which trains nothing here."""
  done = forked.run('experiments/main.py', *flags)
  return done.returncode, done.stderr.splitlines()


CONFIG = '--config', 'configs/nlp.py:debug'


@pytest.mark.parametrize(
  'flags, says',
  [
    ([*CONFIG, '--config.seedz=1', '--workdir=W'], "no field 'seedz'"),
    ([*CONFIG], '--workdir'),
    ([*CONFIG, '--workdir='], '--workdir is empty; name a folder'),
    ([*CONFIG, '--workdir', 'W', '--config'], 'config'),
    (['--workdir=W', '--', '--config=a.py'], 'before --config=a.py'),
    ([*CONFIG, '--workdir=W', 'sweep'], "'sweep' is not a flag"),
    ([*CONFIG, '--workdir=W/[red]*'], 'its path must not have * ['),
    ([*CONFIG, '--workdir=W/file'], '/file is a file; name another folder'),
    ([*CONFIG, '--workdir=W/file/a/b'], '/file is a file; name another'),
    (['--config=configs', '--workdir=W'], '--config=configs is a folder'),
    (
      ['--config=configs/pretrain_chess.py', '--workdir=W'],
      'configs/pretrain_chess.py: this is not the config of a study: it has no',
    ),
    (
      ['--config=configs/pretrain_chess.py', '--workdir=W', '--sweep'],
      '--sweep: configs/pretrain_chess.py has no function',
    ),
  ],
)
def test_a_mistake_is_one_line_on_stderr(flags, says, tmp_path):
  (tmp_path / 'file').touch()
  status, lines = run(*(f.replace('W', str(tmp_path)) for f in flags))
  assert status == 1
  (line,) = lines
  assert line.startswith('error: ') and says in line, line
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_workdir_that_is_not_writable(tmp_path):
  code = f"""
import os
from w2s_jax.runtime import workdir_path
if os.getuid() == 0:  # root may write anywhere
  os.setuid(65534)
workdir_path.check({str(tmp_path / 'w')!r}, '--workdir')
"""
  tmp_path.chmod(0o555)
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tiny.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  tmp_path.chmod(0o755)
  assert 'UserError: --workdir=' in done.stderr, done.stderr
  assert 'is not writable; change its permissions' in done.stderr


def test_brackets_and_colons_are_printed_as_they_are():
  console = command_line.console()
  console.file = io.StringIO()
  table = rich.table.Table(title='[red]')
  table.add_column('[bold]')
  table.add_row('[/]')
  for text in ('runs/[red]x :smile:', table):
    console.print(text)
  printed = console.file.getvalue()
  for text in ('runs/[red]x :smile:', '[red]', '[bold]', '[/]'):
    assert text in printed
