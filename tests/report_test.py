"""A report on a made-up workdir: its numbers, its files, its errors."""

import json

from matplotlib import image
import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import report
from w2s_jax.runtime import files
from w2s_jax.tasks import registry

import made_up


def _correct(workdir, rows, role):
  correct = []
  for row in rows:
    folder = workdir / 'stages' / row['stages'][role]
    with np.load(folder / 'predictions' / 'test.npz') as file:
      correct.append(metrics.correct(file['probs'], file['label_probs']))
  return np.stack(correct)


def test_aggregate_equals_metrics_of_the_predictions(tmp_path):
  rows = made_up.make(tmp_path)
  group = report.aggregate(tmp_path, results.read(tmp_path))[0]
  assert (group['loss'], group['seeds'], group['n_test']) == (
    'xent',
    [0, 1],
    600,
  )
  rows = [row for row in rows if row['loss'] == 'xent']
  correct = [_correct(tmp_path, rows, role) for role in results.ROLES[:3]]
  pgr = metrics.pgr_interval(*correct)
  assert group['pgr'] == pgr.value and group['pgr_low'] == pgr.low
  assert group['pgr_high'] == pgr.high and group['pgr_status'] == 'ok'
  for role, value in zip(results.ROLES, correct):
    mean, se = metrics.mean_and_se(value)
    assert group[f'{role}_accuracy'] == mean
    assert group[f'{role}_accuracy_se'] == se
    assert mean == pytest.approx(
      np.mean([row[f'{role}_accuracy'] for row in rows])
    )
  assert group['student_nll'] == np.mean([row['student_nll'] for row in rows])


def test_figures_open_and_nothing_else_is_left(tmp_path):
  made_up.make(tmp_path)
  report.write(tmp_path)
  made = {path.name for path in tmp_path.iterdir()}
  made -= {'stages', 'results.jsonl'}
  assert made == {'figures', 'report.md', 'report.html', 'report.csv'}
  names = sorted(path.name for path in (tmp_path / 'figures').iterdir())
  assert names == [
    'accuracy_and_pgr.png',
    'calibration.png',
    'student_supervisor_agreement.png',
  ]
  for name in names:
    pixels = image.imread(tmp_path / 'figures' / name)
    assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.05
  assert not list(tmp_path.rglob('*.tmp'))


def test_writing_again_gives_the_same_bytes(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  report.write(tmp_path)
  first = (tmp_path / 'report.html').read_bytes()
  report.write(tmp_path)
  assert (tmp_path / 'report.html').read_bytes() == first


def test_models_come_by_size_and_bootstrapping_after_naive(tmp_path):
  made_up.make_ladder(tmp_path)
  groups = report.aggregate(tmp_path, results.read(tmp_path))
  assert [
    (g['weak_model'][6:], g['strong_model'][6:], groups_lib.method(g))
    for g in groups
  ] == [
    ('xs', 's', 'xent'),
    ('xs', 'm', 'xent'),
    ('xs', 'm', 'xent via board-s'),
    ('xs', 'l', 'xent'),
    ('xs', 'l', 'xent via board-s, board-m'),
    ('s', 'm', 'xent'),
    ('s', 'l', 'xent'),
    ('s', 'l', 'xent via board-m'),
    ('m', 'l', 'xent'),
  ]


def test_ladder_adds_figures(tmp_path):
  made_up.make_ladder(tmp_path)
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  for name in ('accuracy_by_size.png', 'pgr_by_size.png'):
    assert f'figures/{name}' in text
    assert image.imread(tmp_path / 'figures' / name).std() > 0.05


def test_no_results_yet(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'results\.jsonl not found'):
    report.write(tmp_path)
  (tmp_path / 'results.jsonl').touch()
  with pytest.raises(ValueError, match=r'results\.jsonl is empty'):
    report.write(tmp_path)


def test_damaged_results_name_file_and_line(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',))
  path = tmp_path / 'results.jsonl'
  path.write_text(path.read_text()[:-30])
  with pytest.raises(ValueError, match=r'results\.jsonl, line 2: not JSON'):
    results.read(tmp_path)
  del rows[1]['weak_accuracy']
  made_up.write_rows(tmp_path, rows)
  with pytest.raises(ValueError, match="line 2: .*'weak_accuracy' is missing"):
    results.read(tmp_path)
  made_up.write_rows(tmp_path, rows[:1] * 2)
  with pytest.raises(ValueError, match='line 2: the same student as line 1'):
    results.read(tmp_path)


def test_damaged_predictions_name_the_file(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  stage = rows[0]['stages']['student']
  path = tmp_path / 'stages' / stage / 'predictions' / 'test.npz'
  whole = path.read_bytes()
  for damaged in (
    whole[:-100],
    b'',
    b'text',
    whole.replace(b'probs', b'prosb'),
  ):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f'{stage}.*test.npz is damaged'):
      report.write(tmp_path)
  path.unlink()
  with pytest.raises(errors.UserError, match=f'{stage}.*test.npz .*missing'):
    report.write(tmp_path)


def test_other_test_examples_are_refused(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  stage = rows[0]['stages']['ceiling']
  labels_NxC = made_up.one_hot(np.zeros(600))
  made_up.save_stage(
    tmp_path, stage, labels_NxC, labels_NxC, ids=np.char.add(made_up.IDS, 'x')
  )
  with pytest.raises(ValueError, match=f'{stage}.*different test examples'):
    report.write(tmp_path)


def test_models_are_joined_by_id(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  (before,) = report.aggregate(tmp_path, results.read(tmp_path))
  stage = rows[0]['stages']['ceiling']
  path = tmp_path / 'stages' / stage / 'predictions' / 'test.npz'
  arrays = files.load_arrays(path)
  order = np.random.default_rng(0).permutation(600)
  made_up.save_stage(
    tmp_path,
    stage,
    arrays['probs'][order],
    arrays['label_probs'][order],
    ids=arrays['ids'][order],
  )
  (after,) = report.aggregate(tmp_path, results.read(tmp_path))
  for name in ('ceiling_accuracy', 'pgr', 'pgr_low', 'pgr_high'):
    assert before[name] == after[name]


def test_predictions_of_another_stage_are_refused(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0, 1))
  folders = [tmp_path / 'stages' / row['stages']['student'] for row in rows]
  content = (folders[1] / 'predictions' / 'test.npz').read_bytes()
  (folders[0] / 'predictions' / 'test.npz').write_bytes(content)
  with pytest.raises(errors.UserError, match='belongs to another stage'):
    report.write(tmp_path)


def test_recipes_are_never_averaged(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0, 1))
  rows[1]['recipe'] = 'another'
  made_up.write_rows(tmp_path, rows)
  with pytest.raises(errors.UserError, match='2 recipes .another, made-up.'):
    report.write(tmp_path)


def test_the_report_begins_with_the_latest_run(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,), variant='[red]a|<b>')
  record = {
    'command': 'python experiments/main.py --config=<c>',
    'configs': [{'task': 'x', 'models': {'weak': {'name': 'a'}}}],
    'versions': {'jax': '1.2.3', 'numpy': None},
    'git_commit': 'abcdef' * 7,
    'git_dirty': True,
    'devices': {'kind': 'cpu', 'count': 8},
    'started': '2026-01-31T12:00:00+00:00',
    'status': 'ok',
  }
  (tmp_path / 'run.json').write_text(json.dumps(record))
  groups = report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  page = (tmp_path / 'report.html').read_text()
  for words in ('2026-01-31', '8 cpu', 'abcdefabcdef and changes', 'jax 1.2.3'):
    assert words in text and words in page
  assert '--config=&lt;c&gt;' in page and '<summary>Config' in page
  assert '[red]a\\|<b>' in text and '[red]a|&lt;b&gt;' in page
  assert '[red]a|<b>' in made_up.console(groups)


@pytest.mark.slow
def test_a_report_of_200_students_and_33_tasks_stays_small(tmp_path):
  tasks = list(registry.TASKS)[:33]
  losses = 'xent', 'logconf', 'a', 'b', 'c', 'd'
  rows = made_up.make_tasks(tmp_path, tasks, losses=losses)
  lines = [
    {'id': str(id_), 'text': '<long> ' * 200, 'label': 0} for id_ in made_up.IDS
  ]
  files.save_lines(tmp_path / 'rows' / 'test-made-up.jsonl.gz', lines)
  metrics_lines = ''.join(
    json.dumps({'step': i, 'train/loss': 0.7, 'train/label_agreement': 0.5})
    + '\n'
    for i in range(1000)
  )
  stages = {stage for row in rows for stage in row['stages'].values()}
  for stage in stages:
    (tmp_path / 'stages' / stage / 'metrics.jsonl').write_text(metrics_lines)
  report.write(tmp_path)
  page = (tmp_path / 'report.html').read_bytes()
  assert len(page) < 5e6 and page.count(b'<option value="student-') == 40
