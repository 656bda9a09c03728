"""results.jsonl and the stored predictions -> numbers, and a report of them.

Shapes: S seeds, N test examples, C classes.
"""

import functools
import io
import zipfile
import zlib

from etils import epath
import numpy as np
from rich import box
from rich import padding
from rich import table as rich_table

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import figures
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import html_page
from w2s_jax.report import page
from w2s_jax.runtime import lock


def aggregate(workdir, rows) -> list[dict]:
  """One dict for each pair of models and method, over seeds.

  `{role}_accuracy` and `_accuracy_se` (over examples and seeds) and the PGR
  come from the stored predictions, other numbers are means over the rows.
  `reliability` holds (confidence, accuracy, count) of all seeds by role, `rows`
  and `rows_cut` count the training rows of the students of all seeds.

  Raises:
    FileNotFoundError, ValueError: predictions are missing or damaged, or the
      stages of one group were not tested on the same examples.
  """
  load = functools.cache(functools.partial(_load_predictions, workdir))
  groups = {}
  for row in rows:
    groups.setdefault(
      tuple(row[field] for field in results.STUDENT), []
    ).append(row)
  return [_aggregate_seeds(rows, load) for rows in groups.values()]


def _load_predictions(workdir, stage):
  path = epath.Path(workdir) / 'stages' / stage / 'predictions' / 'test.npz'
  try:
    with np.load(io.BytesIO(path.read_bytes())) as file:
      return path, file['ids'], file['probs'], file['label_probs']
  except FileNotFoundError as error:
    raise errors.MissingFileError(
      f'{path} not found, but results.jsonl needs it. Run the experiment again '
      'to make it.'
    ) from error
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
    raise errors.UserError(
      f'{path} is damaged ({e}). Delete the folder stages/{stage} and run the '
      'experiment again.'
    ) from e


def _aggregate_seeds(rows, load):
  group = {
    field: rows[0][field] for field in (*results.STUDENT, *results.SIZES)
  }
  group.update(seeds=[row['seed'] for row in rows], n_seeds=len(rows))
  first_path, first_ids, _, _ = load(rows[0]['stages']['weak'])
  group['n_test'] = len(first_ids)
  for name in ('rows', 'rows_cut'):
    group[name] = sum(row[name] for row in rows)
  correct, group['reliability'] = {}, {}
  for role in results.ROLES:
    probs_SxNxC, labels_SxNxC = [], []
    for row in rows:
      path, ids, probs_NxC, labels_NxC = load(row['stages'][role])
      if not np.array_equal(ids, first_ids):
        raise errors.UserError(
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
    FileNotFoundError, ValueError: as `results.read` and `aggregate`.
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
  markdown = page.to_markdown(rows, groups, captions)
  page_html = html_page.to_html(markdown, pngs)
  (workdir / 'figures').mkdir(parents=True, exist_ok=True)
  with lock.hold(workdir / 'report.LOCK'):  # jobs may end at the same time
    for name, png in pngs.items():
      _write(workdir / 'figures' / name, png)
    _write(workdir / 'report.md', markdown.encode())
    _write(workdir / 'report.html', page_html.encode())
  return groups


def _write(path, data):
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(data)
  temporary.replace(path)


def console_table(groups) -> rich_table.Table:
  """The table a study ends with, at most 100 columns wide."""
  captions = ['accuracy in % ± standard error; PGR with its 95 % interval']
  medians = groups_lib.over_tasks(groups)
  if medians:
    captions.append('over tasks: medians, of PGR where it is defined')
  table = rich_table.Table(
    box=box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    caption='\n'.join([*captions, *page.rows_cut(groups)]),
  )
  table.add_column('weak → strong\n  method', overflow='fold')
  for name in ('weak', 'student', 'ceiling', 'zero-shot\nuntrained', 'PGR'):
    table.add_column(name, justify='right', no_wrap=True)
  for (task,), of_task in groups_lib.by([*groups, *medians], 'task').items():
    table.add_row(task)
    for students in groups_lib.by(of_task, *results.PANEL).values():
      table.add_row(page.pair(students[0]))
      for group in students:
        pgr = groups_lib.pgr_text(group)
        if 'n_defined' in group:
          pgr += f'\non {group["n_defined"]} of {group["n_tasks"]} tasks'
        numbers = *page.accuracies(group), pgr
        method = padding.Padding(groups_lib.method(group), (0, 0, 0, 2))
        table.add_row(method, *numbers)
      table.add_section()
  return table
