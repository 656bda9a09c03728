"""The rows on which student and supervisor disagree most."""

import functools
import re

import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax import results
from w2s_jax.report import boards
from w2s_jax.report import disagreements
from w2s_jax.report import report
from w2s_jax.runtime import files

import made_up


def write_texts(workdir, texts, ids=made_up.IDS):
  lines = [{'id': str(i), 'label': 0, **x} for i, x in zip(ids, texts)]
  files.save_lines(workdir / 'rows' / 'test-made-up.jsonl.gz', lines)


def draw(workdir):
  rows = results.read(workdir)
  load = functools.partial(report._load_predictions, workdir)
  groups = report.aggregate(workdir, rows)
  return disagreements.draw(workdir, rows, groups, load)


def test_rows_come_by_the_distance_of_the_probabilities():
  student_NxC = np.array([[0.5, 0.5, 0], [0.9, 0.1, 0], [0.3, 0.3, 0.4]])
  weak_NxC = np.array([[0.5, 0.5, 0], [0.1, 0.9, 0], [0.4, 0.4, 0.2]])
  assert disagreements.most(student_NxC, weak_NxC).tolist() == [1, 2, 0]
  many_NxC = np.zeros((50, 2))
  assert disagreements.most(many_NxC, many_NxC).tolist() == list(range(20))


def test_cards_hold_text_truth_and_probabilities(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent',), seeds=(0, 1))
  write_texts(tmp_path, [{'text': f'<b>&{i}' + 600 * 'x'} for i in range(600)])
  page = draw(tmp_path)
  assert page.count('class="row right"') + page.count('class="row wrong"') == 20
  assert '<b>' not in page and '… (truncated)' in page
  loaded = {
    role: files.load_arrays(
      tmp_path / 'stages' / rows[0]['stages'][role] / 'predictions/test.npz'
    )
    for role in ('student', 'weak', 'ceiling')
  }
  probs = {role: arrays['probs'] for role, arrays in loaded.items()}
  first = disagreements.most(probs['student'], probs['weak'])[0]
  truth = loaded['weak']['label_probs'][first].argmax()
  card = re.search(r'<div class="row.*?</table></div>', page, re.S)[0]
  names = 'negative', 'positive'  # of rotten_tomatoes
  assert f'&lt;b&gt;&amp;{first}x' in card and f'truth: {names[truth]}' in card
  answers = re.findall(r'<td class="(?:yes|no)">(\w+) ', card)
  assert answers == [names[p[first].argmax()] for p in probs.values()]
  shown = re.findall(r'<td>(\d\.\d\d)</td></tr>', card)
  assert shown == [f'{p[first][truth]:.2f}' for p in probs.values()]
  right = probs['student'][first].argmax() == truth
  assert ('row right' in card) == right


def test_without_texts_there_are_ids_of_classes_alone(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  page = draw(tmp_path)
  assert page.count('class="row ') == 20 and '<blockquote>' not in page


def test_classes_without_names_have_numbers(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,), task='not known')
  page = draw(tmp_path)
  assert 'truth: class ' in page and 'negative' not in page


def test_pairs_are_named(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,), task='vader_pairs')
  texts = [{'prompt': '', 'first': 'one', 'second': 'two'}] * 600
  write_texts(tmp_path, texts)
  page = draw(tmp_path)
  assert 'prompt' not in page and page.count('second: </span>two') == 20
  assert 'truth: second' in page or 'truth: first' in page


def test_classes_of_a_position_are_its_moves(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,), task='chess_puzzles')
  fen = '6k1/5ppp/8/8/8/8/8/R5K1 b - - 0 1'
  write_texts(tmp_path, [{'fen': fen, 'moves': ''}] * 600)
  page = draw(tmp_path)
  assert page.count('black to move: 6k1/<wbr>5ppp/<wbr>8/') == 20
  names = set(re.findall(r'truth: ([^<]*)<', page))
  assert names <= set(boards.moves(fen)[:2])
  n_right = page.count('<div class="row right">')
  assert f'the student is right in {n_right} of these rows' in page
  assert page.count('class="board"') == 20


def test_each_task_has_a_student_before_any_has_two(tmp_path, monkeypatch):
  made_up.make_tasks(tmp_path, ['sst2', 'cola'], losses=('xent', 'logconf'))
  monkeypatch.setattr(disagreements, '_MOST_STUDENTS', 3)
  page = draw(tmp_path)
  titles = re.findall(r'<option value="student-\d+"[^>]*>([^:]*)', page)
  assert (
    titles == ['cola', 'cola', 'sst2']
    and 'left out for their number: 1.' in page
  )
  monkeypatch.setattr(disagreements, '_MOST_CHARACTERS', 1)
  assert 'left out for their number: 3.' in draw(tmp_path)  # never none


def test_the_student_shown_first_was_not_stopped_early(tmp_path):
  rows = made_up.make(tmp_path, losses=('xent', 'logconf'), seeds=(0,))
  rows[0]['early_stopping'] = 'ground_truth'  # that of xent
  made_up.write_rows(tmp_path, rows)
  selected = re.search('" selected>([^<]*)', draw(tmp_path))[1]
  assert selected == 'rotten_tomatoes: minilm-l1 → minilm-l6, logconf'


def test_a_damaged_file_of_rows_is_named(tmp_path):
  made_up.make(tmp_path, losses=('xent',), seeds=(0,))
  write_texts(tmp_path, [{'text': 'x'}] * 600)
  path = tmp_path / 'rows' / 'test-made-up.jsonl.gz'
  for damaged in (path.read_bytes()[:-20], b'', b'text'):
    path.write_bytes(damaged)
    with pytest.raises(errors.UserError, match='test-made-up.* is damaged; '):
      report.write(tmp_path)
