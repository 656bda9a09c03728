"""results.jsonl and the stored predictions -> tables, figures, one HTML page.

Shapes: S seeds, N test examples, C classes.
"""

import base64
import functools
import html
import io
import json
import re
import zipfile
import zlib

from etils import epath
import numpy as np
from rich import box
from rich import table as rich_table

from w2s_jax import figures
from w2s_jax import metrics

ROLES = ('weak', 'student', 'ceiling', 'zero_shot')
_KEY = (*figures.PANEL, 'via', 'loss', 'weak_labels', 'early_stopping')
_SIZES = ('weak_parameters', 'strong_parameters')
_BEYOND_ACCURACY = {
  'auroc': 'AUROC',
  'nll': 'NLL',
  'ece': 'ECE',
  'accepted_accuracy': 'accepted',
  'legal': 'legal',
}
_OPTIONAL = tuple(  # where the task measures them
  f'{role}_{name}' for role in ROLES for name in ('accepted_accuracy', 'legal')
)
_MEANS = (
  *(f'{role}_{name}' for role in ROLES for name in ('auroc', 'nll', 'ece')),
  *figures.AGREEMENT,
  'weak_label_accuracy',
  'seconds',
)
_FIELDS = (
  *_KEY,
  *_SIZES,
  *('seed', 'pgr', 'pgr_status', 'n_test', 'stages'),
  *(f'{role}_accuracy' for role in ROLES),
  *_MEANS,
)


def read_results(workdir) -> list[dict]:
  """The rows of `workdir/results.jsonl`, one for each student trained.

  Raises:
    FileNotFoundError: there are no results yet.
    ValueError: a line is damaged or misses a field, or two lines claim to be
      the same student.
  """
  path = epath.Path(workdir) / 'results.jsonl'
  if not path.exists():
    raise FileNotFoundError(
      f'{path} not found: no student is trained yet. Run experiments/main.py '
      f'with --workdir={workdir} first.'
    )
  rows, lines = [], {}
  for number, line in enumerate(path.read_text().splitlines(), start=1):
    where = f'{path}, line {number}'
    try:
      row = json.loads(line)
    except ValueError as error:
      raise ValueError(
        f'{where}: not JSON ({error}). Delete the file and run again: finished '
        'stages are not repeated.'
      ) from error
    missing = [f for f in _FIELDS if not isinstance(row, dict) or f not in row]
    if missing:
      raise ValueError(f'{where}: not a result, {missing[0]!r} is missing.')
    row['via'] = tuple(row['via'])
    student = tuple(row[field] for field in (*_KEY, 'seed'))
    if student in lines:
      raise ValueError(
        f'{where}: the same student as line {lines[student]} {student}. Use a '
        'workdir of its own for each change of the config.'
      )
    lines[student] = number
    rows.append(row)
  if not rows:
    raise ValueError(f'{path} is empty: no student is trained yet.')
  return sorted(rows, key=_order)


def _order(row):
  """Small models first, naive students and the baseline loss too."""
  return (
    row['task'],
    *(row[field] for field in _SIZES),
    *(row['weak_model'], row['strong_model']),
    *(len(row['via']), row['via']),
    *(row['loss'] != 'xent', row['loss']),
    *(row['weak_labels'], row['early_stopping']),
    row['seed'],
  )


def aggregate(workdir, rows) -> list[dict]:
  """One dict for each (task, weak model, strong model, via, loss), over seeds.

  `{role}_accuracy` and `_accuracy_se` (over examples and seeds) and the PGR
  come from the stored predictions, other numbers are means over the rows.
  `reliability` holds (confidence, accuracy, count) of all seeds by role.

  Raises:
    FileNotFoundError, ValueError: predictions are missing or damaged, or the
      stages of one group were not tested on the same examples.
  """
  load = functools.cache(functools.partial(_load_predictions, workdir))
  groups = {}
  for row in rows:
    groups.setdefault(tuple(row[field] for field in _KEY), []).append(row)
  return [_aggregate_seeds(rows, load) for rows in groups.values()]


def _load_predictions(workdir, stage):
  path = epath.Path(workdir) / 'stages' / stage / 'predictions' / 'test.npz'
  try:
    with np.load(io.BytesIO(path.read_bytes())) as file:
      return path, file['ids'], file['probs'], file['label_probs']
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{path} not found, but results.jsonl needs it. Run the experiment again '
      'to make it.'
    ) from error
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
    raise ValueError(
      f'{path} is damaged ({e}). Delete the folder stages/{stage} and run the '
      'experiment again.'
    ) from e


def _aggregate_seeds(rows, load):
  group = {field: rows[0][field] for field in (*_KEY, *_SIZES)}
  group.update(seeds=[row['seed'] for row in rows], n_seeds=len(rows))
  first_path, first_ids, _, _ = load(rows[0]['stages']['weak'])
  group['n_test'] = len(first_ids)
  correct, group['reliability'] = {}, {}
  for role in ROLES:
    probs_SxNxC, labels_SxNxC = [], []
    for row in rows:
      path, ids, probs_NxC, labels_NxC = load(row['stages'][role])
      if not np.array_equal(ids, first_ids):
        raise ValueError(
          f'{path} and {first_path} are of different test examples, so they '
          'cannot be compared; use one workdir for each split.'
        )
      probs_SxNxC.append(probs_NxC)
      labels_SxNxC.append(labels_NxC)
    probs_SxNxC, labels_SxNxC = np.stack(probs_SxNxC), np.stack(labels_SxNxC)
    correct[role] = metrics.correct(probs_SxNxC, labels_SxNxC)
    group[f'{role}_accuracy'], group[f'{role}_accuracy_se'] = (
      metrics.mean_and_se(correct[role])
    )
    n_classes = group['n_classes'] = probs_SxNxC.shape[-1]
    group['reliability'][role] = metrics.reliability(
      probs_SxNxC.reshape(-1, n_classes), labels_SxNxC.reshape(-1, n_classes)
    )
  for name in (*_MEANS, *_OPTIONAL):
    values = [row[name] for row in rows if row.get(name) is not None]
    group[name] = float(np.mean(values)) if values else None
  pgr = metrics.pgr_interval(
    correct['weak'], correct['student'], correct['ceiling']
  )
  group.update(pgr=pgr.value, pgr_low=pgr.low, pgr_high=pgr.high)
  group.update(pgr_status=pgr.status, gap=pgr.gap, gap_se=pgr.gap_se)
  return group


def write(workdir) -> list[dict]:
  """Writes report.md, report.html and figures/*.png; returns `aggregate`'s.

  Raises:
    FileNotFoundError, ValueError: as `read_results` and `aggregate`.
  """
  workdir = epath.Path(workdir)
  rows = read_results(workdir)
  groups = aggregate(workdir, rows)
  pngs = {}
  (workdir / 'figures').mkdir(parents=True, exist_ok=True)
  drawn = figures.draw(groups)
  for name, (figure, _) in drawn.items():
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=160, metadata={'Software': None})
    pngs[name] = buffer.getvalue()
    _write(workdir / 'figures' / name, pngs[name])
  captions = {name: caption for name, (_, caption) in drawn.items()}
  markdown = _markdown(rows, groups, captions)
  _write(workdir / 'report.md', markdown.encode())
  _write(workdir / 'report.html', _html(markdown, pngs).encode())
  return groups


def _write(path, data):
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(data)
  temporary.replace(path)


def console_table(groups) -> rich_table.Table:
  """The table a study ends with, at most 100 columns wide."""
  table = rich_table.Table(
    box=box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    caption='accuracy in % ± standard error; PGR with its 95 % interval',
  )
  table.add_column('weak → strong\n  method', overflow='fold')
  for name in ('weak', 'student', 'ceiling', 'zero-shot\nuntrained', 'PGR'):
    table.add_column(name, justify='right', no_wrap=True)
  for (task,), of_task in figures.by(groups, 'task').items():
    table.add_row(task)
    for students in figures.by(of_task, *figures.PANEL).values():
      table.add_row(_pair(students[0]))
      for group in students:
        numbers = *_accuracies(group), figures.pgr_text(group)
        table.add_row(f'  {figures.method(group)}', *numbers)
      table.add_section()
  return table


def _pair(group):
  return f'{group["weak_model"]} → {group["strong_model"]}'


def _accuracies(group):
  return [
    f'{100 * group[f"{role}_accuracy"]:.1f} '
    f'±{100 * group[f"{role}_accuracy_se"]:.1f}'
    for role in ROLES
  ]


def _number(value, scale=1, digits=3):
  return '–' if value is None else f'{scale * value:.{digits}f}'


def _reading(group):
  """What a row does and does not say, in a sentence or two."""
  gain = 100 * (group['student_accuracy'] - group['weak_accuracy'])
  gap, gap_se = 100 * group['gap'], 100 * group['gap_se']
  start = f'{group["task"]}, {_pair(group)}, {figures.method(group)}: '
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
    names = group['task'], _pair(group), figures.method(group)
    labels = _number(group['weak_label_accuracy'], scale=100, digits=1)
    numbers = labels, *_accuracies(group), figures.pgr_text(group)
    lines.append([*names, *numbers, str(group['n_seeds'])])
  return _table(header, lines)


def _beyond_accuracy_table(groups):
  """Each model once, by size; metrics that no model has are left out."""
  shown = {
    name: heading
    for name, heading in _BEYOND_ACCURACY.items()
    if any(g[f'{role}_{name}'] is not None for g in groups for role in ROLES)
  }
  lines = {}
  for group in groups:
    student = f'student of {group["weak_model"]}, {figures.method(group)}'
    for role in ROLES:
      model = group['weak_model' if role == 'weak' else 'strong_model']
      name = student if role == 'student' else role.replace('_', '-')
      numbers = (group[f'{role}_{metric}'] for metric in shown)
      names = group['task'], model, name
      lines[names] = [*names, *map(_number, numbers)]
  size = figures.sizes(groups)
  ordered = sorted(lines.values(), key=lambda line: (line[0], size[line[1]]))
  return _table(['task', 'model', 'role', *shown.values()], ordered)


def _seeds_table(rows):
  header = ['task', 'weak → strong', 'method', 'seed', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'agreement', 'where right']
  lines = []
  for row in rows:
    percents = [row[f'{role}_accuracy'] for role in ROLES]
    percents += [row[name] for name in figures.AGREEMENT]
    percents = [_number(x, scale=100, digits=1) for x in percents]
    percents.insert(4, _number(row['pgr'], digits=2))
    seconds = _number(row['seconds'], digits=0)
    names = row['task'], _pair(row), figures.method(row), str(row['seed'])
    lines.append([*names, *percents, seconds])
  return _table([*header, 'where wrong', 'seconds'], lines)


def _markdown(rows, groups, captions):
  """The whole report; `_html` knows just the kinds of blocks used here."""
  tests = (f'{g["task"]} {g["n_test"]:,}' for g in groups)
  models = (f'{m} ({n:,})' for m, n in figures.sizes(groups).items())
  seeds = sorted({seed for g in groups for seed in g['seeds']})
  images = '\n\n'.join(
    f'![{name}](figures/{name})\n\n{text}' for name, text in captions.items()
  )
  via = _VIA if any(g['via'] for g in groups) else ''
  accepted = any(g['student_accepted_accuracy'] is not None for g in groups)
  return f"""# Weak-to-strong generalization

- Test examples: {', '.join(dict.fromkeys(tests))}
- Models and their parameters: {', '.join(models)}
- Methods: {'; '.join(dict.fromkeys(map(figures.method, groups)))}
- Seeds: {', '.join(map(str, seeds))}

## Results

{_results_table(groups)}

Test accuracy in % ± its standard error over examples and seeds. The student is
the strong model trained on labels of the weak one, the ceiling is the same
model trained on the truth, zero-shot the same model untrained; labels is the
share, in %, of the labels of the student which are right.
PGR = (student - weak) / (ceiling - weak): 0 is no better than the supervisor,
1 is the ceiling. In brackets is its 95 % interval, from resampling seeds and
examples.

{via}{_list(map(_reading, groups))}

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


def _html(markdown, pngs):
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
