"""Sentences that read the numbers of a report."""

from w2s_jax.report import groups as groups_lib
from w2s_jax.tasks import registry


def legend(groups):
  """A paragraph on marks beside accuracies and on zero-shot, or none."""
  chance = [group for group in groups if group['zero_shot_is_chance']]
  own = 'the zero-shot accuracy of the same model'
  if len(chance) == len(groups):
    own = 'chance'
  meanings = {
    groups_lib.BELOW: f'more than 2 standard errors below {own}',
    groups_lib.NEAR: f'within 2 standard errors of {own}; of a ceiling it '
    'means that nothing was elicited',
  }
  marks = groups_lib.marks(groups)
  sentences = [f'{x}: {meanings[x]}.' for x in meanings if x in marks]
  if chance:
    models = dict.fromkeys(group['strong_model'] for group in chance)
    whose = f' of {", ".join(models)}' if len(chance) < len(groups) else ''
    sentences.append(
      f'Zero-shot{whose} is chance by construction: the head starts at zero.'
    )
  return [' '.join(sentences)] if sentences else []


def rows_truncated(groups):
  """Sentences on tasks whose training rows were truncated."""
  lost = {'end': [], 'beginning': []}
  for (task,), students in groups_lib.by(groups, 'task').items():
    cut, rows = (
      sum(group[name] for group in students)
      for name in ('rows_truncated', 'rows')
    )
    if cut:
      # Pairs and prompts lose their beginning, see models/heads.py.
      end = 'end' if registry.TASKS[task].inputs == 'text' else 'beginning'
      lost[end].append(f'{task}: {cut:,} of {rows:,}')
  return [
    f'{", ".join(counts)} training rows of students were truncated to '
    f'data.max_length at their {end}.'
    for end, counts in lost.items()
    if counts
  ]


def of_student(group):
  """Reads a row in a few sentences: its PGR, whether it is noise, its marks."""
  gain = 100 * (group['student_accuracy'] - group['weak_accuracy'])
  gap, gap_se = 100 * group['gap'], 100 * group['gap_se']
  start = (
    f'{group["task"]}, {groups_lib.pair(group)}, {groups_lib.method(group)}: '
  )
  if group['pgr'] is None:
    return (
      f'{start}PGR is undefined, as ceiling - weak is {gap:+.1f} ±{gap_se:.1f} '
      'points, not above 2 standard errors: there is no clear gap to recover, '
      f'so read the accuracies (student - weak = {gain:+.1f} points).'
      f'{_without_gain(group)}'
    )
  if group['pgr_low'] > 0:
    verdict = 'the gain over the supervisor is beyond the noise measured'
  elif group['pgr_high'] < 0:
    verdict = 'the student is worse than its supervisor'
  else:
    verdict = 'the interval holds 0, so no gain over the supervisor is shown'
  seeds = (
    'one seed, so the interval leaves out the noise of training'
    if group['n_seeds'] == 1
    else f'{group["n_seeds"]} seeds'
  )
  return (
    f'{start}student - weak is {gain:+.1f} of the {gap:.1f} ±{gap_se:.1f} '
    f'points between weak and ceiling, PGR {groups_lib.pgr_text(group)}; '
    f'{verdict} ({seeds}).{_without_gain(group)}'
  )


def _without_gain(group):
  """Sentences on students and ceilings that are not above zero-shot."""
  own = 'chance' if group['zero_shot_is_chance'] else 'its zero-shot accuracy'
  text = ''
  for role in groups_lib.GAINING:
    gain, se = group[f'{role}_gain'], group[f'{role}_gain_se']
    mark = groups_lib.mark(gain, se)
    if mark == groups_lib.BELOW:
      text += f' The {role} is {-100 * gain:.1f} ±{100 * se:.1f} points below '
      text += f'{own}: training made it worse than it was.'
    elif mark == groups_lib.NEAR:
      meaning = 'nothing was elicited' if role == 'ceiling' else 'no clear gain'
      text += f' The {role} is within 2 standard errors of {own} '
      text += f'({100 * gain:+.1f} ±{100 * se:.1f} points): {meaning}.'
  return text


def over_tasks(median):
  n_defined, n_tasks = median['n_defined'], median['n_tasks']
  start = (
    f'Over tasks, {groups_lib.pair(median)}, {groups_lib.method(median)}: '
  )
  if not n_defined:
    return (
      f'{start}PGR is undefined on all of the {n_tasks} tasks.'
      f'{_tasks_without_gain(median)}'
    )
  text = f'median PGR {groups_lib.pgr_text(median)} of {n_defined} tasks'
  if n_defined < n_tasks:
    text += (
      f'; {n_tasks - n_defined} of {n_tasks} are left out, as their ceiling is '
      'not clearly above the weak model'
    )
  return f'{start}{text}.{_tasks_without_gain(median)}'


def _tasks_without_gain(median):
  """A sentence for each role on tasks where it is not above zero-shot."""
  text = ''
  for role in groups_lib.GAINING:
    marks = median[f'{role}_marks']
    below, near = (
      marks.count(mark) for mark in (groups_lib.BELOW, groups_lib.NEAR)
    )
    if below or near:
      text += (
        f' On {below} of {len(marks)} tasks the {role} is below its zero-shot '
        f'accuracy, on {near} within 2 standard errors of it.'
      )
  return text
