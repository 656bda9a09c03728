"""Locks: one holder at a time, also when holders die."""

import json
import subprocess
import sys
import threading
import time

import pytest

from w2s_jax.runtime import lock


def most_holders(path):
  """How many of three threads that want a lock hold it at once, at most."""
  inside, most = 0, 0

  def work():
    nonlocal inside, most
    with lock.hold(path) as held:
      assert held
      inside += 1
      most = max(most, inside)
      time.sleep(0.1)
      inside -= 1

  threads = [threading.Thread(target=work) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return most


def test_one_holder_at_a_time(tmp_path):
  assert most_holders(tmp_path / 'LOCK') == 1
  assert not (tmp_path / 'LOCK').exists()


def test_it_is_given_back_after_an_error(tmp_path):
  with pytest.raises(KeyError):
    with lock.hold(tmp_path / 'LOCK'):
      raise KeyError
  assert not (tmp_path / 'LOCK').exists()


def test_who_waits_is_told_and_stops_when_there_is_nothing_to_do(tmp_path):
  told = []
  with lock.hold(tmp_path / 'LOCK'):
    with lock.hold(
      tmp_path / 'LOCK',
      until=lambda: bool(told),
      waiting=lambda: told.append(1),
    ) as held:
      assert not held
    assert (tmp_path / 'LOCK').exists()
  assert told == [1]


def test_the_lock_of_a_dead_process_is_taken_at_once(tmp_path):
  code = (
    'import os\nfrom w2s_jax.runtime import lock\n'
    f'with lock.hold({str(tmp_path / "LOCK")!r}):\n  os._exit(1)'
  )
  subprocess.run([sys.executable, '-c', code], check=False)
  assert (tmp_path / 'LOCK').exists()
  started = time.monotonic()
  with lock.hold(tmp_path / 'LOCK') as held:
    assert held
  assert time.monotonic() - started < lock.EXPIRY / 2


def test_the_lock_of_another_machine_expires_unless_it_is_renewed(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(lock, 'EXPIRY', 0.8)
  monkeypatch.setattr(lock, '_LOOK', 0.05)
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
