"""The report in Markdown, and parts of it for the console."""

import json

from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.tasks import registry

_BEYOND_ACCURACY = {
  'auroc': 'AUROC',
  'nll': 'NLL',
  'ece': 'ECE',
  'accepted_accuracy': 'accepted',
  'legal': 'legal',
}
_OVER_TASKS = 'median_pgr.png', 'tasks.png'


def pair(group):
  return f'{group["weak_model"]} → {group["strong_model"]}'


def accuracies(group):
  return [
    f'{100 * group[f"{role}_accuracy"]:.1f} '
    f'±{100 * group[f"{role}_accuracy_se"]:.1f}'
    for role in results.ROLES
  ]


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


def _number(value, scale=1, digits=3):
  return '–' if value is None else f'{scale * value:.{digits}f}'


def _reading(group):
  """Reads a row in a sentence or two: its PGR, and whether it is noise."""
  gain = 100 * (group['student_accuracy'] - group['weak_accuracy'])
  gap, gap_se = 100 * group['gap'], 100 * group['gap_se']
  start = f'{group["task"]}, {pair(group)}, {groups_lib.method(group)}: '
  if group['pgr'] is None:
    return (
      f'{start}PGR is undefined, as ceiling - weak is {gap:+.1f} ±{gap_se:.1f} '
      'points, not above 2 standard errors: there is no clear gap to recover, '
      f'so read the accuracies (student - weak = {gain:+.1f} points).'
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
    f'{verdict} ({seeds}).'
  )


def _reading_over_tasks(median):
  n_defined, n_tasks = median['n_defined'], median['n_tasks']
  start = f'Over tasks, {pair(median)}, {groups_lib.method(median)}: '
  if not n_defined:
    return f'{start}PGR is undefined on all of the {n_tasks} tasks.'
  text = f'median PGR {groups_lib.pgr_text(median)} of {n_defined} tasks'
  if n_defined < n_tasks:
    text += (
      f'; {n_tasks - n_defined} of {n_tasks} are left out, as their ceiling is '
      'not clearly above the weak model'
    )
  return f'{start}{text}.'


def _table(header, rows):
  lines = [header, ['---'] * len(header), *rows]
  lines = [[_cell(text) for text in line] for line in lines]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(text):
  """One line without column marks, whatever a model or variant is called."""
  return ' '.join(text.split()).replace('|', '\\|')


def _list(items):
  return '\n'.join(f'- {item}' for item in dict.fromkeys(items))


def _images(captions, names):
  return '\n\n'.join(
    f'![{name}](figures/{name})\n\n{captions[name]}' for name in names
  )


def _results_table(groups):
  header = ['task', 'weak → strong', 'method', 'labels', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'seeds']
  lines = []
  for group in groups:
    names = group['task'], pair(group), groups_lib.method(group)
    labels = _number(group['weak_label_accuracy'], scale=100, digits=1)
    numbers = labels, *accuracies(group), groups_lib.pgr_text(group)
    lines.append([*names, *numbers, str(group['n_seeds'])])
  return _table(header, lines)


def _over_tasks_table(medians):
  header = ['weak → strong', 'method', 'tasks', 'weak', 'student', 'ceiling']
  header += ['zero-shot', 'median PGR', 'tasks with PGR', 'left out']
  lines = []
  for median in medians:
    n_tasks, n_defined = median['n_tasks'], median['n_defined']
    names = pair(median), groups_lib.method(median), str(n_tasks)
    numbers = *accuracies(median), groups_lib.pgr_text(median)
    counts = str(n_defined), str(n_tasks - n_defined)
    lines.append([*names, *numbers, *counts])
  return _table(header, lines)


def _over_tasks(groups, captions):
  """A section, '' where each student is of one task only."""
  medians = groups_lib.over_tasks(groups)
  if not medians:
    return ''
  return f"""## Over tasks

{_over_tasks_table(medians)}

Medians. Accuracies, in %, are over all tasks, ± their standard error from
resampling tasks. PGR is over only those tasks where it is defined, which is
where the ceiling is more than 2 standard errors above the weak model; the
others are counted as left out. In brackets is its 95 % interval from resampling
tasks; of fewer than six tasks there is none.

{_list(map(_reading_over_tasks, medians))}

{_images(captions, _OVER_TASKS)}

"""


def _beyond_accuracy_table(groups):
  """Each model once, by size; metrics that no model has are left out."""
  shown = {
    name: heading
    for name, heading in _BEYOND_ACCURACY.items()
    if any(
      g[f'{role}_{name}'] is not None for g in groups for role in results.ROLES
    )
  }
  lines = {}
  for group in groups:
    names = {
      'student': f'student of {group["weak_model"]}, '
      f'{groups_lib.method(group)}',
      'ceiling': groups_lib.marked('ceiling', group),
    }
    for role in results.ROLES:
      model = group['weak_model' if role == 'weak' else 'strong_model']
      name = names.get(role, role.replace('_', '-'))
      numbers = (group[f'{role}_{metric}'] for metric in shown)
      line = group['task'], model, name
      lines[line] = [*line, *map(_number, numbers)]
  size = groups_lib.sizes(groups)
  ordered = sorted(lines.values(), key=lambda line: (line[0], size[line[1]]))
  return _table(['task', 'model', 'role', *shown.values()], ordered)


def _seeds_table(rows):
  header = ['task', 'weak → strong', 'method', 'seed', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'agreement', 'where right']
  header += ['where wrong']
  agreement = list(results.AGREEMENT)
  if any(row['via'] for row in rows):
    header += ['with teacher', 'teacher right', 'teacher wrong']
    agreement += results.TEACHER_AGREEMENT
  lines = []
  for row in rows:
    percents = [row[f'{role}_accuracy'] for role in results.ROLES]
    percents += [row[name] for name in agreement]
    percents = [_number(x, scale=100, digits=1) for x in percents]
    percents.insert(4, _number(row['pgr'], digits=2))
    seconds = _number(row['seconds'], digits=0)
    names = row['task'], pair(row), groups_lib.method(row), str(row['seed'])
    lines.append([*names, *percents, seconds])
  return _table([*header, 'seconds'], lines)


def _run(run):
  """The latest run as a list and its config; '' without its record."""
  if run is None:
    return ''
  versions = (f'{name} {x}' for name, x in run['versions'].items() if x)
  code = 'no git checkout'
  if run['git_commit']:
    code = run['git_commit'][:12] + (' and changes' if run['git_dirty'] else '')
  config = json.dumps(run['configs'], indent=1)
  return f"""- Command: {run['command']}
- Started: {run['started']}, {run['status']}
- Devices: {run['devices']['count']} {run['devices']['kind']}
- Code: {code}; {', '.join(versions)}

```
{config}
```

"""


def to_markdown(rows, groups, captions, run=None):
  """Returns the report; html_page.py knows the kinds of blocks used here.

  Args:
    rows: of results.read. groups: of report.aggregate.
    captions: {file name: caption} of the figures.
    run: the record of the latest run, or None.
  """
  tests = (f'{g["task"]} {g["n_test"]:,}' for g in groups)
  models = (f'{m} ({n:,})' for m, n in groups_lib.sizes(groups).items())
  seeds = sorted({seed for g in groups for seed in g['seeds']})
  others = [name for name in captions if name not in _OVER_TASKS]
  cut = ''.join(f'{sentence}\n\n' for sentence in rows_truncated(groups))
  readings = f'{_list(map(_reading, groups))}\n\n'
  if groups_lib.many_tasks(groups):
    readings = ''  # the table must do
  via = _VIA if any(g['via'] for g in groups) else ''
  generative = _GENERATIVE if any(g['generative'] for g in groups) else ''
  accepted = any(g['student_accepted_accuracy'] is not None for g in groups)
  return f"""# Weak-to-strong generalization

{_run(run)}- Test examples: {', '.join(dict.fromkeys(tests))}
- Models and their parameters: {', '.join(models)}
- Methods: {'; '.join(dict.fromkeys(map(groups_lib.method, groups)))}
- Seeds: {', '.join(map(str, seeds))}

{_over_tasks(groups, captions)}## Results

{_results_table(groups)}

{cut}Test accuracy in % ± its standard error over examples and seeds. The
student is the strong model trained on labels of the weak one, the ceiling is
the same model trained on the truth, zero-shot is the model before any
fine-tuning; labels is the accuracy, in %, of the student's training labels.
PGR = (student - weak) / (ceiling - weak): 0 is no better than the supervisor,
1 is the ceiling. In brackets is its 95 % interval, from resampling seeds and
examples.

{via}{generative}{readings}{_images(captions, others)}

## Beyond accuracy

{_beyond_accuracy_table(groups)}

{_ACCEPTED if accepted else ''}## Every seed

{_seeds_table(rows)}

Agreement: share of test examples, in %, on which the student predicts what the
weak model does; then only those where the weak model is right, and where it is
wrong. With teacher: the same for the model that labelled the student's rows,
the last but one of a chain. A PGR of – is undefined. Seconds: training and
evaluating the student.
"""


_VIA = """A method with via is bootstrapping: the weak model teaches the first
model named, each model labels fresh rows for the next, and the last one is the
student. So it is trained on the transfer slice after those of the chain before
it, on labels of the model just before it; weak is still the start of the chain.
Its ceiling is the one of the same model on the first transfer slice.

"""

_GENERATIVE = """A method with + generative has unsupervised generative
fine-tuning (section 5.2.2 of the paper): before they saw labels, the student,
its ceiling and the models in between were trained as language models on the
texts of the first transfer slice. Weak and zero-shot are as without it.

"""

_ACCEPTED = """Accepted is accuracy where a move that mates at once also counts
as right; legal is the share of answers that are legal moves.

"""
