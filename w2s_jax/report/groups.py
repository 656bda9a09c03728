"""Groups of results: their names, order and medians over tasks.

A group is a dict of the results of one pair of models on one task with one
method, over all seeds; `report.aggregate` makes them.

Shapes: S seeds, N test examples, K bins, 3 = (confidence, accuracy, count).
"""

import numpy as np

from w2s_jax import metrics
from w2s_jax import results

BELOW, NEAR = '↓', '≈'  # of `mark`
GAINING = 'student', 'ceiling'  # roles that may gain on zero-shot accuracy


def pgr_text(group):
  if group['pgr'] is None:
    return 'undefined'
  if group['pgr_low'] is None:
    return '{pgr:.2f}'.format(**group)
  return '{pgr:.2f} [{pgr_low:.2f}, {pgr_high:.2f}]'.format(**group)


def pair(group):
  return f'{group["weak_model"]} → {group["strong_model"]}'


def accuracies(group):
  """Accuracies of all roles in %, with standard errors and marks."""
  cells = []
  for role in results.ROLES:
    cell = f'{100 * group[f"{role}_accuracy"]:.1f}'
    if not (role == 'zero_shot' and group['zero_shot_is_chance']):
      cell += f' ±{100 * group[f"{role}_accuracy_se"]:.1f}'
    cells.append(f'{cell} {_mark_of(group, role)}'.strip())
  return cells


def method(group):
  """The method of a student: 'xent', or 'xent hard via board-s, board-m'."""
  words = [group['loss']]
  if group['weak_labels'] != 'soft':
    words.append(group['weak_labels'])
  if group['via']:
    words.append(f'via {", ".join(group["via"])}')
  stopped = {
    'weak_labels': 'stopped',
    'ground_truth': 'stopped by truth (cheating)',
  }
  if group['early_stopping'] in stopped:
    words.append(stopped[group['early_stopping']])
  if group['variant']:
    words.append(group['variant'])
  return marked(' '.join(words), group)


def marked(name, group):
  """The name, marked if generative fine-tuning came first."""
  return f'{name} + generative' if group['generative'] else name


def scores(correct, *, n_classes, zero_shot_is_chance):
  """Accuracies, gains on zero-shot accuracy and PGR of a group.

  Args:
    correct: {role: bool [S, N]}.
    zero_shot_is_chance: whether the head starts at zero: its zero-shot accuracy
      is then chance, whatever class a tie is counted for.
  """
  group = {
    'correct': correct,
    'n_classes': n_classes,
    'zero_shot_is_chance': zero_shot_is_chance,
  }
  for role, correct_SxN in correct.items():
    mean_and_se = metrics.mean_and_se(correct_SxN)
    if role == 'zero_shot' and zero_shot_is_chance:
      mean_and_se = 1 / n_classes, 0.0
    group[f'{role}_accuracy'], group[f'{role}_accuracy_se'] = mean_and_se
  for role in GAINING:
    group[f'{role}_gain'], group[f'{role}_gain_se'] = gain(group, role)
  pgr = metrics.pgr_interval(
    correct['weak'], correct['student'], correct['ceiling']
  )
  group.update(pgr=pgr.value, pgr_low=pgr.low, pgr_high=pgr.high)
  group.update(pgr_status=pgr.status, gap=pgr.gap, gap_se=pgr.gap_se)
  return group


def gain(group, role, seeds=slice(None)):
  """(mean, standard error) of a model's accuracy minus its zero-shot accuracy.

  Paired by test example and seed. Where the head starts at zero the model has
  no answers of its own, and what is subtracted is chance.
  """
  before = 1 / group['n_classes']
  if not group['zero_shot_is_chance']:
    before = group['correct']['zero_shot'][seeds]
  correct_SxN = group['correct'][role][seeds].astype(float)
  return metrics.mean_and_se(correct_SxN - before)


def mark(gain, se):
  """BELOW or NEAR if a model has not clearly gained on its zero-shot accuracy.

  The bound is 2 standard errors; '' if it has gained more.
  """
  if gain < -2 * se:
    return BELOW
  return NEAR if gain <= 2 * se else ''


def _mark_of(group, role):
  if role not in GAINING:
    return ''
  return mark(group[f'{role}_gain'], group[f'{role}_gain_se'])


def marks(groups):
  """All marks of students and ceilings, for legends."""
  return {_mark_of(group, role) for group in groups for role in GAINING} - {''}


def sizes(groups):
  """{model: number of parameters}, the smallest first."""
  found = {
    group[f'{end}_model']: group[f'{end}_parameters']
    for group in groups
    for end in ('weak', 'strong')
  }
  return dict(sorted(found.items(), key=lambda item: item[1]))


def by(groups, *fields):
  """{values of the fields: groups}, in the order of the groups."""
  result = {}
  for group in groups:
    result.setdefault(tuple(group[f] for f in fields), []).append(group)
  return result


def many_tasks(groups):
  """Whether there are too many tasks for a figure of each."""
  return len(by(groups, *results.PANEL)) > 12 and bool(
    _on_several_tasks(groups)
  )


def _on_several_tasks(groups):
  alike = by(groups, *results.PAIR, *results.METHOD).values()
  return [groups for groups in alike if len(groups) > 1]


def over_tasks(groups) -> list[dict]:
  """One group for each pair of models and method which has several tasks.

  Numbers are medians over its `n_tasks` tasks, except that PGR is the one over
  those `n_defined` on which it is defined (Burns et al. 2023, figure 5);
  intervals and standard errors come from resampling tasks. `student_marks` and
  `ceiling_marks` list the marks on each task, `reliability` holds the
  predictions on all tasks together.
  """
  return [_over_tasks(alike) for alike in _on_several_tasks(groups)]


def _over_tasks(groups):
  result = {
    field: groups[0][field]
    for field in (*results.PANEL, *results.METHOD, *results.SIZES)
  }
  result.update(task='over tasks', n_tasks=len(groups))
  result['n_classes'] = min(group['n_classes'] for group in groups)
  result['zero_shot_is_chance'] = all(g['zero_shot_is_chance'] for g in groups)
  for role in results.ROLES:
    accuracy = metrics.median_interval([g[f'{role}_accuracy'] for g in groups])
    result[f'{role}_accuracy'] = accuracy.value
    result[f'{role}_accuracy_se'] = accuracy.se
  for role in GAINING:
    gains = [(g[f'{role}_gain'], g[f'{role}_gain_se']) for g in groups]
    median = metrics.median_interval([value for value, _ in gains])
    result[f'{role}_gain'], result[f'{role}_gain_se'] = median.value, median.se
    result[f'{role}_marks'] = [mark(*gain) for gain in gains]
  for name in (*results.AGREEMENT, *(f'{role}_ece' for role in results.ROLES)):
    values = [group[name] for group in groups if group[name] is not None]
    median = metrics.median_interval(values) if values else None
    result[name] = median and median.value
    result[f'{name}_se'] = median.se if len(values) > 1 else None
  pgr = [group['pgr'] for group in groups if group['pgr'] is not None]
  result.update(n_defined=len(pgr), pgr=None, pgr_low=None, pgr_high=None)
  if pgr:
    median = metrics.median_interval(pgr)
    result.update(pgr=median.value, pgr_low=median.low, pgr_high=median.high)
  result['reliability'] = {
    role: _together([group['reliability'][role] for group in groups])
    for role in groups[0]['reliability']
  }
  return result


def _together(curves):
  """The curve of `metrics.reliability` of all predictions of several."""
  confidence_K, accuracy_K, count_K = np.concatenate(curves, 1)
  bin_K = np.ceil(15 * confidence_K).astype(int)  # as there, by default
  bin_K = np.unique(bin_K, return_inverse=True)[1]
  total_K = np.bincount(bin_K, count_K)
  return (
    np.bincount(bin_K, count_K * confidence_K) / total_K,
    np.bincount(bin_K, count_K * accuracy_K) / total_K,
    total_K,
  )
