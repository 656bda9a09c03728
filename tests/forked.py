"""Commands that start at once: each is a fork of a process that has imported.

Importing jax and this package takes seconds of a core, a command that only
prints a message takes a tenth. Forks begin before jax has any device or thread,
so each is like a process of its own.
"""

import atexit
import functools
import json
import subprocess
import sys
from typing import NamedTuple

import tiny

SERVER = """
import json, os, runpy, signal, sys, tempfile, traceback

from experiments import failures
from experiments.plan import ahead
from w2s_jax import study

def command(argv, output):
  for number, file in enumerate(output, 1):
    os.dup2(file.fileno(), number)
  signal.alarm(300)
  status = 0
  try:
    if argv[0] == '-c':
      sys.argv = ['-c', *argv[2:]]
      exec(argv[1], {'__name__': '__main__'})
    else:
      sys.argv = argv
      runpy.run_path(argv[0], run_name='__main__')
  except SystemExit as e:
    status = e.code
    if isinstance(status, str):
      print(status, file=sys.stderr)
      status = 1
  except BaseException:
    traceback.print_exc()
    status = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status or 0)

for line in sys.stdin:
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    child = os.fork()
    if not child:
      command(json.loads(line), (out, err))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.read())
  print(json.dumps([status, *texts]), flush=True)
"""


class Done(NamedTuple):
  returncode: int
  stdout: str
  stderr: str


@functools.cache
def _server(devices):
  server = subprocess.Popen(
    [sys.executable, '-c', SERVER],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=tiny.ROOT,
    env=tiny.environment() | {'JAX_NUM_CPU_DEVICES': str(devices)},
  )
  atexit.register(server.kill)
  return server


def run(*argv, devices=1):
  """Runs a script or, after '-c', code with arguments; returns Done."""
  server = _server(devices)
  server.stdin.write(json.dumps([str(x) for x in argv]) + '\n')
  server.stdin.flush()
  return Done(*json.loads(server.stdout.readline()))
