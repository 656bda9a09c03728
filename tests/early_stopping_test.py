"""The best checkpoint is kept, whatever interrupts training."""

import json
import pathlib
import shutil
import signal

import jax
import pytest
import rich.console

from w2s_jax import checkpoint
from w2s_jax import early_stopping
from w2s_jax import study
from w2s_jax.runtime import preemption

import tiny


def run(workdir, *, console=None, **fields):
  """A study whose students learn too fast to end best."""
  config = tiny.config(
    **{
      'losses': ('xent',),
      'early_stopping': 'ground_truth',
      'eval_every': 3,
      'checkpoint_every': 2,
      'models.weak.num_layers': 0,
    }
  )
  config.models.strong = config.models.weak.copy_and_resolve_references()
  config.models.strong.name = 'strong'
  config.models.strong.train.learning_rate = 0.3
  config.update_from_flattened_dict(fields)
  study.run(
    config,
    workdir,
    console=console or rich.console.Console(quiet=True),
    devices=jax.devices()[:1],
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Workdir of a study without interruption."""
  workdir = tmp_path_factory.mktemp('whole')
  run(workdir)
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  """Workdir of the same study, its student not yet trained."""
  shutil.copytree(whole, tmp_path / 'study')
  shutil.rmtree(tiny.stage(tmp_path / 'study', 'student'))
  return tmp_path / 'study'


def agreement(workdir):
  path = tiny.stage(workdir, 'student') / 'early_stopping.json'
  return json.loads(path.read_text())


def assert_same(workdir, whole):
  ours, theirs = (tiny.stage(x, 'student') for x in (workdir, whole))
  tiny.assert_same_results(ours, theirs)
  for name in ('early_stopping.json', 'curve.json', 'params.digest'):
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
  assert {x.name for x in ours.iterdir()} == {x.name for x in theirs.iterdir()}


def test_there_is_something_to_choose(whole):
  found = agreement(whole)
  best = max(found, key=found.get)
  assert list(found)[-1] == 'end' and best not in ('end', next(iter(found)))
  assert len(set(found.values())) > 2


def test_the_best_and_no_other_is_on_the_disk(workdir, whole, monkeypatch):
  seen, measure = [], early_stopping.Watch.__call__

  def spy(watch, step, params):
    stop = measure(watch, step, params)
    folder = tiny.stage(workdir, 'student') / 'snapshots'
    seen.append({x.name for x in folder.iterdir()} - {'measured.json'})
    return stop

  monkeypatch.setattr(early_stopping.Watch, '__call__', spy)
  run(workdir)
  assert_same(workdir, whole)
  found = agreement(workdir)
  best = max(found, key=found.get)
  assert seen[-1] == {best, f'{best}.digest'}
  assert all(len(names) in (0, 2) for names in seen)
  assert len({tuple(names) for names in seen if names}) > 1


def lost_at(monkeypatch, owner, name, count):
  """The machine is lost in the `count`-th call of a function, from 0."""
  calls, function = [], getattr(owner, name)

  def call(*args, **kwargs):
    calls.append(0)
    if len(calls) == count + 1:
      raise tiny.MachineLost
    return function(*args, **kwargs)

  monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
  'owner, name, count',
  [
    (checkpoint, 'save_params', 1),  # before a better one is written
    (early_stopping.Watch, '_save', 6),  # it is written, not its agreement
    (early_stopping.Watch, '_remove_all_but_the_best', 5),  # both are there
    (checkpoint.Training, 'save', 3),
  ],
  ids=lambda x: x if isinstance(x, str) else '',
)
def test_a_killed_run_ends_with_the_same_bits(
  owner, name, count, workdir, whole, monkeypatch
):
  with monkeypatch.context() as patch:
    lost_at(patch, owner, name, count)
    with pytest.raises(tiny.MachineLost):
      run(workdir)
  run(workdir)
  assert_same(workdir, whole)


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_a_stop_while_it_is_measured_saves_a_checkpoint(
  split, workdir, whole, monkeypatch
):
  probs = early_stopping.Watch._probs
  steps = []

  def stopped(watch, step, params, of):
    if of == split and step != 'end' and step > 6 and not steps:
      steps.append(step)
      monkeypatch.setattr(preemption, '_first_signal', signal.SIGTERM)
    return probs(watch, step, params, of)

  monkeypatch.setattr(early_stopping.Watch, '_probs', stopped)
  with pytest.raises(preemption.Preempted, match='stopped before step'):
    run(workdir)
  saved = tiny.stage(workdir, 'student') / 'checkpoints'
  assert (saved / str(steps[0])).exists()
  monkeypatch.setattr(preemption, '_first_signal', None)
  run(workdir)
  assert_same(workdir, whole)


def remove(watch):
  watch._record.unlink()


def damage(watch):
  best = max(watch._agreement, key=watch._agreement.get)
  folder = pathlib.Path(watch._folder / best)
  paths = [x for x in folder.rglob('*') if x.is_file()]
  largest = max(paths, key=lambda x: x.stat().st_size)
  largest.write_bytes(b'')


@pytest.mark.parametrize('harm', [remove, damage])
def test_what_is_damaged_is_trained_again(harm, workdir, whole, monkeypatch):
  finish, harmed = early_stopping.Watch.finish, []

  def harm_once(watch, params):
    if not harmed:
      harmed.append(harm(watch))
      if harm is remove:
        raise tiny.MachineLost
    return finish(watch, params)

  monkeypatch.setattr(early_stopping.Watch, 'finish', harm_once)
  if harm is remove:
    with pytest.raises(tiny.MachineLost):
      run(workdir)
  run(workdir)
  assert_same(workdir, whole)


def test_members_of_a_population_each_keep_their_best(whole, tmp_path):
  run(tmp_path, seeds=(0, 1), population=2)
  alone = tiny.stage(whole, 'student')
  assert alone.name in tiny.stage_names(tmp_path)
  for name in ('early_stopping.json', 'curve.json'):
    ours = tmp_path / 'stages' / alone.name / name
    assert json.loads(ours.read_text()) == json.loads(
      (alone / name).read_text()
    )
  students = list(tmp_path.glob('stages/student-*'))
  assert len(students) == 2
  for folder in students:
    assert (folder / 'early_stopping.json').exists()
    assert not (folder / 'snapshots').exists()
