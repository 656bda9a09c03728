"""Rates of recent steps, without what was waited for."""

import pytest

from w2s_jax.runtime import pace as pace_lib


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def add(pace, clock, seconds, waited=False, **amount):
  clock.now += seconds
  amount = pace_lib.Amount(steps=1, examples=8, **amount)
  return pace.add(amount, waited=waited)


def test_neither_the_first_update_nor_waiting_counts():
  clock = Clock()
  pace = pace_lib.Pace(clock)
  assert add(pace, clock, 30.0) is None
  assert add(pace, clock, 60.0, waited=True) is None
  assert pace.per_second() is None
  assert add(pace, clock, 0.5, tokens=40, peak_seconds=0.1) == 0.5
  assert add(pace, clock, 60.0, waited=True, tokens=1000) is None
  assert add(pace, clock, 1.5, tokens=60, peak_seconds=0.1) == 1.5
  assert pace.per_second() == pytest.approx((1.0, 8.0, 50.0, 0.1))


def test_slow_steps_of_the_start_are_forgotten():
  clock = Clock()
  pace = pace_lib.Pace(clock)
  for _ in range(50):  # while other programs are compiled
    add(pace, clock, 4.0)
  assert pace.per_second().steps == pytest.approx(1 / 4)
  for _ in range(100):
    add(pace, clock, 0.25)
  assert pace.per_second().steps == pytest.approx(4)


def test_no_time_is_no_rate():
  clock = Clock()
  pace = pace_lib.Pace(clock)
  for _ in range(3):
    add(pace, clock, 0.0)
  assert pace.per_second() is None
