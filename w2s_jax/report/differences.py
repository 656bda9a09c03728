"""Paired differences between the students of two methods of one study.

Shapes: S seeds, N test examples.
"""

import numpy as np

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import groups as groups_lib

# Fields of results.METHOD and their plain values, with names for messages.
PLAIN = {
  'via': ((), 'naive'),
  'loss': ('xent', 'xent'),
  'weak_labels': ('soft', 'soft'),
  'early_stopping': ('none', 'not stopped'),
  'generative': (False, 'without generative'),
  'variant': ('', 'no variant'),
}
_NAME = (*results.PANEL, *results.METHOD)


def paired(groups) -> list[dict]:
  """Differences of each method from those that are plainer in one field.

  Between students of the same task and models whose methods are equal but for
  one field, which is plain in the second: logconf - xent, a chain - naive. Over
  the seeds that both have, paired by seed and test example.

  Returns:
    Dicts with the fields of the first group, the `field`, `than` for its plain
    value, `n_seeds`, and metrics.Difference of the `student` and of the
    `ceiling`; None for ceilings that are the same.
  """
  found = []
  for panel in groups_lib.by(groups, *results.PANEL).values():
    named = {tuple(group[f] for f in _NAME): group for group in panel}
    for group in panel:
      for field, (plain, than) in PLAIN.items():
        plainer = group | {field: plain}
        other = named.get(tuple(plainer[f] for f in _NAME))
        if group[field] == plain or other is None:
          continue
        if compared := _compare(group, other):
          found.append(
            {name: group[name] for name in _NAME}
            | {'field': field, 'than': than, **compared}
          )
  return found


def _compare(group, other):
  """Differences of student and ceiling; None if they have nothing in common."""
  seeds = [seed for seed in group['seeds'] if seed in other['seeds']]
  if not seeds or not np.array_equal(group['test_ids'], other['test_ids']):
    return None
  differences = {'n_seeds': len(seeds)}
  for role in ('student', 'ceiling'):
    left_SxN, right_SxN = (
      x['correct'][role][[x['seeds'].index(seed) for seed in seeds]]
      for x in (group, other)
    )
    differences[role] = None
    if role == 'student' or not np.array_equal(left_SxN, right_SxN):
      differences[role] = metrics.paired_difference(left_SxN, right_SxN)
  return differences


def over_tasks(differences) -> list[dict]:
  """Medians of the students' differences of each method over its tasks.

  As `paired`, of those with more than one task. The interval is from resampling
  tasks, None for fewer than six; `above` and `below` count the tasks whose own
  interval excludes 0.
  """
  key = *results.PAIR, *results.METHOD, 'field'
  medians = []
  for alike in groups_lib.by(differences, *key).values():
    if len(alike) == 1:
      continue
    students = [difference['student'] for difference in alike]
    median = metrics.median_interval([student.value for student in students])
    medians.append(
      alike[0]
      | {
        'task': 'over tasks',
        'n_tasks': len(alike),
        'student': metrics.Difference(median.value, median.low, median.high),
        'ceiling': None,
        'above': sum(student.low > 0 for student in students),
        'below': sum(student.high < 0 for student in students),
      }
    )
  return medians


def text(difference):
  """A metrics.Difference in points: '+1.4 [0.8, 2.0]'."""
  if difference is None:
    return '–'
  value, low, high = (None if x is None else 100 * x for x in difference)
  interval = '' if low is None else f' [{low:z.1f}, {high:z.1f}]'
  return f'{value:+z.1f}{interval}'  # z: no -0.0
