"""Results as text: a report in Markdown, and the same as one HTML page."""

import base64
import html
import re

from w2s_jax import figures
from w2s_jax import tasks

_BEYOND_ACCURACY = {
  'auroc': 'AUROC',
  'nll': 'NLL',
  'ece': 'ECE',
  'accepted_accuracy': 'accepted',
  'legal': 'legal',
}


def pair(group):
  return f'{group["weak_model"]} → {group["strong_model"]}'


def accuracies(group):
  return [
    f'{100 * group[f"{role}_accuracy"]:.1f} '
    f'±{100 * group[f"{role}_accuracy_se"]:.1f}'
    for role in figures.ROLES
  ]


def rows_cut(groups):
  """For each task of which students saw rows in part only, a sentence."""
  sentences = []
  for (task,), students in figures.by(groups, 'task').items():
    cut, rows = (
      sum(group[name] for group in students) for name in ('rows_cut', 'rows')
    )
    if cut:
      # Pairs and prompts are cut at the other end than texts; see heads.py.
      inputs = tasks.TASKS[task].inputs
      lost = 'end' if inputs == 'text' else 'beginning'
      sentences.append(
        f'{task}: {cut:,} of {rows:,} training rows of students were longer '
        f'than data.max_length and lost their {lost}.'
      )
  return sentences


def _number(value, scale=1, digits=3):
  return '–' if value is None else f'{scale * value:.{digits}f}'


def _reading(group):
  """What a row does and does not say, in a sentence or two."""
  gain = 100 * (group['student_accuracy'] - group['weak_accuracy'])
  gap, gap_se = 100 * group['gap'], 100 * group['gap_se']
  start = f'{group["task"]}, {pair(group)}, {figures.method(group)}: '
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
    f'points between weak and ceiling, PGR {figures.pgr_text(group)}; '
    f'{verdict} ({seeds}).'
  )


def _table(header, rows):
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _list(items):
  return '\n'.join(f'- {item}' for item in dict.fromkeys(items))


def _results_table(groups):
  header = ['task', 'weak → strong', 'method', 'labels', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'seeds']
  lines = []
  for group in groups:
    names = group['task'], pair(group), figures.method(group)
    labels = _number(group['weak_label_accuracy'], scale=100, digits=1)
    numbers = labels, *accuracies(group), figures.pgr_text(group)
    lines.append([*names, *numbers, str(group['n_seeds'])])
  return _table(header, lines)


def _beyond_accuracy_table(groups):
  """Each model once, by size; metrics that no model has are left out."""
  shown = {
    name: heading
    for name, heading in _BEYOND_ACCURACY.items()
    if any(
      g[f'{role}_{name}'] is not None for g in groups for role in figures.ROLES
    )
  }
  lines = {}
  for group in groups:
    names = {
      'student': f'student of {group["weak_model"]}, {figures.method(group)}',
      'ceiling': figures.marked('ceiling', group),
    }
    for role in figures.ROLES:
      model = group['weak_model' if role == 'weak' else 'strong_model']
      name = names.get(role, role.replace('_', '-'))
      numbers = (group[f'{role}_{metric}'] for metric in shown)
      line = group['task'], model, name
      lines[line] = [*line, *map(_number, numbers)]
  size = figures.sizes(groups)
  ordered = sorted(lines.values(), key=lambda line: (line[0], size[line[1]]))
  return _table(['task', 'model', 'role', *shown.values()], ordered)


def _seeds_table(rows):
  header = ['task', 'weak → strong', 'method', 'seed', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'agreement', 'where right']
  lines = []
  for row in rows:
    percents = [row[f'{role}_accuracy'] for role in figures.ROLES]
    percents += [row[name] for name in figures.AGREEMENT]
    percents = [_number(x, scale=100, digits=1) for x in percents]
    percents.insert(4, _number(row['pgr'], digits=2))
    seconds = _number(row['seconds'], digits=0)
    names = row['task'], pair(row), figures.method(row), str(row['seed'])
    lines.append([*names, *percents, seconds])
  return _table([*header, 'where wrong', 'seconds'], lines)


def to_markdown(rows, groups, captions):
  """The whole report; `to_html` knows just the kinds of blocks used here."""
  tests = (f'{g["task"]} {g["n_test"]:,}' for g in groups)
  models = (f'{m} ({n:,})' for m, n in figures.sizes(groups).items())
  seeds = sorted({seed for g in groups for seed in g['seeds']})
  images = '\n\n'.join(
    f'![{name}](figures/{name})\n\n{text}' for name, text in captions.items()
  )
  cut = ''.join(f'{sentence}\n\n' for sentence in rows_cut(groups))
  via = _VIA if any(g['via'] for g in groups) else ''
  generative = _GENERATIVE if any(g['generative'] for g in groups) else ''
  accepted = any(g['student_accepted_accuracy'] is not None for g in groups)
  return f"""# Weak-to-strong generalization

- Test examples: {', '.join(dict.fromkeys(tests))}
- Models and their parameters: {', '.join(models)}
- Methods: {'; '.join(dict.fromkeys(map(figures.method, groups)))}
- Seeds: {', '.join(map(str, seeds))}

## Results

{_results_table(groups)}

{cut}Test accuracy in % ± its standard error over examples and seeds. The
student is the strong model trained on labels of the weak one, the ceiling is
the same model trained on the truth, zero-shot the same model untrained; labels
is the share, in %, of the labels of the student which are right.
PGR = (student - weak) / (ceiling - weak): 0 is no better than the supervisor,
1 is the ceiling. In brackets is its 95 % interval, from resampling seeds and
examples.

{via}{generative}{_list(map(_reading, groups))}

{images}

## Beyond accuracy

{_beyond_accuracy_table(groups)}

{_ACCEPTED if accepted else ''}## Every seed

{_seeds_table(rows)}

Agreement: share of test examples, in %, on which the student predicts what the
weak model does; then only those where the weak model is right, and where it is
wrong. A PGR of – is undefined. Seconds: training and evaluating the student.
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


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { text-align: left; border-bottom: 2px solid #1c1c1c; }
th, td { padding: .35rem 1rem .35rem 0; }
td { border-bottom: 1px solid #ddd; }
img { max-width: 100%; height: auto; margin-top: 1.5rem; }
"""


def to_html(markdown, pngs):
  """One page with everything in it, to open or to send."""

  def cells(tag, line):
    texts = line.strip('| ').split(' | ')
    return f'<tr>{"".join(f"<{tag}>{text}</{tag}>" for text in texts)}</tr>'

  def render(block):
    mark, _, text = block.partition(' ')
    lines = block.split('\n')
    if mark in ('#', '##'):
      return f'<h{len(mark)}>{text}</h{len(mark)}>'
    if mark == '-':
      return '<ul>' + ''.join(f'<li>{x[2:]}</li>' for x in lines) + '</ul>'
    if mark == '|':
      header, _, *rows = lines
      body = cells('th', header) + ''.join(cells('td', row) for row in rows)
      return f'<div class="scroll"><table>{body}</table></div>'
    if image := re.fullmatch(r'!\[(.*)\]\(figures/.*\)', block):
      data = base64.b64encode(pngs[image[1]]).decode()
      return f'<img alt="{image[1]}" src="data:image/png;base64,{data}">'
    return f'<p>{block}</p>'

  blocks = html.escape(markdown.strip()).split('\n\n')
  body = '\n'.join(map(render, blocks))
  return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Weak-to-strong generalization</title>
<style>{_STYLE}</style></head>
<body>
{body}
</body></html>
"""
