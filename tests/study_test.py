"""A whole study: what it trains, what it keeps, what it may not see."""

import collections
import dataclasses
import gzip
import json
import shutil
import sys

import jax
from ml_collections import config_dict
import numpy as np
import pandas
import pytest
import rich.console

from w2s_jax import check_config
from w2s_jax import errors
from w2s_jax import graph
from w2s_jax import loading
from w2s_jax import losses
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax import steps
from w2s_jax import study
from w2s_jax import weak_labels
from w2s_jax.report import report

import tiny

FIELDS = {'losses': ('xent',)}

REQUIRED = """task weak_model strong_model loss seed weak_accuracy
  student_accuracy ceiling_accuracy zero_shot_accuracy pgr pgr_status
  n_test""".split()


@pytest.fixture(scope='module')
def finished():
  """Workdir of two seeds with one loss."""
  return tiny.xent_workdir()


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of it, to work on."""
  return shutil.copytree(finished, tmp_path / 'study')


def rows(workdir):
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_one_row_for_each_seed_agrees_with_the_predictions(finished):
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


def test_a_config_alone_returns_a_table(
  finished, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(finished, tmp_path / 'runs' / 'synthetic')
  config = tiny.config(losses=('xent',), seeds=(0, 1))

  table = study.run(config, devices=jax.devices()[:1])

  pandas.testing.assert_frame_equal(
    table, loading.load_results('runs/synthetic')
  )
  printed = capsys.readouterr().out
  assert printed.startswith('Workdir: runs/synthetic\n')
  assert ' 0 to run' in printed


@pytest.mark.parametrize(
  'change, says',
  [
    ({'config': 'adapt=probe'}, "ConfigDict, .* got 'adapt=probe'"),
    ({'config': None}, 'ConfigDict, .* got None'),
    (
      {'config': config_dict.ConfigDict({'task': 'cola'})},
      "has no field 'seeds'; begin with get_config()",
    ),
    ({'workdir': 'runs/a*'}, '^workdir=runs/a[*]: its path must not have [*]'),
    ({'workdir': ''}, '^workdir is empty'),
    ({'workdir': 5}, '^workdir=5 is not a path'),
  ],
)
def test_a_config_or_a_workdir_that_is_none_is_named(
  change, says, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match=says):
    study.run(**{'config': tiny.config()} | change)
  assert not list(tmp_path.iterdir())


def test_without_pandas_nothing_is_trained(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pandas', None)
  with pytest.raises(errors.MissingPackageError, match='pip install pandas'):
    study.run(tiny.config(), tmp_path)
  assert not list(tmp_path.iterdir())


def test_what_changes_no_result_trains_nothing(workdir):
  before = tiny.files(workdir / 'stages')
  tiny.run(
    workdir,
    devices=2,
    losses=('xent',),
    eval_batch_size=16,
    checkpoint_every=7,
    **{'mesh.data': 2},
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


def test_learning_curves_change_no_result(workdir):
  before, folders = rows(workdir), tiny.stage_names(workdir)
  tiny.run(workdir, seeds=(0,), eval_every=3, **FIELDS)
  new = tiny.stage_names(workdir) - folders
  assert {name.partition('-')[0] for name in new} == {'student', 'ceiling'}
  without = ('stages', 'seconds', 'compile_seconds', 'checksum')
  for old, row in zip(before, rows(workdir), strict=True):
    assert {k: v for k, v in old.items() if k not in without} == {
      k: v for k, v in row.items() if k not in without
    }
  for name in new:
    folder = workdir / 'stages' / name
    points = json.loads((folder / 'curve.json').read_text())
    assert [point['step'] for point in points] == [3, 6, 9, 12, 15, 16]
    test = tiny.arrays(folder / 'predictions' / 'test.npz')
    right_N = test['probs'].argmax(1) == test['label_probs'].argmax(1)
    assert points[-1]['accuracy'] == pytest.approx(right_N.mean())
    assert ('agreement_all' in points[0]) == name.startswith('student')
    assert not (folder / 'snapshots').exists()


def test_other_weak_recipe_keeps_ceiling_and_zero_shot(workdir):
  before = tiny.files(workdir / 'stages')
  names = tiny.stage_names(workdir)
  other = {'models.weak.train.weight_decay': 0.5}
  tiny.run(workdir, **FIELDS | other, variant='decay .5')
  new = tiny.stage_names(workdir) - names
  assert sorted(name.split('-')[0] for name in new) == [
    'labels',
    'student',
    'weak',
  ]
  after = tiny.files(workdir / 'stages')
  assert {name: after[name] for name in before} == before
  assert sorted((row['variant'], row['seed']) for row in rows(workdir)) == [
    ('', 0),
    ('', 1),
    ('decay .5', 0),
  ]


@pytest.mark.parametrize(
  'field, value, named',
  [
    ('models.weak.train.weight_decay', 0.5, 'weak.train.weight_decay: 0.01'),
    ('models.strong.num_layers', 1, 'architecture.num_layers: 2 and 1'),
    ('data.splits.transfer', 32, 'slice.transfer: 64 and 32'),
  ],
)
def test_another_recipe_of_the_same_name_is_refused(
  field, value, named, workdir
):
  before = tiny.files(workdir)
  with pytest.raises(errors.UserError, match="variant=''.*would") as raised:
    tiny.run(
      workdir,
      **FIELDS | {field: value, 'models.strong.name': 'tiny-encoder-l2'},
    )
  assert named in str(raised.value)
  assert tiny.files(workdir) == before


def test_a_changed_loss_function_trains_anew(workdir, monkeypatch):
  def xent(logits_BxC, labels_BxC, *, weight_B, step_fraction):
    return 2 * losses.xent(
      logits_BxC,
      labels_BxC,
      weight_B=weight_B,
      step_fraction=step_fraction,
    )

  monkeypatch.setitem(losses.LOSSES, 'xent', xent)
  with pytest.raises(errors.UserError, match='loss.source'):
    tiny.run(workdir, **FIELDS)
  names = tiny.stage_names(workdir)
  tiny.run(workdir, **FIELDS, variant='twice')
  new = tiny.stage_names(workdir) - names
  kinds = sorted(name.split('-')[0] for name in new)
  assert kinds == ['ceiling', 'labels', 'student', 'weak']


def test_rows_of_every_split_can_be_read_by_people(finished):
  evaluated, halves = tiny.splits()
  for name, examples in {
    'test': evaluated['test'],
    'transfer-seed0': halves[0][1],
  }.items():
    (path,) = finished.glob(f'rows/{name}-*.jsonl.gz')
    found = [
      json.loads(x) for x in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert [row['id'] for row in found] == examples.ids.tolist()
    assert [row['text'] for row in found] == examples.inputs
    assert [row['label'] for row in found] == (
      examples.label_probs_NxC.argmax(1).tolist()
    )
    assert {row['split'] for row in found} == {name}


def test_rows_are_written_before_results(tmp_path, monkeypatch):
  def stop(workdir, measured, recipes):
    del measured, recipes
    assert len(list((workdir / 'rows').iterdir())) == 4
    raise KeyboardInterrupt

  monkeypatch.setattr(results, 'write', stop)
  with pytest.raises(KeyboardInterrupt):
    tiny.run(tmp_path)
  assert not (tmp_path / 'results.jsonl').exists()


def mean(*labels):
  """The mean of the probabilities of several supervisors."""
  first, *others = labels
  others = [weak_labels.join(first.ids_N, x) for x in others]
  probs = np.mean([x.probs_NxC for x in (first, *others)], axis=0)
  return weak_labels.Labels(first.ids_N, probs)


def surest_half(labels):
  top_N = labels.probs_NxC.max(1)
  kept_N = top_N > np.median(top_N)
  return weak_labels.restrict(labels, labels.ids_N[kept_N])


def taught_by_two(s, supervisor, rows):
  """The surest labels of the mean of a supervisor and a larger one."""
  weak = s.slices.weak
  other = steps.train(s, 'weak', 'strong', weak, study.truth(weak))
  each = [study.predicted(s, x, rows) for x in (supervisor, other)]
  return graph.Call(surest_half, (graph.Call(mean, tuple(each)),))


def test_a_study_whose_supervisor_is_the_mean_of_two(workdir):
  names = tiny.stage_names(workdir)

  def describe(s):
    return study.students(s, taught_by_two)

  study.run(
    tiny.config(**FIELDS, variant='two'),
    workdir,
    console=rich.console.Console(quiet=True),
    describe=describe,
    devices=jax.devices()[:1],
  )
  new = tiny.stage_names(workdir) - names
  kinds = sorted(name.split('-')[0] for name in new)
  assert kinds == ['labels', 'student', 'weak']
  (row,) = [row for row in rows(workdir) if row['variant'] == 'two']
  assert row['rows'] == 32  # of 64
  labels = {
    name.split('-')[3]: tiny.arrays(
      workdir / 'stages' / name / 'weak_labels.npz'
    )
    for name in tiny.stage_names(workdir)
    if name.startswith('labels-') and '-seed0-' in name
  }
  _, halves = tiny.splits()
  transfer = halves[0][1]
  given = mean(
    *(weak_labels.Labels(x['ids'], x['probs']) for x in labels.values())
  )
  kept = surest_half(given)
  truth = weak_labels.restrict(weak_labels.ground_truth(transfer), kept.ids_N)
  truth = weak_labels.join(kept.ids_N, truth)
  right = kept.probs_NxC.argmax(1) == truth.probs_NxC.argmax(1)
  assert row['weak_label_accuracy'] == pytest.approx(right.mean())


def test_controls_replace_the_labels_of_the_last_student_only():
  config = tiny.config(
    controls=True, students=('weak>strong', 'weak>strong>strong')
  )
  (results,) = study.outline(config).values()
  of_chain = {x.row['weak_labels']: x for x in results if x.row['via']}
  assert list(of_chain) == ['soft', *weak_labels.CONTROLS]
  for name, result in of_chain.items():
    assert result.teacher.key == of_chain['soft'].teacher.key
    assert result.ceiling.key == of_chain['soft'].ceiling.key
    assert (result.student.key == of_chain['soft'].student.key) == (
      name == 'soft'
    )
  recipes = collections.defaultdict(set)
  for seed in study.outline(tiny.config(controls=True, seeds=(0, 1))).values():
    for result in seed:
      recipes[result.row['weak_labels'], result.row['loss']].add(
        result.recipe_hash
      )
  assert {*map(len, recipes.values())} == {1}, 'a recipe depends on its seed'
  with pytest.raises(errors.UserError, match='controls=True.*chess_puzzles'):
    study.outline(tiny.config(controls=True, task='chess_puzzles'))


def test_ground_truth_of_the_transfer_half_cannot_reach_the_student(
  finished, tmp_path, monkeypatch
):
  load_splits = study.load_splits

  def opposite(config):
    evaluated, slices = load_splits(config)
    for seed, (weak_half, (transfer_half,)) in slices.items():
      wrong_NxC = 1 - transfer_half.label_probs_NxC
      wrong = dataclasses.replace(transfer_half, label_probs_NxC=wrong_NxC)
      slices[seed] = slices[seed]._replace(weak=weak_half, transfer=(wrong,))
    return evaluated, slices

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
    ({'seeds': (0, 1, 0)}, 'seeds=.*: a seed is repeated'),
    ({'checkpoint_every': 0}, 'checkpoint_every=0'),
    ({'seeds': ()}, 'seeds=.* one or more'),
    ({'losses': ()}, 'losses=.* one or more'),
    ({'generative': ()}, 'generative=.* one or more'),
    ({'students': ()}, 'students is empty'),
    ({'data.splits.weak': 0}, 'data.splits.weak=0 must be at least 1, or -1'),
    ({'data.max_length': 0}, 'data.max_length=0'),
    ({'models.weak.train.learning_rate': float('nan')}, 'learning_rate=nan'),
    ({'models.weak.train.learning_rate': float('inf')}, 'learning_rate=inf'),
    ({'models.weak.train.learning_rate': -1e-3}, 'learning_rate=-0.001'),
    ({'models.weak.train.weight_decay': -0.1}, 'weight_decay=-0.1'),
    ({'models.weak.train.clip_norm': 0.0}, r'clip_norm=0.0 .* above 0'),
    ({'models.weak.train.warmup': 1.5}, r'train.warmup=1.5 .*\[0, 1\]'),
    ({'models.weak.dropout': 1.0}, r'weak.dropout=1.0 .*\[0, 1\)'),
    (
      {'models.weak.train.freeze': '['},
      r"train: freeze='\[' is not a regular expr",
    ),
    ({'models.strong.train.epochs': 0}, 'models.strong.train.epochs=0'),
    ({'models.weak.train.decay': 'fast'}, "weak.train: decay='fast'"),
    ({'models.strong.train.freeze': 'x'}, "strong.train: freeze='x' matches 0"),
    ({'models.weak.num_layers': 3}, 'weak: .*num_layers=3'),
    ({'data.max_length': 200}, 'length 200.*128 positions'),
    ({'loss_args.logconf.compat': 'x'}, "logconf.compat='x'"),
    ({'data.splits.test': 20000}, 'data.splits.test = 20000'),
    ({'mesh.tensor': 8, 'devices': 8}, 'mesh.tensor=8'),
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


def test_an_update_that_diverges_is_named(tmp_path):
  """The loss of the only step is finite; predictions after it are not."""
  with pytest.raises(
    errors.DivergedError, match='^weak-tiny.*not finite; lower .* learning rate'
  ) as raised:
    tiny.run(
      tmp_path,
      losses=('xent',),
      **{
        'models.weak.train.learning_rate': 1e30,
        'models.weak.train.epochs': 1,
        'models.weak.train.batch_size': 32,
        'models.weak.train.warmup': 0.0,
      },
    )
  assert '\n' not in str(raised.value)
  assert not list(tmp_path.glob('stages/*/DONE'))


def test_names_of_models_cannot_leave_the_workdir(tmp_path):
  workdir = tmp_path / 'in' / 'study'
  names = {
    'models.weak.name': '../../../evil',
    'models.strong.name': 'EleutherAI/pythia-70m' + 'x' * 240,
  }
  tiny.run(workdir, **FIELDS | {'models.strong.num_layers': 1} | names)
  assert [path.name for path in tmp_path.iterdir()] == ['in']
  assert len(list(workdir.glob('stages/*/DONE'))) == 5
  (row,) = rows(workdir)
  assert row['weak_model'] == '../../../evil'
  (group,) = report.write(workdir)
  assert group['strong_model'] == names['models.strong.name']


def test_models_of_one_tokenizer_share_the_rows_that_they_are_scored_on():
  config = tiny.config()
  evaluated, slices = study.load_splits(config)
  models = check_config.build_models(config, sharding.make_mesh(**config.mesh))
  described = study.describe_seeds(config, models, evaluated, slices)
  weak, student = described[0][0].weak, described[0][0].student
  assert weak.fields['model'] is not student.fields['model']
  for split in ('validation', 'test'):
    first, other = (
      stage.fields['evaluation'].rows(stage.fields['model'], split)
      for stage in (weak, student)
    )
    assert first is other
