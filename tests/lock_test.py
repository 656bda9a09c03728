"""Locks: one holder at a time, even if holders die or cannot write."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from w2s_jax.runtime import lock


def most_holders(path):
  """Most of three threads that hold a lock at once."""
  inside, most = 0, 0

  def work():
    nonlocal inside, most
    with lock.hold(path) as held:
      inside += 1
      most = max(most, inside)
      time.sleep(0.1)
      held.check()
      inside -= 1

  threads = [threading.Thread(target=work) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert inside == 0  # each acquired it
  return most


def content(**fields):
  """A lock of this process, but for some fields of its holder."""
  holder = lock._holder() | {'id': 'another'} | fields
  return f'{json.dumps(holder)}\n0\n'


def ended_process():
  process = subprocess.Popen([sys.executable, '-c', ''])
  process.wait()
  return process.pid


def seconds_to_acquire(path):
  started = time.monotonic()
  with lock.hold(path) as held:
    seconds = time.monotonic() - started
    assert path.is_file() and not path.is_symlink()
    held.check()
  assert not list(path.parent.iterdir())
  return seconds


@pytest.fixture
def quick(monkeypatch):
  """Seconds become tenths, but for those after which a holder is dead."""
  for name in ('_BEAT', '_RETRY', '_POLL', '_SETTLE'):
    monkeypatch.setattr(lock, name, getattr(lock, name) / 10)


def failing_writes(monkeypatch, count):
  """The next writes of beats fail; returns the list of all that are tried."""
  tries, write = [], lock.Lock._write

  def flaky(self, beat):
    tries.append(beat)
    if len(tries) <= count:
      raise OSError('503')
    write(self, beat)

  monkeypatch.setattr(lock.Lock, '_write', flaky)
  return tries


def wait_until(condition):
  deadline = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_one_holder_at_a_time(tmp_path):
  assert most_holders(tmp_path / 'LOCK') == 1
  assert not list(tmp_path.iterdir())


def test_error_releases_the_lock(tmp_path):
  with pytest.raises(KeyError):
    with lock.hold(tmp_path / 'LOCK'):
      raise KeyError
  assert not (tmp_path / 'LOCK').exists()


def test_waiting_is_reported_and_ends_with_its_condition(tmp_path):
  told = []
  with lock.hold(tmp_path / 'LOCK'):
    with lock.hold(
      tmp_path / 'LOCK',
      until=lambda: bool(told),
      waiting=lambda: told.append(1),
    ) as held:
      assert held is None
    assert (tmp_path / 'LOCK').exists()
  assert told == [1]


def test_lock_of_a_dead_process_is_taken_at_once(tmp_path):
  code = (
    'import os\nfrom w2s_jax.runtime import lock\n'
    f'with lock.hold({str(tmp_path / "LOCK")!r}):\n  os._exit(1)'
  )
  subprocess.run([sys.executable, '-c', code], check=False)
  assert (tmp_path / 'LOCK').exists()
  assert seconds_to_acquire(tmp_path / 'LOCK') < lock.EXPIRY / 2


def test_dead_lock_goes_to_one_of_several_that_wait(tmp_path, quick):
  (tmp_path / 'LOCK').write_text(content(pid=ended_process()))
  assert most_holders(tmp_path / 'LOCK') == 1
  assert not list(tmp_path.iterdir())


def test_lock_of_another_machine_expires_unless_it_is_renewed(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(lock, 'EXPIRY', 0.8)
  monkeypatch.setattr(lock, '_POLL', 0.05)
  path = tmp_path / 'LOCK'
  holder = json.dumps({'host': 'elsewhere', 'pid': 1, 'id': 'x'})
  path.write_text(f'{holder}\n0\n')
  beats = 4

  def renew():
    for beat in range(1, beats + 1):
      time.sleep(0.4)
      path.write_text(f'{holder}\n{beat}\n')

  thread = threading.Thread(target=renew)
  started = time.monotonic()
  thread.start()
  with lock.hold(path) as held:
    assert held
    assert time.monotonic() - started > 0.4 * beats + 0.7
  thread.join()


@pytest.mark.parametrize('field', ['host', 'boot', 'pid_space'])
def test_pid_of_another_machine_or_container_is_not_judged(
  field, tmp_path, monkeypatch
):
  """A process with this PID ended here, but the holder is elsewhere."""
  monkeypatch.setattr(lock, '_UNREADABLE_EXPIRY', 0)
  path = tmp_path / 'LOCK'
  path.write_text(content(pid=ended_process(), **{field: 'another'}))
  before = path.read_text()
  deadline = time.monotonic() + 1.5
  with lock.hold(path, until=lambda: time.monotonic() > deadline) as held:
    assert held is None
  assert path.read_text() == before


linux = pytest.mark.skipif(not os.path.exists('/proc'), reason='needs /proc')


@linux
def test_reused_pid_is_dead_at_once(tmp_path, quick):
  (tmp_path / 'LOCK').write_text(content(started='1'))
  assert seconds_to_acquire(tmp_path / 'LOCK') < lock.EXPIRY / 2


@linux
def test_zombie_is_dead_at_once(tmp_path, quick):
  process = subprocess.Popen([sys.executable, '-c', ''])
  wait_until(lambda: lock._process(process.pid)[0] == 'Z')
  started = lock._process(process.pid)[1]
  (tmp_path / 'LOCK').write_text(content(pid=process.pid, started=started))
  assert seconds_to_acquire(tmp_path / 'LOCK') < lock.EXPIRY / 2
  process.wait()


@linux
def test_start_is_read_past_any_process_name():
  code = 'open("/proc/self/comm", "w").write("a) Z 1 (b"); input()'
  process = subprocess.Popen([sys.executable, '-c', code], stdin=-1)
  stat = f'/proc/{process.pid}/stat'
  wait_until(lambda: '(a) Z 1 (b)' in open(stat).read())
  state, started = lock._process(process.pid)
  assert state != 'Z'
  assert int(started) >= int(lock._process(os.getpid())[1])
  process.communicate(b'\n')


def test_without_proc_the_host_and_pid_decide(tmp_path, monkeypatch):
  machine = {'host': lock._machine()['host'], 'boot': None, 'pid_space': None}
  monkeypatch.setattr(lock, '_machine', lambda: machine)
  monkeypatch.setattr(lock, '_process', lambda pid: None)
  path = tmp_path / 'LOCK'
  path.write_text(content())
  deadline = time.monotonic() + 1
  with lock.hold(path, until=lambda: time.monotonic() > deadline) as held:
    assert held is None
  path.write_text(content(pid=ended_process()))
  assert seconds_to_acquire(path) < lock.EXPIRY / 2


@pytest.mark.parametrize('damaged', [b'', b'{"host": ', b'\xff\n0\n', b'[]\n'])
def test_damaged_lock_is_dead_after_a_moment(
  damaged, tmp_path, monkeypatch, quick
):
  assert lock._UNREADABLE_EXPIRY < 5
  monkeypatch.setattr(lock, '_UNREADABLE_EXPIRY', 0.5)
  (tmp_path / 'LOCK').write_bytes(damaged)
  assert 0.5 < seconds_to_acquire(tmp_path / 'LOCK') < lock.EXPIRY / 2


def test_lock_in_creation_is_not_damaged(tmp_path, monkeypatch, quick):
  monkeypatch.setattr(lock, '_UNREADABLE_EXPIRY', 1.5)
  path = tmp_path / 'LOCK'
  path.write_text('')
  threading.Timer(0.5, path.write_text, [content()]).start()
  deadline = time.monotonic() + 2 * lock._UNREADABLE_EXPIRY
  with lock.hold(path, until=lambda: time.monotonic() > deadline) as held:
    assert held is None


def test_dangling_symlink_is_replaced(tmp_path, quick):
  (tmp_path / 'LOCK').symlink_to(tmp_path / 'nowhere')
  assert seconds_to_acquire(tmp_path / 'LOCK') < lock.EXPIRY / 2


def test_folder_is_an_error(tmp_path):
  (tmp_path / 'LOCK').mkdir()
  with pytest.raises(ValueError, match='LOCK is a folder, .* delete it'):
    with lock.hold(tmp_path / 'LOCK'):
      pass


def test_failed_beats_are_tried_again(tmp_path, monkeypatch, quick):
  path = tmp_path / 'LOCK'
  tries = failing_writes(monkeypatch, count=3)
  with lock.hold(path) as held:
    wait_until(lambda: len(tries) >= 5)
    held.check()
    assert not path.read_text().endswith('\n0\n')


def test_beats_that_fail_until_expiry_lose_the_lock(
  tmp_path, monkeypatch, quick
):
  monkeypatch.setattr(lock, 'EXPIRY', 1.5)
  tries = failing_writes(monkeypatch, count=1000)
  with lock.hold(tmp_path / 'LOCK') as held:
    held.check()
    time.sleep(1.6)
    with pytest.raises(lock.Lost, match=r"not renewed .*OSError\('503'\)"):
      held.check()
    last = len(tries)
    time.sleep(1.1)
    assert len(tries) <= last + 1  # it does not beat on


@pytest.mark.parametrize('taken', [content(), None])
def test_lost_lock_is_noticed_and_left_alone(taken, tmp_path):
  path = tmp_path / 'LOCK'
  with lock.hold(path) as held:
    held.check()
    if taken:
      path.write_text(taken)
    else:
      path.unlink()
    with pytest.raises(ValueError) as error:
      held.check()
    assert isinstance(error.value, lock.Lost)
    assert str(error.value) == (
      f'{tmp_path}: another job took over LOCK; this one stops.'
    )
    path.unlink(missing_ok=True)
    with pytest.raises(lock.Lost):
      held.check()  # even if the other job is done
    path.write_text(content())
  assert path.read_text() == content()


def test_suspended_holder_loses_its_lock(tmp_path, monkeypatch, quick):
  """It is stopped, its lock is taken over and released, and it goes on."""
  path = tmp_path / 'LOCK'
  code = (
    'from w2s_jax.runtime import lock\n'
    f'with lock.hold({str(path)!r}) as held:\n'
    '  print("held", flush=True)\n  input()\n  held.check()'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdin=-1, stdout=-1, stderr=-1, text=True
  )
  assert process.stdout.readline() == 'held\n'
  process.send_signal(signal.SIGSTOP)
  monkeypatch.setattr(lock, 'EXPIRY', 3.0)
  assert seconds_to_acquire(path) >= 3
  process.send_signal(signal.SIGCONT)
  _, errors = process.communicate('\n', timeout=30)
  assert process.returncode == 1
  assert f'{tmp_path}: another job took over LOCK' in errors
