"""What all commands do before they begin."""

import platform
import subprocess
import sys

import pytest

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
