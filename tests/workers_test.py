"""Functions in processes of their own."""

import logging
import operator
import os
import signal
import subprocess
import sys
import time

from w2s_jax.tasks import workers

import tiny


def test_results_are_in_the_order_of_the_arguments():
  found = workers.run(operator.add, [(1, 2), ('a' * 10**6, 'b'), ([], [3])])
  assert found == [3, 'a' * 10**6 + 'b', [3]]
  assert len({os.getpid(), *workers.run(os.getpid, [(), ()])}) == 3


def test_none_where_it_cannot_be_done(monkeypatch, caplog):
  with caplog.at_level(logging.WARNING):
    assert workers.run(lambda: 1, [()]) is None  # cannot be sent
    assert workers.run(operator.truediv, [(1, 1), (1, 0)]) is None
    assert workers.run(os._exit, [(9,)]) is None  # as if it were killed
    monkeypatch.setattr(sys, 'executable', '/nowhere/python')
    assert workers.run(operator.add, [(1, 2)]) is None
  assert len(caplog.messages) == 4


def test_nothing_but_light_modules_is_imported():
  code = 'from w2s_jax.tasks import registry, workers; import sys; '
  code += 'sys.exit("jax" in sys.modules)'
  subprocess.run(
    [sys.executable, '-c', code],
    env=tiny.environment() | {'PYTHONPATH': str(tiny.ROOT)},
    check=True,
  )


def test_processes_end_with_the_one_that_started_them(tmp_path):
  """Also where that is killed; here by a script without a main guard."""
  (tmp_path / 'slow.py').write_text(
    'import os, time\n'
    'def wait(folder):\n'
    '  open(f"{folder}/{os.getpid()}", "w").close()\n'
    '  time.sleep(60)\n'
  )
  script = tmp_path / 'script.py'
  script.write_text(
    'import slow\n'
    'from w2s_jax.tasks import workers\n'
    'print("once", flush=True)\n'
    f'workers.run(slow.wait, [({str(tmp_path)!r},)] * 2)\n'
  )
  with subprocess.Popen(
    [sys.executable, script],
    env=tiny.environment() | {'PYTHONPATH': str(tiny.ROOT)},
    stdout=subprocess.PIPE,
  ) as process:
    pids = _wait(lambda: _pids(tmp_path), lambda found: len(found) == 2)
    assert all(map(_runs, pids))
    process.send_signal(signal.SIGKILL)
    assert process.stdout.read() == b'once\n'
  assert _wait(lambda: sum(map(_runs, pids)), lambda left: not left) == 0


def _pids(folder):
  return [int(path.name) for path in folder.glob('*') if path.name.isdigit()]


def _runs(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  with open(f'/proc/{pid}/stat') as file:
    return file.read().split(') ')[1][0] != 'Z'


def _wait(function, is_done):
  deadline = time.monotonic() + 60
  while not is_done(found := function()) and time.monotonic() < deadline:
    time.sleep(0.05)
  return found
