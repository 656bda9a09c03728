"""A whole study: what it trains, what it keeps, what it may not see."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from w2s_jax import study

import tiny

FIELDS = tiny.MESH_STUDY

REQUIRED = """task weak_model strong_model loss seed weak_accuracy
  student_accuracy ceiling_accuracy zero_shot_accuracy pgr pgr_status
  n_test""".split()


@pytest.fixture(scope='module')
def finished():
  """Workdir of two seeds with one loss."""
  return tiny.mesh_workdir()


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of it, to work on."""
  return shutil.copytree(finished, tmp_path / 'study')


def rows(workdir):
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_one_row_for_each_seed_says_what_the_predictions_say(finished):
  found = rows(finished)
  assert [(row['loss'], row['seed']) for row in found] == [
    ('xent', 0),
    ('xent', 1),
  ]
  for row in found:
    assert set(REQUIRED) <= row.keys()
    assert row['task'] == 'synthetic' and row['n_test'] == 64
    assert row['pgr_status'] == 'ok' or row['pgr'] is None
    for role in ('weak', 'student', 'ceiling', 'zero_shot'):
      folder = finished / 'stages' / row['stages'][role]
      test = tiny.arrays(folder / 'predictions' / 'test.npz')
      right = test['probs'].argmax(1) == test['label_probs'].argmax(1)
      assert row[f'{role}_accuracy'] == pytest.approx(right.mean())


def test_every_stage_predicts_the_same_rows(finished):
  for split, size in (('test', 64), ('validation', 32)):
    paths = list(finished.glob(f'stages/*/predictions/{split}.npz'))
    assert len(paths) == 7  # zero-shot, and three for each seed
    first, *others = map(tiny.arrays, paths)
    assert len(set(first['ids'])) == size
    for other in others:
      np.testing.assert_array_equal(other['ids'], first['ids'])
      np.testing.assert_array_equal(other['label_probs'], first['label_probs'])


def test_halves_differ_by_seed_and_share_nothing():
  evaluated, halves = tiny.splits(seeds=(0, 1))
  for weak_half, transfer_half in halves.values():
    parts = [*evaluated.values(), weak_half, transfer_half]
    ids = np.concatenate([part.ids for part in parts])
    assert len(set(ids)) == len(ids) == 32 + 64 + 32 + 64
    for part in parts:
      assert part.label_probs_NxC.sum(0).tolist() == [len(part) / 2] * 2
  assert set(halves[0][1].ids) != set(halves[1][1].ids)


def test_weak_labels_are_of_the_transfer_half_only(finished):
  _, halves = tiny.splits()
  labels = tiny.arrays(tiny.stage(finished, 'labels') / 'weak_labels.npz')
  assert set(labels['ids']) == set(halves[0][1].ids)
  assert not set(labels['ids']) & set(halves[0][0].ids)
  np.testing.assert_allclose(labels['probs'].sum(1), 1, atol=1e-6)


def test_running_again_changes_no_file(workdir):
  before = tiny.files(workdir / 'stages')
  tiny.run(workdir, seeds=(0, 1), **FIELDS)
  assert tiny.files(workdir / 'stages') == before
  assert len(rows(workdir)) == 2


def test_what_changes_no_result_trains_nothing(workdir):
  before = tiny.files(workdir / 'stages')
  tiny.run(
    workdir,
    losses=('xent',),
    eval_batch_size=16,
    checkpoint_every=1000,
    **{'mesh.data': 8},
  )
  assert tiny.files(workdir / 'stages') == before


def test_second_loss_trains_only_the_student(workdir):
  before = tiny.files(workdir / 'stages')
  names = tiny.stage_names(workdir)
  tiny.run(workdir, **FIELDS | {'losses': ('xent', 'logconf')})
  (new,) = tiny.stage_names(workdir) - names
  assert new.startswith('student-logconf-')
  after = tiny.files(workdir / 'stages')
  assert {name: after[name] for name in before} == before
  assert [(row['loss'], row['seed']) for row in rows(workdir)] == [
    ('logconf', 0),
    ('xent', 0),
    ('xent', 1),
  ]


def test_other_weak_recipe_keeps_ceiling_and_zero_shot(workdir):
  before = tiny.files(workdir / 'stages')
  names = tiny.stage_names(workdir)
  tiny.run(workdir, **FIELDS | {'models.weak.train.weight_decay': 0.5})
  new = tiny.stage_names(workdir) - names
  assert sorted(name.split('-')[0] for name in new) == [
    'labels',
    'student',
    'weak',
  ]
  after = tiny.files(workdir / 'stages')
  assert {name: after[name] for name in before} == before
  assert len(rows(workdir)) == 2  # the row of this seed was replaced


def test_ground_truth_of_the_transfer_half_cannot_reach_the_student(
  finished, tmp_path, monkeypatch
):
  load_splits = study.load_splits

  def opposite(*args, **kwargs):
    evaluated, halves = load_splits(*args, **kwargs)
    for seed, (weak_half, transfer_half) in halves.items():
      wrong_NxC = 1 - transfer_half.label_probs_NxC
      halves[seed] = [
        weak_half,
        dataclasses.replace(transfer_half, label_probs_NxC=wrong_NxC),
      ]
    return evaluated, halves

  monkeypatch.setattr(study, 'load_splits', opposite)
  tiny.run(tmp_path, **FIELDS)
  same = tiny.stage_names(tmp_path) & tiny.stage_names(finished)
  (ceiling,) = tiny.stage_names(tmp_path) - same
  assert ceiling.startswith('ceiling-')
  before = tiny.stage(finished, 'ceiling')
  probs_NxC, before_NxC = (
    tiny.arrays(folder / 'predictions' / 'test.npz')['probs']
    for folder in (tmp_path / 'stages' / ceiling, before)
  )
  assert np.abs(probs_NxC - before_NxC).max() > 1e-3
  assert sum(name.startswith('student-') for name in same) == 1
  for name in same:
    tiny.assert_same_results(
      tmp_path / 'stages' / name, finished / 'stages' / name
    )


@pytest.mark.parametrize(
  'fields, says',
  [
    ({'seeds': ('a',)}, "seeds: 'a'"),
    ({'seeds': (0, 1, 0)}, 'seeds=.*: each must stand there once'),
    ({'checkpoint_every': 0}, 'checkpoint_every=0'),
    ({'models.strong.train.epochs': 0}, 'models.strong.train.epochs=0'),
    ({'models.weak.train.decay': 'fast'}, "weak.train: decay='fast'"),
    ({'models.strong.train.freeze': 'x'}, "strong.train: freeze='x' matches 0"),
    ({'models.weak.num_layers': 3}, 'weak: .*num_layers=3'),
    ({'data.max_length': 200}, 'length 200.*128 positions'),
    ({'loss_args.logconf.compat': 'x'}, "logconf.compat='x'"),
    ({'data.splits.test': 20000}, 'data.splits.test = 20000'),
    ({'mesh.tensor': 8}, 'mesh.tensor=8'),
    ({'weak_labels': 'firm'}, "weak_labels='firm' is not one of hard, soft"),
    ({'early_stopping': 'x'}, "early_stopping='x' is not one of ground_truth"),
  ],
)
def test_mistake_is_found_before_anything_is_trained(fields, says, tmp_path):
  with pytest.raises(ValueError, match=says):
    tiny.run(tmp_path, **fields)
  assert not list(tmp_path.iterdir())


def test_unknown_loss_argument_is_named(tmp_path):
  config = tiny.config()
  with config.unlocked():
    config.loss_args.logconf.alfa = 1.0
  with pytest.raises(ValueError, match="loss_args.logconf: .*'alfa'"):
    study.run(config, tmp_path, console=None)
  assert not list(tmp_path.iterdir())
