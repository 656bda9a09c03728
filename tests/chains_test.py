"""Chains of models, hard labels and early stopping in a whole study."""

import json
import shutil

import jax
import numpy as np
import pytest
import rich.console

from w2s_jax import check_config
from w2s_jax import study

import tiny


def config(**fields):
  """Three bags of words that are compiled once; hot, so checkpoints differ."""
  c = tiny.config(
    **{
      'losses': ('xent',),
      'data.splits.weak': 64,
      'models.weak.num_layers': 0,
      'models.weak.train.learning_rate': 3e-2,
      'models.weak.train.epochs': 4,
      'models.weak.train.decay': 'constant',
    }
  )
  for key, rate in (('middle', 0.08), ('strong', 0.1)):  # else one stage
    c.models[key] = c.models.weak.copy_and_resolve_references()
    c.models[key].name = key
    c.models[key].train.learning_rate = rate
  c.students = ('weak>strong', 'weak>middle>strong')
  c.weak_labels = 'hard'
  c.early_stopping = 'weak_labels'
  c.update(fields)
  return c


def run(workdir, **fields):
  study.run(
    config(**fields),
    workdir,
    console=rich.console.Console(quiet=True),
    devices=jax.devices()[:1],
  )


def rows(workdir):
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def chained(tmp_path_factory):
  """Workdir of a naive student and a chain, both stopped early."""
  workdir = tmp_path_factory.mktemp('chained')
  run(workdir)
  return workdir


def folder_of(workdir, start):
  (folder,) = workdir.glob(f'stages/{start}-seed0-*')
  return folder


def spec(folder):
  return json.loads((folder / 'config.json').read_text())


def test_each_step_of_a_chain_learns_from_fresh_rows(chained):
  c = config()
  _, slices = study.load_splits(c)
  naive, second = (
    tiny.arrays(folder_of(chained, f'labels-of-{name}') / 'weak_labels.npz')
    for name in ('weak-tiny-encoder-l0', 'student-xent-middle-by-weak')
  )
  ids = [slices[0].weak.ids, naive['ids'], second['ids']]
  drawn = slices[0].weak, *slices[0].transfer
  assert [set(part.ids) for part in drawn] == list(map(set, ids))
  assert len(set(np.concatenate(ids))) == 3 * 64


def test_chain_shares_the_stages_of_its_naive_student(chained):
  names = sorted(
    name.split('-seed0')[0]
    for name in tiny.stage_names(chained)
    if '-seed0' in name
  )
  assert names == [
    'ceiling-strong',
    'labels-of-student-xent-middle-by-weak',
    'labels-of-weak-tiny-encoder-l0',
    'student-xent-middle-by-weak',
    'student-xent-strong-by-weak',
    'student-xent-strong-by-weak-middle',
    'weak-tiny-encoder-l0',
  ]
  naive, via = sorted(rows(chained), key=lambda row: len(row['via']))
  assert naive['via'] == [] and via['via'] == ['middle']
  for role in ('weak', 'ceiling', 'zero_shot'):
    assert naive['stages'][role] == via['stages'][role]
  assert naive['stages']['student'] != via['stages']['student']
  for row in (naive, via):
    assert row['weak_labels'] == 'hard'
    assert row['early_stopping'] == 'weak_labels'
  labels = folder_of(chained, 'labels-of-student-xent-middle-by-weak')
  middle = folder_of(chained, 'student-xent-middle-by-weak')
  assert spec(labels)['supervisor'] == middle.name.rpartition('-')[2]


def test_hard_labels_change_what_a_student_sees_not_what_is_stored(chained):
  probs_NxC = tiny.arrays(
    folder_of(chained, 'labels-of-weak-tiny-encoder-l0') / 'weak_labels.npz'
  )['probs']
  assert ((probs_NxC > 0.001) & (probs_NxC < 0.999)).any()
  for folder in chained.glob('stages/student-*'):
    assert spec(folder)['labels']['function']['name'] == 'hard'
    assert spec(folder)['judge']['function']['name'] == 'predicted_on'


def test_rows_of_chains_have_the_agreement_with_the_teacher(chained):
  for row in rows(chained):
    test = {
      name: tiny.arrays(chained / 'stages' / folder / 'predictions/test.npz')
      for name, folder in row['stages'].items()
    }
    if row['via']:
      folder = folder_of(chained, 'student-xent-middle-by-weak')
      test['teacher'] = tiny.arrays(folder / 'predictions' / 'test.npz')
    choice = {name: x['probs'].argmax(1) for name, x in test.items()}
    for name, other in (
      ('agreement', 'weak'),
      ('teacher_agreement', 'teacher'),
    ):
      same = choice['student'] == choice.get(other, choice['weak'])
      assert row[name] == pytest.approx(same.mean())


def test_rows_hold_what_each_link_repeats_corrects_and_loses(chained):
  naive, via = sorted(rows(chained), key=lambda row: len(row['via']))
  assert len(naive['links']) == 1 and len(via['links']) == 2
  names = (
    'weak-tiny-encoder-l0',
    'student-xent-middle-by-weak',
    'student-xent-strong-by-weak-middle',
  )
  test = [
    tiny.arrays(folder_of(chained, name) / 'predictions' / 'test.npz')
    for name in names
  ]
  right = [x['probs'].argmax(1) == x['label_probs'].argmax(1) for x in test]
  for teacher, student, link in zip(right, right[1:], via['links']):
    assert link['teacher_accuracy'] == pytest.approx(teacher.mean())
    assert link['student_accuracy'] == pytest.approx(student.mean())
    assert link['corrected'] == pytest.approx(student[~teacher].mean())
    assert link['repeated'] == pytest.approx(1 - link['corrected'])
    assert link['lost'] == pytest.approx((~student)[teacher].mean())


def assert_keeps_the_best(student, judge_NxC):
  """The best of ten checkpoints by a judge is kept; returns all agreements."""
  agreement = json.loads((student / 'early_stopping.json').read_text())
  assert len(agreement) == 10 and list(agreement)[-1] == 'end'
  answers_NxC = validation(student)['probs']
  agree_N = answers_NxC.argmax(1) == judge_NxC.argmax(1)
  assert agree_N.mean() == pytest.approx(max(agreement.values()))
  assert not (student / 'snapshots').exists()
  return agreement.values()


def validation(folder):
  return tiny.arrays(folder / 'predictions' / 'validation.npz')


def test_early_stopping_by_agreement_with_the_supervisor(chained):
  agreements = []
  for name, teacher in {
    'student-xent-middle-by-weak': 'weak-tiny-encoder-l0',
    'student-xent-strong-by-weak-middle': 'student-xent-middle-by-weak',
  }.items():
    judged = validation(folder_of(chained, teacher))
    student = folder_of(chained, name)
    np.testing.assert_array_equal(judged['ids'], validation(student)['ids'])
    agreements += assert_keeps_the_best(student, judged['probs'])
  assert len(set(agreements)) > 2  # there was something to choose
  for name in ('weak-tiny-encoder-l0', 'ceiling-strong'):
    folder = folder_of(chained, name)
    assert spec(folder)['judge'] is None
    assert not (folder / 'early_stopping.json').exists()


def test_early_stopping_by_the_truth_trains_only_a_student(chained, tmp_path):
  workdir = shutil.copytree(chained, tmp_path / 'study')
  names = tiny.stage_names(workdir)
  run(workdir, early_stopping='ground_truth', students=('weak>strong',))
  (new,) = tiny.stage_names(workdir) - names
  assert new.startswith('student-xent-strong-by-weak-seed0-')
  student = workdir / 'stages' / new
  truth_NxC = validation(student)['label_probs']
  assert len(set(assert_keeps_the_best(student, truth_NxC))) > 1
  found = sorted((len(r['via']), r['early_stopping']) for r in rows(workdir))
  assert found == [(0, 'ground_truth'), (0, 'weak_labels'), (1, 'weak_labels')]


@pytest.mark.parametrize(
  'students, says',
  [
    (('weak',), "'weak' must name each chain of two or more"),
    (('weak>strong', 'weak > strong'), 'each chain of two or more models once'),
    (('weak>zzz',), "'weak>zzz' names 'zzz'; models has weak, strong"),
    (('weak>',), "names ''"),
    ((), 'students is empty'),
  ],
)
def test_chains_with_a_mistake_are_named(students, says):
  with pytest.raises(ValueError, match=says):
    check_config.parse_chains(students, dict.fromkeys(('weak', 'strong')))


def test_chains_are_read_from_left_to_right():
  ladder = dict.fromkeys('abc')
  assert check_config.parse_chains(('a>b', ' a > b > c '), ladder) == [
    ('a', 'b'),
    ('a', 'b', 'c'),
  ]
