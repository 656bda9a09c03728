"""What a notebook reads from a workdir: tables, and models that predict."""

import sys

import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax import loading
from w2s_jax import results
from w2s_jax.tasks import chess
from w2s_jax.tasks import reward

import tiny

TEXTS = ['a great warm film', 'a dull awful film']


@pytest.fixture(scope='module')
def workdir():
  """Of two seeds with one loss; nothing is written to it."""
  return tiny.xent_workdir()


def test_a_row_for_each_student_and_seed(workdir):
  table = loading.load_results(workdir)
  rows = results.read(workdir)
  assert table['seed'].tolist() == [row['seed'] for row in rows] == [0, 1]
  assert table['task'].unique().tolist() == ['synthetic']
  for name in ('student_accuracy', 'weak_accuracy', 'agreement', 'n_test'):
    assert table[name].tolist() == [row[name] for row in rows]
  np.testing.assert_array_equal(
    table['pgr'], [np.nan if r['pgr'] is None else r['pgr'] for r in rows]
  )
  stages = [row['stages']['student'] for row in rows]
  assert table['student_stage'].tolist() == stages


def test_the_first_student_is_loaded_and_predicts_as_it_did(workdir):
  model = loading.load_model(workdir)
  assert model.stage == results.read(workdir)[0]['stages']['student']
  stored = loading.load_predictions(workdir)
  again = model.predict(stored['text'].tolist())
  assert again.columns.tolist() == (
    ['text', 'prediction', 'p(negative)', 'p(positive)']
  )
  np.testing.assert_allclose(
    again['p(positive)'], stored['p(positive)'], atol=1e-5
  )
  assert again['prediction'].tolist() == stored['prediction'].tolist()


@pytest.mark.parametrize('role', ['weak', 'student', 'ceiling', 'zero_shot'])
def test_predictions_have_the_accuracy_of_the_results(workdir, role):
  for _, row in loading.load_results(workdir).iterrows():
    table = loading.load_predictions(workdir, row[f'{role}_stage'])
    assert table.index.name == 'id' and table.index.is_unique
    right = table['prediction'] == table['label']
    assert right.mean() == pytest.approx(row[f'{role}_accuracy'])


def test_weak_labels_are_those_of_the_student(workdir):
  for _, row in loading.load_results(workdir).iterrows():
    table = loading.load_weak_labels(workdir, row['student_stage'])
    assert len(table) == row['rows'] == 64
    right = table['prediction'] == table['label']
    assert right.mean() == pytest.approx(row['weak_label_accuracy'])


@pytest.mark.parametrize(
  'call, says',
  [
    (lambda w: loading.load_results(w / 'no'), 'results.jsonl not found'),
    (lambda w: loading.load_model(w / 'no'), 'results.jsonl not found'),
    (lambda w: loading.load_model(w, 'weke'), "0 finished .*'weke'; name one"),
    (lambda w: loading.load_predictions(w, split='tset'), "split='tset'"),
    (lambda w: loading.load_weak_labels(w, 'weak-tiny'), 'stages'),
    (
      lambda w: loading.load_weak_labels(w, tiny.stage(w, 'ceiling').name),
      'trained on the labels of 0 supervisors',
    ),
    (lambda w: loading.load_model(w).predict('a text'), "list .* 'a text'"),
    (lambda w: loading.load_model(w).predict([]), r'at least one str; got \[]'),
    (lambda w: loading.load_model(w).predict(['a', 1]), 'reads .*str; .* 1'),
  ],
)
def test_a_mistake_is_one_line(workdir, call, says):
  with pytest.raises(errors.UserError, match=says) as raised:
    call(workdir)
  assert '\n' not in str(raised.value)


def test_without_pandas_the_command_is_given(workdir, monkeypatch):
  model = loading.load_model(workdir)  # needs none
  monkeypatch.setitem(sys.modules, 'pandas', None)
  for call in (
    lambda: loading.load_results(workdir),
    lambda: model.predict(TEXTS),
    lambda: loading.load_predictions(workdir),
  ):
    with pytest.raises(errors.MissingPackageError, match='pip install pandas'):
      call()


def test_classes_without_a_name_have_a_number(workdir, monkeypatch):
  monkeypatch.setattr(loading.class_names, 'NAMES', {})
  assert loading.load_model(workdir).classes == ('class 0', 'class 1')


def test_a_position_has_classes_of_its_own():
  fen = '6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1'
  position = chess.Position(fen, '')
  mate = position.completions.index('Ra8#')
  probs_NxC = np.zeros((2, 1 + chess.NOT_LEGAL), np.float32)
  probs_NxC[0, mate] = 0.75
  probs_NxC[1, chess.NOT_LEGAL] = 1
  table = loading.predictions_table(
    [position, position], probs_NxC, None, labels=[mate, mate]
  )
  assert table['fen'].tolist() == [fen, fen]
  assert table['label'].tolist() == ['Ra8#', 'Ra8#']
  assert table['prediction'].tolist() == ['Ra8#', 'not a legal move']
  assert table['probability'].tolist() == [0.75, 1]


def test_pairs_have_a_first_and_a_second():
  pair = reward.Pair('', 'bad', 'good')
  probs_NxC = np.array([[0.25, 0.75]])
  table = loading.predictions_table([pair], probs_NxC, ('first', 'second'))
  assert table.to_dict('records') == [
    {
      **pair._asdict(),
      'prediction': 'second',
      'p(first)': 0.25,
      'p(second)': 0.75,
    }
  ]
