"""What a report on a made-up workdir says."""

import re

import numpy as np
import pytest

from w2s_jax import results
from w2s_jax.report import differences
from w2s_jax.report import figures
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import page
from w2s_jax.report import report

import made_up


def markdown(workdir):
  """(groups, report.md) of a workdir, without its figures as files."""
  rows = results.read(workdir)
  groups = report.aggregate(workdir, rows)
  drawn = figures.draw(groups)
  captions = {name: caption for name, (_, caption) in drawn.items()}
  return groups, page.to_markdown(rows, groups, captions, None)


def test_markdown_shows_these_numbers(tmp_path):
  rows = made_up.make(tmp_path)
  groups = report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  for group in groups:
    numbers = ' | '.join(
      [
        f'{100 * group["weak_label_accuracy"]:.1f}',
        *(
          f'{100 * group[f"{r}_accuracy"]:.1f} '
          f'±{100 * group[f"{r}_accuracy_se"]:.1f}'
          for r in results.ROLES
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


def test_ways_between_the_same_two_models_are_told_apart(tmp_path):
  made_up.make_ladder(tmp_path, seeds=(0, 1))
  groups, text = markdown(tmp_path)
  naive, via = groups[3:5]
  assert naive['seeds'] == via['seeds'] == [0, 1]
  assert naive['student_accuracy'] < via['student_accuracy']
  assert naive['ceiling_accuracy'] == via['ceiling_accuracy']
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
  made_up.make(tmp_path)
  text = made_up.console(report.write(tmp_path))
  text += (tmp_path / 'report.md').read_text()
  for words in ('bootstrapping', ' via ', 'generative', 'max_length'):
    assert words not in text


def test_generative_fine_tuning_is_told_apart(tmp_path):
  made_up.make(tmp_path, losses=('xent',), generative=(False, True))
  groups = report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  without, after = groups
  assert without['seeds'] == after['seeds'] == [0, 1]
  assert without['weak_accuracy'] == after['weak_accuracy']
  assert without['zero_shot_accuracy'] == after['zero_shot_accuracy']
  assert without['student_accuracy'] != after['student_accuracy']
  assert without['ceiling_accuracy'] != after['ceiling_accuracy']
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
  assert re.search(r'  xent \+ generative +\d+\.\d ±', made_up.console(groups))


@pytest.mark.parametrize(
  'task, lost', [('rotten_tomatoes', 'end'), ('hh_rlhf', 'beginning')]
)
def test_rows_that_were_cut_are_counted(tmp_path, task, lost):
  rows = made_up.make(tmp_path, task=task, rows=1500, rows_truncated=7)
  rows[0]['rows_truncated'] = 1207  # of four
  made_up.write_rows(tmp_path, rows)
  shown = made_up.console(report.write(tmp_path))
  sentence = (
    f'{task}: 1,228 of 6,000 training rows of students were truncated to '
    f'data.max_length at their {lost}.'
  )
  assert sentence in ' '.join(shown.split())
  assert max(map(len, shown.splitlines())) <= 100
  for name in ('report.md', 'report.html'):
    assert sentence in (tmp_path / name).read_text()


def test_tasks_without_rows_truncated_are_not_mentioned(tmp_path):
  whole = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  cut = made_up.make(
    tmp_path, losses=('xent',), seeds=(0,), task='shp', rows_truncated=1
  )
  shown = made_up.console(report.aggregate(tmp_path, whole))
  assert 'max_length' not in shown
  shown = made_up.console(report.aggregate(tmp_path, whole + cut))
  assert 'shp: 1 of 1,000' in shown and 'rotten_tomatoes:' not in shown


def test_accepted_and_legal_are_shown_where_measured(tmp_path):
  rows = made_up.make_ladder(
    tmp_path,
    weak_accepted_accuracy=0.123,
    weak_legal=0.999,
    student_accepted_accuracy=0.234,
    student_legal=1.0,
    ceiling_accepted_accuracy=0.345,
  )
  _, text = markdown(tmp_path)
  assert '| AUROC | NLL | ECE | accepted | legal |' in text
  assert re.search(r'\| board-xs \| weak \| .* \| 0.123 \| 0.999 \|', text)
  assert re.search(r'\| ceiling \| .* \| 0.345 \| – \|', text)
  assert 'mates at once' in text
  for row in rows:
    for role in results.ROLES:
      row[f'{role}_auroc'] = None  # more than two classes
      row.pop(f'{role}_legal', None)
      row.pop(f'{role}_accepted_accuracy', None)
  made_up.write_rows(tmp_path, rows)
  _, text = markdown(tmp_path)
  assert '| role | NLL | ECE |\n' in text
  assert 'accepted' not in text.lower() and 'legal' not in text


def test_undefined_pgr_is_said_with_its_reason(tmp_path):
  made_up.make(
    tmp_path, losses=('xent',), rates=dict.fromkeys(made_up.RATES, 0.7)
  )
  groups, text = markdown(tmp_path)
  assert groups[0]['pgr'] is None
  assert f'ceiling - weak is {100 * groups[0]["gap"]:+.1f} ±' in text
  assert '| undefined | 2 |' in text
  assert 'undefined' in made_up.console(groups)


@pytest.mark.parametrize(
  'student, seeds, words',
  [
    (0.82, (0, 1, 2), 'beyond the noise measured (3 seeds)'),
    (0.50, (0, 1, 2), 'worse than its supervisor (3 seeds)'),
    (0.66, (0,), 'leaves out the noise of training'),
  ],
)
def test_every_row_says_how_to_read_it(tmp_path, student, seeds, words):
  rates = dict(made_up.RATES, student=student)
  made_up.make(tmp_path, losses=('xent',), seeds=seeds, rates=rates)
  report.write(tmp_path)
  assert words in (tmp_path / 'report.md').read_text()


def test_numbers_without_a_value_are_dashes(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  rows[0]['weak_auroc'] = None  # one class was never seen
  rows[0]['agreement_supervisor_wrong'] = None  # it never was
  made_up.write_rows(tmp_path, rows)
  _, text = markdown(tmp_path)
  assert '| weak | – |' in text and '| – | 12 |' in text


TASKS = (
  *('boolq', 'cola', 'dream', 'imdb', 'multirc', 'paws', 'piqa', 'quail'),
  *('quartz', 'rte', 'sciq', 'sst2', 'wic'),
)


def test_medians_over_tasks_and_how_many_were_left_out(tmp_path):
  made_up.make_tasks(tmp_path, TASKS[:8], undefined=TASKS[6:8])
  groups, text = markdown(tmp_path)
  (median,) = groups_lib.over_tasks(groups)
  assert (median['n_defined'], median['n_tasks']) == (6, 8)
  accuracies = ' | '.join(
    f'{100 * np.median([g[f"{role}_accuracy"] for g in groups]):.1f} '
    f'±{100 * median[f"{role}_accuracy_se"]:.1f}'
    for role in results.ROLES
  )
  pgr = np.median([g['pgr'] for g in groups if g['pgr'] is not None])
  interval = f'[{median["pgr_low"]:.2f}, {median["pgr_high"]:.2f}]'
  assert (
    f'| minilm-l1 → minilm-l6 | xent | 8 | {accuracies} | {pgr:.2f} {interval} '
    '| 6 | 2 |'
  ) in text
  assert f'median PGR {pgr:.2f} {interval} of 6 tasks; 2 of 8 are left' in text
  section = text[text.index('## Over tasks') : text.index('## Results')]
  for name in ('median_pgr.png', 'tasks.png'):
    assert text.count(f'figures/{name}') == 1 and f'figures/{name}' in section
  assert '- cola, minilm-l1' in text  # each task is read out


def test_no_task_has_a_gap(tmp_path):
  made_up.make_tasks(tmp_path, TASKS[:2], undefined=TASKS[:2])
  _, text = markdown(tmp_path)
  assert '| undefined | 0 | 2 |' in text
  assert 'PGR is undefined on all of the 2 tasks.' in text


def test_many_tasks_are_in_the_table_and_not_read_out(tmp_path):
  made_up.make_tasks(tmp_path, TASKS)
  report.write(tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert '| cola | minilm-l1 → minilm-l6 | xent |' in text
  assert '- cola, minilm-l1' not in text and '- Over tasks, minilm' in text
  assert '<p></p>' not in (tmp_path / 'report.html').read_text()


def test_one_task_has_no_medians(tmp_path):
  made_up.make(tmp_path)
  report.write(tmp_path)
  assert 'over tasks' not in (tmp_path / 'report.md').read_text().lower()


def test_each_link_of_chains_is_in_one_line(tmp_path):
  made_up.make_ladder(tmp_path, seeds=(0, 1))
  _, text = markdown(tmp_path)
  section = text[text.index('## Links') : text.index('## Beyond')]
  line = '| chess | xent | board-xs → board-s | 50.0 | 60.0 | 77.5 | 22.5 | – |'
  assert section.count(line) == 1  # it begins three chains
  assert '| board-xs → board-s → board-m | 60.0 | 70.0 |' in section
  made_up.make(tmp_path)
  assert '## Links' not in markdown(tmp_path)[1]


def test_links_are_left_out_for_rows_without_them(tmp_path):
  rows = made_up.make_ladder(tmp_path)
  for row in rows:
    del row['links']
  made_up.write_rows(tmp_path, rows)
  assert '## Links' not in markdown(tmp_path)[1]


def test_paired_differences_are_in_a_section(tmp_path):
  made_up.make(tmp_path)
  groups, text = markdown(tmp_path)
  (found,) = differences.paired(groups)
  shown = differences.text(found['student'])
  assert f'| logconf | xent | 2 | {shown} |' in text
  assert '| seeds | student |\n' in text  # no column for equal ceilings
  made_up.make(tmp_path, losses=('xent',), generative=(False, True))
  groups, text = markdown(tmp_path)
  (found,) = differences.paired(groups)
  ceilings = differences.text(found['ceiling'])
  assert f'| {ceilings} |' in text and '| student | ceiling |\n' in text
  made_up.make(tmp_path, losses=('xent',))
  assert 'Paired' not in markdown(tmp_path)[1]


def test_seconds_and_those_of_compilation_are_in_the_table_of_seeds(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  rows = results.read(tmp_path)
  for compiled, shown in (7.0, '7'), (None, '–'):
    rows[0]['compile_seconds'] = compiled
    text = page.to_markdown(rows, report.aggregate(tmp_path, rows), {})
    section = text[text.index('## Every seed') :]
    assert '| seconds | compiling |\n' in section
    assert f'| 12 | {shown} |\n' in section


def test_marks_are_in_all_tables_of_accuracies_and_explained(tmp_path):
  rates = dict(made_up.RATES, zero_shot=0.9)
  made_up.make(tmp_path, losses=('xent',), rates=rates, seeds=(0, 1))
  (group,), text = markdown(tmp_path)
  assert f'±{100 * group["student_accuracy_se"]:.1f} ↓ |' in text
  seeds = text[text.index('## Every seed') :]
  assert seeds.count(' ↓ |') == 4  # student and ceiling of two seeds
  assert text.count('↓: more than 2 standard errors below') == 1


def test_the_median_difference_is_in_the_section_over_tasks(tmp_path):
  made_up.make_tasks(tmp_path, TASKS[:6], losses=('xent', 'logconf'))
  groups, text = markdown(tmp_path)
  (median,) = differences.over_tasks(differences.paired(groups))
  section = text[text.index('## Over tasks') : text.index('## Results')]
  shown = differences.text(median['student'])
  assert f'| logconf | xent | 6 | {shown} | {median["above"]} |' in section
