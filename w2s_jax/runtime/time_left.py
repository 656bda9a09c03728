"""Estimates the time that the stages of a study still need."""

import dataclasses
from typing import Any
from typing import NamedTuple


class Work(NamedTuple):
  """What a stage does: of one kind, time is in proportion to the amount."""

  kind: Any
  amount: float


@dataclasses.dataclass
class Schedule:
  """Stages to be made, and the times of those made by this process."""

  waiting: dict = dataclasses.field(default_factory=dict)  # name -> Work
  done: list = dataclasses.field(default_factory=list)  # (Work, seconds)

  def left(self):
    """Returns (seconds, whether that is all); None if nothing is known."""
    seconds, unknown = seconds_left(self.waiting.values(), self.done)
    if not self.waiting or unknown == len(self.waiting):
      return None
    return seconds, not unknown


def seconds_left(waiting, done):
  """Returns (estimated seconds of what waits, how much of it is not known).

  Args:
    waiting: Work to do.
    done: (Work, seconds) of what was done; kinds of which nothing was done are
      counted as not known, and have no part in the seconds.
  """
  seconds, amounts = {}, {}
  for (kind, amount), taken in done:
    seconds[kind] = seconds.get(kind, 0.0) + taken
    amounts[kind] = amounts.get(kind, 0.0) + amount
  waiting = list(waiting)
  known = [work for work in waiting if amounts.get(work.kind)]
  left = sum(seconds[kind] / amounts[kind] * n for kind, n in known)
  return left, len(waiting) - len(known)
