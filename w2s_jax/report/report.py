"""Aggregates results over seeds and writes the report of a workdir.

Shapes: S seeds, N test examples, C classes.
"""

import functools
import io
import json

from etils import epath
import numpy as np

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax import weak_labels
from w2s_jax.report import agreement
from w2s_jax.report import by_field
from w2s_jax.report import controls
from w2s_jax.report import csv_table
from w2s_jax.report import curves
from w2s_jax.report import disagreements
from w2s_jax.report import figures
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import html_page
from w2s_jax.report import page
from w2s_jax.report import stage_curves
from w2s_jax.runtime import files
from w2s_jax.runtime import lock
from w2s_jax.runtime import workdir as workdir_lib


def aggregate(workdir, rows) -> list[dict]:
  """Returns one dict for each pair of models and method, over seeds.

  `{role}_accuracy` and `_accuracy_se` (over examples and seeds) and the PGR
  come from the stored predictions, other numbers are means over the rows.
  `reliability` holds (confidence, accuracy, count) of all seeds by role, `rows`
  and `rows_truncated` count the training rows of the students of all seeds,
  `correct` holds bool [S, N] by role for the test rows `test_ids`, and `links`
  the means over seeds of those of the rows.

  Raises:
    errors.UserError: predictions are missing or damaged, the stages of one
      group were not tested on the same examples, or rows of one name have
      different recipes.
  """
  load = functools.cache(functools.partial(_load_predictions, workdir))
  by_name = {}
  for row in rows:
    by_name.setdefault(results.name_of(row), []).append(row)
  for rows in by_name.values():
    recipes = sorted({row['recipe'] for row in rows})
    if len(recipes) > 1:  # results.write refuses this; the file was edited
      raise errors.UserError(
        f'{workdir}/results.jsonl: {results.describe(rows[0])} has rows of '
        f'{len(recipes)} recipes ({", ".join(recipes)}), which must not be '
        'averaged; delete the file and run again.'
      )
  return [
    _aggregate_seeds(rows, load) | {'curves': curves.load(workdir, rows)}
    for rows in by_name.values()
  ]


def _load_predictions(workdir, stage):
  """(file, predictions on the test set as Labels, ground truth as Labels)."""
  folder = epath.Path(workdir) / 'stages' / stage
  name, _, key = stage.rpartition('-')
  arrays = workdir_lib.Finished(name, key, folder).predictions('test')
  return (
    folder / 'predictions' / 'test.npz',
    weak_labels.Labels(arrays['ids'], arrays['probs']),
    weak_labels.Labels(arrays['ids'], arrays['label_probs']),
  )


def _aggregate_seeds(rows, load):
  group = {
    field: rows[0][field] for field in (*results.STUDENT, *results.SIZES)
  }
  group.update(seeds=[row['seed'] for row in rows], n_seeds=len(rows))
  first_path, first, _ = load(rows[0]['stages']['weak'])
  ids_N = group['test_ids'] = np.sort(first.ids_N)  # alike in all groups
  group['n_test'] = len(ids_N)
  for name in ('rows', 'rows_truncated'):
    group[name] = sum(row[name] for row in rows)
  correct, answers, group['reliability'] = {}, {}, {}
  for role in results.ROLES:
    probs_SxNxC, labels_SxNxC = [], []
    for row in rows:
      path, probs, truth = load(row['stages'][role])
      if set(probs.ids_N.tolist()) != set(ids_N.tolist()):
        raise errors.UserError(
          f'{path} and {first_path} are of different test examples, so they '
          'cannot be compared; use one workdir for each split.'
        )
      for labels, found in ((probs, probs_SxNxC), (truth, labels_SxNxC)):
        found.append(weak_labels.join(ids_N, labels).probs_NxC)
    probs_SxNxC, labels_SxNxC = np.stack(probs_SxNxC), np.stack(labels_SxNxC)
    correct[role] = metrics.correct(probs_SxNxC, labels_SxNxC)
    answers[role] = probs_SxNxC.argmax(-1)
    if role == 'zero_shot':
      is_chance = not np.ptp(probs_SxNxC, -1).any()
    n_classes = probs_SxNxC.shape[-1]
    group['reliability'][role] = metrics.reliability(
      probs_SxNxC.reshape(-1, n_classes), labels_SxNxC.reshape(-1, n_classes)
    )
  group |= groups_lib.scores(
    correct, n_classes=n_classes, zero_shot_is_chance=is_chance
  )
  group |= _means(rows, (*results.MEANS, *results.OPTIONAL))
  group |= agreement.standard_errors(
    answers['student'] == answers['weak'], correct['weak']
  )
  links = [row['links'] for row in rows if 'links' in row]
  group['links'] = [_means(seeds, seeds[0]) for seeds in zip(*links)]
  return group


def _means(dicts, names):
  """Means of numbers over dicts; None where none of them has one."""
  means = {}
  for name in names:
    values = [x[name] for x in dicts if x.get(name) is not None]
    means[name] = float(np.mean(values)) if values else None
  return means


def write(workdir, by=()) -> list[dict]:
  """Writes report.html, .md and .csv, and figures; returns `aggregate`'s.

  Args:
    by: fields of the test rows, each for a section, see by_field.py.

  Raises:
    errors.UserError: as `results.read`, `aggregate` and `by_field.aggregate`.
  """
  workdir = epath.Path(workdir)
  rows = results.read(workdir)
  groups = aggregate(workdir, rows)
  of_study, _ = controls.split(groups)
  binned = {x: by_field.aggregate(workdir, groups, x) for x in by}
  pngs = {}
  drawn = figures.draw(of_study)
  for name, (figure, _) in drawn.items():
    buffer = io.BytesIO()
    plain = {'dpi': html_page.DPI, 'metadata': {'Software': None}}
    figure.savefig(buffer, format='png', **plain)
    pngs[name] = buffer.getvalue()
  captions = {name: caption for name, (_, caption) in drawn.items()}
  run = _latest_run(workdir)
  markdown = page.to_markdown(rows, groups, captions, run, binned)
  load = functools.lru_cache(16)(functools.partial(_load_predictions, workdir))
  sections = {
    'Rows': disagreements.draw(workdir, rows, of_study, load),
    'Training': stage_curves.draw(workdir, rows),
  }
  shown = [(title, content) for title, content in sections.items() if content]
  page_html = html_page.to_html(markdown, pngs, shown)
  with lock.hold(workdir / 'report.LOCK'):  # jobs may end at the same time
    for name, png in pngs.items():
      files.write_atomically(workdir / 'figures' / name, png)
    files.write_atomically(workdir / 'report.md', markdown)
    files.write_atomically(workdir / 'report.csv', csv_table.to_csv(groups))
    files.write_atomically(workdir / 'report.html', page_html)
  return groups


def _latest_run(workdir):
  """The record in run.json, see runtime/run_record.py; None without one."""
  path = workdir / 'run.json'
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text())
  except ValueError:  # of no consequence for the results
    return None
