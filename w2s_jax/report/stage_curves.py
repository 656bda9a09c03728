"""Curves of every stage that trained, as small SVG panels.

Files have any number of steps, a curve has few points: each is the mean over a
share of the steps.
"""

import html
import json
import re

from etils import epath
import numpy as np

from w2s_jax.report import groups as groups_lib
from w2s_jax.report import html_page
from w2s_jax.runtime import files

_POINTS = 40
_LINES_READ = 400  # of a file, spread over it
_MOST_SEEDS = 6
_OPEN = 12  # with more stages those of a task are folded
_WIDTH, _HEIGHT = 150, 60  # of a frame, within 220 x 92
_PANELS = {  # field of metrics.jsonl: (title, factor, unit)
  'train/loss': ('loss', 1, ''),
  'train/label_agreement': ('agrees with its labels', 100, ' %'),
  'train/mfu': ('MFU', 100, ' %'),
  # Of curve.json and early_stopping.json, see early_stopping.py.
  'accuracy': ('accuracy, test rows', 100, ' %'),
  'agreement_all': ('agrees with supervisor, test rows', 100, ' %'),
  'judged': ('agrees with its judge, validation', 100, ' %'),
}


def draw(workdir, rows) -> str:
  """Returns a section of the page; '' where no stage left its metrics.

  Args:
    rows: of results.read. Stages that no row names, such as those of
      generative fine-tuning, come last.
  """
  folder = epath.Path(workdir) / 'stages'
  by_task, count = {}, 0
  for (task, title), names in _titles(folder, rows).items():
    if block := _stage(folder, title, names):
      by_task.setdefault(task, []).append(block)
      count += 1
  if not by_task:
    return ''
  shown = ' open' if count <= _OPEN else ''
  sections = ''.join(
    f'<details{shown}><summary>{html.escape(task)} ({len(blocks)})'
    f'</summary>\n{"".join(blocks)}</details>\n'
    for task, blocks in by_task.items()
  )
  return f"""<p>Each point is the mean over {100 / _POINTS:g} % of the steps or,
of short stages, one step; a line is a seed. Final validation accuracies are in
the order of the seeds. All vertical axes start at 0.</p>
{sections}"""


def _titles(folder, rows):
  """{(task, title): names of folders}, a folder for each seed."""
  titles, known = {}, set()
  for row in rows:
    for role in ('weak', 'ceiling', 'student'):
      name = row['stages'][role]
      if name in known:
        continue
      known.add(name)
      model = row['weak_model' if role == 'weak' else 'strong_model']
      words = f'{role}, {model}'
      if role == 'student':
        words = f'student, {groups_lib.pair(row)}, {groups_lib.method(row)}'
      titles.setdefault((row['task'], words), []).append(name)
  others = sorted(folder.glob('*/metrics.jsonl'))
  for name in (path.parent.name for path in others):
    if name not in known and (folder / name / 'DONE').exists():
      title = re.sub(r'(-seed\d+)?-\w+$', '', name)
      titles.setdefault(('other stages', title), []).append(name)
  return titles


def _stage(folder, title, names):
  """A line of links and a row of panels; '' without metrics."""
  curves = {}
  for name in names[:_MOST_SEEDS]:
    for field, curve in _read(folder / name).items():
      curves.setdefault(field, []).append(curve)
  if not curves:
    return ''
  validation = [_validation(folder / name) for name in names]
  scores = ', '.join(f'{100 * x:.1f}' for x in validation if x is not None)
  scores = scores and f', validation accuracy {scores} %'
  links = ' '.join(
    f'<a href="stages/{html.escape(name)}/">{html.escape(_short(name))}</a>'
    for name in names
  )
  panels = ''.join(
    _panel(curves[field], *_PANELS[field])
    for field in _PANELS
    if field in curves
  )
  return (
    f'<div class="curves"><p>{html_page.escape(title)} '
    f'<span class="soft">{links}{scores}</span></p>'
    f'<div class="panels">{panels}</div></div>\n'
  )


def _validation(folder):
  """The accuracy on validation rows at the end, None where not measured."""
  done = folder / 'DONE'
  if not done.exists():
    return None
  return files.load_record(done)['summary'].get('validation_accuracy')


def _short(name):
  """'seed0' of the name of a folder, else its hash."""
  seed = re.search(r'-(seed\d+)-\w+$', name)
  return seed[1] if seed else name.rpartition('-')[2]


def _read(folder):
  """{field: (steps, values)} of a stage."""
  found = {}
  path = folder / 'metrics.jsonl'
  if path.exists():
    lines = path.read_text().splitlines()
    every = max(1, len(lines) // _LINES_READ)
    found |= _columns(map(_parsed, lines[::every]))
  for name in ('curve.json', 'early_stopping.json'):
    path = folder / name
    points = _parsed(path.read_text()) if path.exists() else None
    if isinstance(points, dict):  # {step or 'end': agreement}
      last = max((int(x) for x in points if x != 'end'), default=0)
      points = [
        {'step': last + 1 if step == 'end' else int(step), 'judged': value}
        for step, value in points.items()
      ]
    found |= _columns(points or [])
  return {field: _binned(*zip(*points)) for field, points in found.items()}


def _parsed(text):
  """JSON, or None where it is damaged: of no consequence for results."""
  try:
    return json.loads(text)
  except ValueError:
    return None


def _columns(points):
  """{field: [(step, value), ...]} of the fields of _PANELS."""
  columns = {}
  for point in points:
    if not isinstance(point, dict) or 'step' not in point:
      continue
    for field in _PANELS.keys() & point.keys():
      if point[field] is not None:
        columns.setdefault(field, []).append((point['step'], point[field]))
  return columns


def _binned(steps, values):
  parts = min(_POINTS, len(steps))
  return (
    [part[-1] for part in np.array_split(np.array(steps, float), parts)],
    [part.mean() for part in np.array_split(np.array(values, float), parts)],
  )


def _panel(curves, title, scale, unit):
  """A figure with a line for each seed, from 0 up and from step 0 on."""
  top = max(max(values) for _, values in curves) or 1
  last = max(max(steps) for steps, _ in curves) or 1
  lines = ''
  for steps, values in curves:
    points = [
      (round(_WIDTH * x / last), round(_HEIGHT - _HEIGHT * y / top))
      for x, y in zip(steps, values)
      if np.isfinite(y)
    ]
    if len(points) == 1:
      lines += '<circle cx="{}" cy="{}" r="2"/>'.format(*points[0])
    joined = ' '.join(f'{x},{y}' for x, y in points)
    lines += f'<polyline points="{joined}"/>'
  ends = ', '.join(f'{scale * values[-1]:.3g}' for _, values in curves)
  return (
    f'<figure><svg viewBox="-36 -12 220 92" role="img" '
    f'aria-label="{title}"><path d="M0 0V{_HEIGHT}H{_WIDTH}"/>'
    f'<text x="-4" y="4" text-anchor="end">{scale * top:.3g}{unit}</text>'
    f'<text x="-4" y="{_HEIGHT}" text-anchor="end">0</text>'
    f'<text x="{_WIDTH}" y="{_HEIGHT + 12}" text-anchor="end">step '
    f'{last:,.0f}</text>{lines}</svg>'
    f'<figcaption>{title}, at the end {ends}{unit}</figcaption></figure>'
  )
