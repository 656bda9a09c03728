"""How fast the steps of a stage are, without what was waited for."""

import collections
from typing import NamedTuple

# Recent updates: while programs compile in other threads steps are slower.
_UPDATES = 100


class Amount(NamedTuple):
  """What was done in some steps."""

  steps: int
  examples: int
  tokens: int = 0  # without padding; 0: not known
  # Least time of the matmuls on the devices, at their peak; 0: not known.
  peak_seconds: float = 0.0


class Pace:
  """Rates over the last updates."""

  def __init__(self, clock):
    self._clock = clock
    self._updated = None
    self._recent = collections.deque(maxlen=_UPDATES)  # (seconds, Amount)

  def add(self, amount, *, waited):
    """Returns the seconds since the last update; None if they say nothing.

    Those before the first update have the start of the program in them.

    Args:
      amount: an Amount, what was done since the last update.
      waited: whether another step waited for its compilation in that time.
        Devices go on meanwhile, so neither time nor amount counts.
    """
    now, before = self._clock(), self._updated
    self._updated = now
    if before is None or waited:
      return None
    self._recent.append((now - before, amount))
    return now - before

  def per_second(self):
    """Returns Amount per second, all as float; None while it is not known."""
    seconds = sum(seconds for seconds, _ in self._recent)
    if not seconds:
      return None
    amounts = zip(*(amount for _, amount in self._recent))
    return Amount(*(sum(x) / seconds for x in amounts))
