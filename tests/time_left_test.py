"""Estimates of the time that a study still needs."""

from w2s_jax.runtime import time_left

Work = time_left.Work


def test_times_are_in_proportion_to_the_amount_by_kind():
  done = [
    (Work('train', 100), 10.0),
    (Work('train', 300), 10.0),  # 0.05 s each, over both
    (Work('predict', 50), 1.0),
  ]
  waiting = [Work('train', 1000), Work('predict', 100), Work('train', 20)]
  assert time_left.seconds_left(waiting, done) == (50 + 2 + 1, 0)


def test_kinds_of_which_nothing_was_done_are_counted():
  waiting = [Work('train', 10), Work('predict', 10), Work('prompt', 1)]
  done = [(Work('train', 10), 4.0)]
  assert time_left.seconds_left(waiting, done) == (4.0, 2)
  assert time_left.seconds_left(waiting, []) == (0, 3)
  assert time_left.seconds_left([], done) == (0, 0)
  assert time_left.seconds_left([Work('a', 9)], [(Work('a', 0), 1.0)]) == (0, 1)


def test_schedule_is_unknown_until_something_was_done():
  schedule = time_left.Schedule()
  assert schedule.left() is None
  schedule.waiting |= {'a': Work('train', 10), 'b': Work('predict', 10)}
  assert schedule.left() is None
  schedule.done.append((Work('train', 20), 4.0))
  assert schedule.left() == (2.0, False)
  del schedule.waiting['b']
  assert schedule.left() == (2.0, True)
  del schedule.waiting['a']
  assert schedule.left() is None  # the ETA of the last stage says it
