"""A report on a made-up workdir: its numbers, its files, its errors."""

import io
import itertools
import json
import re

from matplotlib import image
import numpy as np
import pytest
import rich.console

from w2s_jax import figures
from w2s_jax import metrics
from w2s_jax import report

RATES = {'weak': 0.66, 'student': 0.74, 'ceiling': 0.82, 'zero_shot': 0.5}
SIZES = {
  'minilm-l1': 13_000_000,
  'minilm-l6': 22_000_000,
  'board-m': 900_000,  # not in the order of the names
  'board-xs': 20_000,
  'board-l': 5_000_000,
  'board-s': 150_000,
}
IDS = np.array([f'row-{i:03}' for i in range(600)])


def _predict(rate, rng, labels_N):
  """Probabilities of a model which is right at this rate, roughly."""
  right_N = rng.random(len(labels_N)) < rate
  top_N = 0.5 + 0.5 * rng.beta(2, 2, len(labels_N))
  positive_N = np.where(right_N == labels_N, top_N, 1 - top_N)
  return np.stack([1 - positive_N, positive_N], -1).astype(np.float32)


def _one_hot(labels_N):
  return np.eye(2, dtype=np.float32)[labels_N.astype(int)]


def _save_stage(workdir, stage, probs_NxC, label_probs_NxC, ids=IDS):
  folder = workdir / 'stages' / stage / 'predictions'
  folder.mkdir(parents=True, exist_ok=True)
  np.savez(
    folder / 'test.npz', ids=ids, probs=probs_NxC, label_probs=label_probs_NxC
  )


def _row(workdir, rates, **key):
  """Writes the four stages of one student and returns its result.

  The key names all of a row's key but via, which is () where it is left out.
  """
  key = {
    'via': (),
    'weak_labels': 'soft',
    'early_stopping': 'none',
    'generative': False,
    **key,
  }
  labels_N = np.random.default_rng(0).random(600) < 0.5
  labels_NxC = _one_hot(labels_N)
  row, probs = dict(key, stages={}, n_test=600, seconds=12.5), {}
  row.update(rows=1000, rows_cut=0)
  row['weak_parameters'] = SIZES[key['weak_model']]
  row['strong_parameters'] = SIZES[key['strong_model']]
  for i, (role, rate) in enumerate(rates.items()):
    # The weak model and zero-shot serve every method, a ceiling most.
    method = [key['loss'], *key['via']] if role == 'student' else []
    if role in ('student', 'ceiling') and key['generative']:
      method.append('generative')
    rng = np.random.default_rng([key['seed'], i, len(''.join(method))])
    probs[role] = _predict(rate, rng, labels_N)
    models = [key['weak_model']] * (role in ('weak', 'student'))
    models += [key['strong_model']] * (role != 'weak')
    stage = '-'.join([role, key['task'], *models, *method, str(key['seed'])])
    row['stages'][role] = stage
    _save_stage(workdir, stage, probs[role], labels_NxC)
    for name, value in metrics.summary(probs[role], labels_NxC).items():
      row[f'{role}_{name}'] = value
  same = metrics.agreement(probs['student'], probs['weak'], labels_NxC)
  row['agreement'] = same['all']
  row['agreement_supervisor_right'] = same['supervisor_right']
  row['agreement_supervisor_wrong'] = same['supervisor_wrong']
  accuracies = (row[f'{r}_accuracy'] for r in ('weak', 'student', 'ceiling'))
  row['pgr'] = metrics.pgr(*accuracies)
  row['pgr_status'] = 'ok'
  row['weak_label_accuracy'] = row['weak_accuracy']
  return row


def _make(
  workdir,
  *,
  losses=('logconf', 'xent'),
  seeds=(0, 1),
  rates=RATES,
  generative=(False,),
  **optional,
):
  rows = [
    _row(
      workdir,
      rates,
      task='rotten_tomatoes',
      weak_model='minilm-l1',
      strong_model='minilm-l6',
      loss=loss,
      seed=seed,
      generative=after,
    )
    for loss in losses
    for after in generative
    for seed in seeds
  ]
  for row in rows:
    row.update(optional)
  _write_rows(workdir, rows)
  return rows


def _make_ladder(workdir, *, seeds=(0,), generative=(False,), **optional):
  """Every pair of four models, and each bootstrapped through all in between."""
  models = 'board-xs', 'board-s', 'board-m', 'board-l'
  rows = []
  for weak, strong in itertools.combinations(range(4), 2):
    for via in dict.fromkeys([(), models[weak + 1 : strong]]):
      rates = {'weak': 0.55 + 0.1 * weak, 'ceiling': 0.6 + 0.1 * strong}
      share = 0.5 + 0.15 * len(via)
      gain = share * (rates['ceiling'] - rates['weak'])
      rates |= {'student': rates['weak'] + gain, 'zero_shot': 0.5}
      key = dict(weak_model=models[weak], strong_model=models[strong], via=via)
      rows += [
        _row(
          workdir,
          {role: rates[role] for role in figures.ROLES},
          **dict(key, task='chess', loss='xent', seed=seed, generative=after),
        )
        for after in generative
        for seed in seeds
      ]
  for row in rows:
    row.update(optional)
  _write_rows(workdir, rows[::-1])
  return rows


def _write_rows(workdir, rows):
  lines = [json.dumps(row) + '\n' for row in rows]
  (workdir / 'results.jsonl').write_text(''.join(lines))


def _correct(workdir, rows, role):
  correct = []
  for row in rows:
    folder = workdir / 'stages' / row['stages'][role]
    with np.load(folder / 'predictions' / 'test.npz') as file:
      correct.append(metrics.correct(file['probs'], file['label_probs']))
  return np.stack(correct)


def test_aggregate_equals_metrics_of_the_predictions(tmp_path):
  rows = _make(tmp_path)
  group = report.aggregate(tmp_path, report.read_results(tmp_path))[0]
  assert (group['loss'], group['seeds'], group['n_test']) == (
    'xent',
    [0, 1],
    600,
  )
  rows = [row for row in rows if row['loss'] == 'xent']
  correct = [_correct(tmp_path, rows, role) for role in figures.ROLES[:3]]
  pgr = metrics.pgr_interval(*correct)
  assert group['pgr'] == pgr.value and group['pgr_low'] == pgr.low
  assert group['pgr_high'] == pgr.high and group['pgr_status'] == 'ok'
  for role, value in zip(figures.ROLES, correct):
    mean, se = metrics.mean_and_se(value)
    assert group[f'{role}_accuracy'] == mean
    assert group[f'{role}_accuracy_se'] == se
    assert mean == pytest.approx(
      np.mean([row[f'{role}_accuracy'] for row in rows])
    )
  assert group['student_nll'] == np.mean([row['student_nll'] for row in rows])


def test_markdown_shows_these_numbers(tmp_path):
  rows = _make(tmp_path)
  groups = report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  for group in groups:
    numbers = ' | '.join(
      [
        f'{100 * group["weak_label_accuracy"]:.1f}',
        *(
          f'{100 * group[f"{r}_accuracy"]:.1f} '
          f'±{100 * group[f"{r}_accuracy_se"]:.1f}'
          for r in figures.ROLES
        ),
        f'{group["pgr"]:.2f} [{group["pgr_low"]:.2f}, {group["pgr_high"]:.2f}]',
      ]
    )
    assert f'| {group["loss"]} | {numbers} | 2 |' in text
  for row in rows:
    assert (
      f'| {row["loss"]} | {row["seed"]} | {100 * row["weak_accuracy"]:.1f} | '
      f'{100 * row["student_accuracy"]:.1f} |'
    ) in text
  assert text.index('| xent |') < text.index('| logconf |')
  assert 'rotten_tomatoes 600' in text
  assert text.count('| weak |') == 3  # two headers, one line of a model


def test_html_is_self_contained_and_has_all_of_the_markdown(tmp_path):
  _make(tmp_path)
  report.write(tmp_path)
  page = (tmp_path / 'report.html').read_text()
  assert not re.search(r'https?:|<link|<script|@import|url\(', page)
  sources = re.findall(r'src="([^"]{0,22})', page)
  assert sources == ['data:image/png;base64,'] * 3
  markdown = (tmp_path / 'report.md').read_text()
  words = re.sub(r'<[^>]*>', ' ', page)
  for number in re.findall(r'\d+\.\d+', markdown):
    assert number in words
  assert '| ' not in words and '![' not in words and '##' not in words
  assert page.count('<tr>') == 3 + 2 + 5 + 4  # headers and lines of the tables


def test_figures_open_and_nothing_else_is_left(tmp_path):
  _make(tmp_path)
  report.write(tmp_path)
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
  _make(tmp_path, losses=('xent',), seeds=(0,))
  report.write(tmp_path)
  first = (tmp_path / 'report.html').read_bytes()
  report.write(tmp_path)
  assert (tmp_path / 'report.html').read_bytes() == first


def test_models_come_by_size_and_bootstrapping_after_naive(tmp_path):
  _make_ladder(tmp_path)
  groups = report.aggregate(tmp_path, report.read_results(tmp_path))
  assert [
    (g['weak_model'][6:], g['strong_model'][6:], figures.method(g))
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


def test_ways_between_the_same_two_models_are_told_apart(tmp_path):
  _make_ladder(tmp_path, seeds=(0, 1))
  groups = report.write(tmp_path)
  naive, via = groups[3:5]
  assert naive['seeds'] == via['seeds'] == [0, 1]
  assert naive['student_accuracy'] < via['student_accuracy']
  assert naive['ceiling_accuracy'] == via['ceiling_accuracy']
  text = (tmp_path / 'report.md').read_text()
  pair, method = 'board-xs → board-l', 'xent via board-s, board-m'
  for name in ('xent', method):
    assert f'| {pair} | {name} | 0 |' in text  # its seeds
    assert f'- chess, {pair}, {name}: student' in text
    assert text.count(f'| board-l | student of board-xs, {name} |') == 1
  assert text.count('| board-l | ceiling |') == 1  # of all that share it
  assert text.index('| board-m | weak |') < text.index('| board-l | ceiling |')
  assert 'on labels of the model just before it' in text
  assert 'board-xs (20,000), board-s (150,000), board-m (900,000)' in text


def test_what_was_not_done_is_not_mentioned(tmp_path):
  _make(tmp_path)
  text = _console(report.write(tmp_path))
  text += (tmp_path / 'report.md').read_text()
  for words in ('bootstrapping', ' via ', 'generative', 'max_length'):
    assert words not in text


def test_generative_fine_tuning_is_told_apart(tmp_path):
  _make(tmp_path, losses=('xent',), generative=(False, True))
  groups = report.write(tmp_path)
  without, after = groups
  assert without['seeds'] == after['seeds'] == [0, 1]
  assert without['weak_accuracy'] == after['weak_accuracy']
  assert without['zero_shot_accuracy'] == after['zero_shot_accuracy']
  assert without['student_accuracy'] != after['student_accuracy']
  assert without['ceiling_accuracy'] != after['ceiling_accuracy']
  text = (tmp_path / 'report.md').read_text()
  for group, mark in (without, ''), (after, ' + generative'):
    assert f'| minilm-l1 → minilm-l6 | xent{mark} | ' in text
    for role, name in (
      ('student', f'student of minilm-l1, xent{mark}'),
      ('ceiling', f'ceiling{mark}'),
    ):
      shown = ' | '.join(
        f'{group[f"{role}_{metric}"]:.3f}' for metric in ('auroc', 'nll', 'ece')
      )
      assert text.count(f'| {name} | {shown} |') == 1
  assert text.count('| zero-shot |') == 3  # two headers, one line of a model
  assert 'section 5.2.2' in text and 'figures/generative.png' in text
  assert (tmp_path / 'figures' / 'generative.png').exists()
  assert re.search(r'  xent \+ generative +\d+\.\d ±', _console(groups))


@pytest.mark.parametrize(
  'task, lost', [('rotten_tomatoes', 'end'), ('hh_rlhf', 'beginning')]
)
def test_rows_that_were_cut_are_counted(tmp_path, task, lost):
  rows = _make(tmp_path, task=task, rows=1500, rows_cut=7)
  rows[0]['rows_cut'] = 1207  # of four
  _write_rows(tmp_path, rows)
  shown = _console(report.write(tmp_path))
  sentence = (
    f'{task}: 1,228 of 6,000 training rows of students were longer than '
    f'data.max_length and lost their {lost}.'
  )
  assert sentence in ' '.join(shown.split())
  assert max(map(len, shown.splitlines())) <= 100
  for name in ('report.md', 'report.html'):
    assert sentence in (tmp_path / name).read_text()


def test_tasks_without_rows_cut_are_not_mentioned(tmp_path):
  whole = _make(tmp_path, losses=('xent',), seeds=(0,))
  cut = _make(tmp_path, losses=('xent',), seeds=(0,), task='shp', rows_cut=1)
  shown = _console(report.aggregate(tmp_path, whole))
  assert 'max_length' not in shown
  shown = _console(report.aggregate(tmp_path, whole + cut))
  assert 'shp: 1 of 1,000' in shown and 'rotten_tomatoes:' not in shown


def test_ladder_adds_figures(tmp_path):
  _make_ladder(tmp_path)
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  for name in ('accuracy_by_size.png', 'pgr_by_size.png'):
    assert f'figures/{name}' in text
    assert image.imread(tmp_path / 'figures' / name).std() > 0.05


def test_accepted_and_legal_are_shown_where_measured(tmp_path):
  rows = _make_ladder(
    tmp_path,
    weak_accepted_accuracy=0.123,
    weak_legal=0.999,
    student_accepted_accuracy=0.234,
    student_legal=1.0,
    ceiling_accepted_accuracy=0.345,
  )
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert '| AUROC | NLL | ECE | accepted | legal |' in text
  assert re.search(r'\| board-xs \| weak \| .* \| 0.123 \| 0.999 \|', text)
  assert re.search(r'\| ceiling \| .* \| 0.345 \| – \|', text)
  assert 'mates at once' in text
  for row in rows:
    for role in figures.ROLES:
      row[f'{role}_auroc'] = None  # more than two classes
      row.pop(f'{role}_legal', None)
      row.pop(f'{role}_accepted_accuracy', None)
  _write_rows(tmp_path, rows)
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert '| role | NLL | ECE |\n' in text
  assert 'accepted' not in text.lower() and 'legal' not in text


def test_undefined_pgr_is_said_with_its_reason(tmp_path):
  _make(tmp_path, losses=('xent',), rates=dict.fromkeys(RATES, 0.7))
  groups = report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert groups[0]['pgr'] is None
  assert f'ceiling - weak is {100 * groups[0]["gap"]:+.1f} ±' in text
  assert '| undefined | 2 |' in text
  assert 'undefined' in _console(groups)


@pytest.mark.parametrize(
  'student, seeds, words',
  [
    (0.82, (0, 1, 2), 'beyond the noise measured (3 seeds)'),
    (0.50, (0, 1, 2), 'worse than its supervisor (3 seeds)'),
    (0.66, (0,), 'leaves out the noise of training'),
  ],
)
def test_every_row_says_how_to_read_it(tmp_path, student, seeds, words):
  rates = dict(RATES, student=student)
  _make(tmp_path, losses=('xent',), seeds=seeds, rates=rates)
  report.write(tmp_path)
  assert words in (tmp_path / 'report.md').read_text()


def _console(groups):
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=100)
  console.print(report.console_table(groups))
  return stream.getvalue()


def test_console_table_fits_into_100_columns(tmp_path):
  _make(tmp_path)
  groups = report.aggregate(tmp_path, report.read_results(tmp_path))
  shown = _console(groups)
  lines = shown.splitlines()
  assert max(map(len, lines)) <= 100
  assert 'minilm-l1 → minilm-l6' in shown and 'logconf' in shown
  for group in groups:
    pgr = (
      f'{group["pgr"]:.2f} [{group["pgr_low"]:.2f}, {group["pgr_high"]:.2f}]'
    )
    assert f'{100 * group["student_accuracy"]:.1f} ±' in shown and pgr in shown


def test_console_table_of_a_ladder_fits_and_folds_no_name(tmp_path):
  _make_ladder(tmp_path)
  shown = _console(report.aggregate(tmp_path, report.read_results(tmp_path)))
  assert max(map(len, shown.splitlines())) <= 100
  assert re.search(r'  xent via board-s, board-m +\d+\.\d ±.*\]', shown)
  assert shown.index('board-xs → board-s') < shown.index('board-xs → board-m')


def test_numbers_without_a_value_are_dashes(tmp_path):
  rows = _make(tmp_path, losses=('xent',), seeds=(0,))
  rows[0]['weak_auroc'] = None  # one class was never seen
  rows[0]['agreement_supervisor_wrong'] = None  # it never was
  _write_rows(tmp_path, rows)
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert '| weak | – |' in text and '| – | 12 |' in text


def test_no_results_yet(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'results\.jsonl not found'):
    report.write(tmp_path)
  (tmp_path / 'results.jsonl').touch()
  with pytest.raises(ValueError, match=r'results\.jsonl is empty'):
    report.write(tmp_path)


def test_damaged_results_name_file_and_line(tmp_path):
  rows = _make(tmp_path, losses=('xent',))
  path = tmp_path / 'results.jsonl'
  path.write_text(path.read_text()[:-30])
  with pytest.raises(ValueError, match=r'results\.jsonl, line 2: not JSON'):
    report.read_results(tmp_path)
  del rows[1]['weak_accuracy']
  _write_rows(tmp_path, rows)
  with pytest.raises(ValueError, match="line 2: .*'weak_accuracy' is missing"):
    report.read_results(tmp_path)
  _write_rows(tmp_path, rows[:1] * 2)
  with pytest.raises(ValueError, match='line 2: the same student as line 1'):
    report.read_results(tmp_path)


def test_damaged_predictions_name_the_file(tmp_path):
  rows = _make(tmp_path, losses=('xent',), seeds=(0,))
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
  with pytest.raises(FileNotFoundError, match=f'{stage}.*test.npz not found'):
    report.write(tmp_path)


def test_other_test_examples_are_refused(tmp_path):
  rows = _make(tmp_path, losses=('xent',), seeds=(0,))
  stage = rows[0]['stages']['ceiling']
  labels_NxC = _one_hot(np.zeros(600))
  _save_stage(tmp_path, stage, labels_NxC, labels_NxC, ids=IDS[::-1])
  with pytest.raises(ValueError, match=f'{stage}.*different test examples'):
    report.write(tmp_path)
