"""Aggregates results over seeds and writes the report of a workdir.

Shapes: S seeds, N test examples, C classes.
"""

import functools
import io
import json

from etils import epath
import numpy as np
from rich import box
from rich import padding
from rich import table as rich_table
from rich import text as rich_text

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax import weak_labels
from w2s_jax.report import figures
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import html_page
from w2s_jax.report import page
from w2s_jax.runtime import files
from w2s_jax.runtime import lock
from w2s_jax.runtime import workdir as workdir_lib


def aggregate(workdir, rows) -> list[dict]:
  """Returns one dict for each pair of models and method, over seeds.

  `{role}_accuracy` and `_accuracy_se` (over examples and seeds) and the PGR
  come from the stored predictions, other numbers are means over the rows.
  `reliability` holds (confidence, accuracy, count) of all seeds by role, `rows`
  and `rows_truncated` count the training rows of the students of all seeds.

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
  return [_aggregate_seeds(rows, load) for rows in by_name.values()]


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
  group['n_test'] = len(first.ids_N)
  for name in ('rows', 'rows_truncated'):
    group[name] = sum(row[name] for row in rows)
  correct, group['reliability'] = {}, {}
  for role in results.ROLES:
    probs_SxNxC, labels_SxNxC = [], []
    for row in rows:
      path, probs, truth = load(row['stages'][role])
      if set(probs.ids_N.tolist()) != set(first.ids_N.tolist()):
        raise errors.UserError(
          f'{path} and {first_path} are of different test examples, so they '
          'cannot be compared; use one workdir for each split.'
        )
      for labels, found in ((probs, probs_SxNxC), (truth, labels_SxNxC)):
        found.append(weak_labels.join(first.ids_N, labels).probs_NxC)
    probs_SxNxC, labels_SxNxC = np.stack(probs_SxNxC), np.stack(labels_SxNxC)
    correct[role] = metrics.correct(probs_SxNxC, labels_SxNxC)
    group[f'{role}_accuracy'], group[f'{role}_accuracy_se'] = (
      metrics.mean_and_se(correct[role])
    )
    n_classes = group['n_classes'] = probs_SxNxC.shape[-1]
    group['reliability'][role] = metrics.reliability(
      probs_SxNxC.reshape(-1, n_classes), labels_SxNxC.reshape(-1, n_classes)
    )
  for name in (*results.MEANS, *results.OPTIONAL):
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
    errors.UserError: as `results.read` and `aggregate`.
  """
  workdir = epath.Path(workdir)
  rows = results.read(workdir)
  groups = aggregate(workdir, rows)
  pngs = {}
  drawn = figures.draw(groups)
  for name, (figure, _) in drawn.items():
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=160, metadata={'Software': None})
    pngs[name] = buffer.getvalue()
  captions = {name: caption for name, (_, caption) in drawn.items()}
  run = _latest_run(workdir)
  markdown = page.to_markdown(rows, groups, captions, run)
  page_html = html_page.to_html(markdown, pngs)
  with lock.hold(workdir / 'report.LOCK'):  # jobs may end at the same time
    for name, png in pngs.items():
      files.write_atomically(workdir / 'figures' / name, png)
    files.write_atomically(workdir / 'report.md', markdown)
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


def console_table(groups) -> rich_table.Table:
  """Returns the table that ends a study, at most 100 columns wide.

  Names are text, whatever rich markup is in them.
  """
  plain = rich_text.Text
  captions = ['accuracy in % ± standard error; PGR with its 95 % interval']
  medians = groups_lib.over_tasks(groups)
  if medians:
    captions.append('over tasks: medians, of PGR where it is defined')
  table = rich_table.Table(
    box=box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    caption=plain('\n'.join([*captions, *page.rows_truncated(groups)])),
  )
  table.add_column('weak → strong\n  method', overflow='fold')
  for name in ('weak', 'student', 'ceiling', 'zero-shot', 'PGR'):
    table.add_column(name, justify='right', no_wrap=True)
  for (task,), of_task in groups_lib.by([*groups, *medians], 'task').items():
    table.add_row(plain(task))
    for students in groups_lib.by(of_task, *results.PANEL).values():
      table.add_row(plain(page.pair(students[0])))
      for group in students:
        pgr = groups_lib.pgr_text(group)
        if 'n_defined' in group:
          pgr += f'\non {group["n_defined"]} of {group["n_tasks"]} tasks'
        numbers = *page.accuracies(group), pgr
        method = plain(groups_lib.method(group))
        method = padding.Padding(method, (0, 0, 0, 2))
        table.add_row(method, *numbers)
      table.add_section()
  return table
