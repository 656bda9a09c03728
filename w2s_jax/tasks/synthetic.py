"""Generates synthetic reviews, for debugging and tests."""

import functools

import numpy as np

_PRAISE = """
  great good superb warm funny moving clever lovely bright fresh gentle brave
  rich sharp sweet honest charming graceful vivid tender witty lively elegant
  touching stunning radiant soulful joyous nimble luminous""".split()
_BLAME = """
  bad awful dull cold boring weak stupid ugly stale tired clumsy lazy flat
  messy bitter fake tedious hollow bland grim silly lifeless dreary shallow
  painful murky sloppy joyless inept vapid""".split()
_FILLER = np.array(
  """
  the a this that film movie story plot actor scene script camera music ending
  and with of in on for from about very quite rather some every his her their
  town night train river dog king doctor brother summer war dream city road
  house letter garden winter money school island ship song window watch made
  seen told left came went found kept felt""".split()
)


@functools.cache
def reviews(*, rows: int = 10_000) -> tuple[dict, ...]:
  """Returns rows whose label is whether praise outnumbers blame.

  'not' negates the next cue, rare cues take many rows to learn, and 4 % of the
  labels are noise, so capacity and data both matter.
  """
  # The stream of RandomState is the same in all versions of NumPy.
  random = np.random.RandomState(0)
  frequency = 1 / np.arange(1, len(_PRAISE) + 1)
  cumulative = np.cumsum(frequency / frequency.sum())
  cumulative /= cumulative[-1]
  made = []
  for _ in range(rows):
    cues = 2 * random.randint(0, 3) + 1  # Odd: no ties.
    length = random.randint(max(4, 2 * cues), 41)
    words = random.choice(_FILLER, length).tolist()
    label = int(random.rand() < 0.5)
    agree = random.randint(cues // 2 + 1, cues + 1)
    places = 2 * random.permutation(length // 2)[:cues]
    for i, place in enumerate(places):
      praise = label == (i < agree)
      negated = random.rand() < 0.15
      cue = cumulative.searchsorted(random.rand(), side='right')
      words[place + 1] = (_PRAISE if praise != negated else _BLAME)[cue]
      if negated:
        words[place] = 'not'
    noise = random.rand() < 0.04
    made.append({'text': ' '.join(words), 'label': label ^ int(noise)})
  return tuple(made)
