"""Functions in processes of their own."""

import logging
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from w2s_jax.tasks import workers

import tiny


def test_results_are_in_the_order_of_the_arguments():
  found = workers.run(operator.add, [(1, 2), ('a' * 10**6, 'b'), ([], [3])])
  assert found == [3, 'a' * 10**6 + 'b', [3]]
  assert os.getpid() not in workers.run(os.getpid, [(), ()])


def test_none_where_it_cannot_be_done(caplog):
  with caplog.at_level(logging.WARNING):
    assert workers.run(lambda: 1, [()]) is None  # cannot be sent
    assert workers.run(os._exit, [(9,)]) is None  # as if it were killed
  assert len(caplog.messages) == 2
  with pytest.raises(ZeroDivisionError):
    workers.run(operator.truediv, [(1, 1), (1, 0)])


def test_none_in_a_daemon():
  context = multiprocessing.get_context('spawn')
  daemon = context.Process(target=_exit_with_none, daemon=True)
  daemon.start()
  daemon.join()
  assert daemon.exitcode == 3


def _exit_with_none():
  sys.exit(3 if workers.run(abs, [(1,)]) is None else 0)


def started(tmp_path, call):
  """Starts a script, without and with a main guard, that calls `run`."""
  (tmp_path / 'slow.py').write_text(
    'import os, time\n'
    'def wait(folder):\n'
    '  open(f"{folder}/{os.getpid()}", "w").close()\n'
    '  time.sleep(60)\n'
  )
  script = tmp_path / 'script.py'
  script.write_text(f'import slow\nfrom w2s_jax.tasks import workers\n{call}\n')
  return subprocess.Popen(
    [sys.executable, script],
    env=tiny.environment() | {'PYTHONPATH': str(tiny.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
  )


def test_processes_end_with_the_one_that_started_them(tmp_path):
  """Also where that is killed."""
  call = f'workers.run(slow.wait, [({str(tmp_path)!r},)] * 2)'
  with started(tmp_path, f'if __name__ == "__main__":\n  {call}') as process:
    pids = _wait(lambda: _pids(tmp_path), lambda found: len(found) == 2)
    assert len(pids) == 2 and all(map(_runs, pids))
    process.send_signal(signal.SIGKILL)
  assert _wait(lambda: sum(map(_runs, pids)), lambda left: not left) == 0


def test_none_in_a_script_without_a_main_guard(tmp_path):
  call = 'print(workers.run(abs, [(1,)] * 2), __name__)'
  with started(tmp_path, call) as process:
    assert process.stdout.read() == b'None __main__\n'


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
