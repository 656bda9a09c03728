"""Reads controls: students of labels with nothing, or everything, to learn."""

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax import weak_labels

# {control: (what its student is compared with, what should come out)}
EXPECTED = {
  'shuffled': ('chance', 'not above it'),
  'constant': ('chance', 'not above it'),
  'random errors': ('student of the weak labels', 'not below it'),
  'truth': ('ceiling', 'not below it'),
}
_HARMFUL = (
  'On the truth {loss} is {points:.1f} points below the ceiling: where it '
  'fails on weak labels, too, its schedule, not the supervision, is at fault.'
)


def split(groups):
  """(groups of the study, groups of its controls)."""
  parts = [], []
  for group in groups:
    parts[group['weak_labels'] in weak_labels.CONTROLS].append(group)
  return parts


def read(groups) -> list[dict]:
  """Returns a dict for each control among the groups.

  The fields of its group, `than` for what its student is compared with, the
  `difference` from that in accuracy as metrics.Difference, paired by test
  example and seed, and `expected` and `holds`: whether the interval allows what
  should come out.
  """
  plain, controls = split(groups)
  students = {_study(group): group for group in plain}
  found = []
  for group in controls:
    than, expected = EXPECTED[group['weak_labels']]
    difference = _difference(group, than, students.get(_study(group)))
    if difference is None:
      continue
    holds = difference.high >= 0
    if expected == 'not above it':
      holds = difference.low <= 0
    found.append(
      group
      | {
        'than': than,
        'difference': difference,
        'expected': expected,
        'holds': holds,
      }
    )
  return found


def _study(group):
  """What a control has in common with the student that it stands beside."""
  return tuple(group[f] for f in results.STUDENT if f != 'weak_labels')


def _difference(group, than, student):
  correct_SxN = group['correct']['student']
  if than == 'chance':
    mean, se = metrics.mean_and_se(correct_SxN - 1 / group['n_classes'])
    return metrics.Difference(mean, mean - 1.96 * se, mean + 1.96 * se)
  if than == 'ceiling':
    other_SxN = group['correct']['ceiling']
  elif student is None or student['seeds'] != group['seeds']:
    return None
  else:
    other_SxN = student['correct']['student']
  return metrics.paired_difference(correct_SxN, other_SxN)


def sentences(found):
  """Sentences on losses that do harm on true labels."""
  return [
    _HARMFUL.format(
      loss=control['loss'], points=-100 * control['difference'].value
    )
    for control in found
    if control['weak_labels'] == 'truth' and not control['holds']
  ]
