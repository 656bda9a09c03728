"""Curves, hyper-parameters and figures, read back from what trackers wrote."""

import importlib.util
import io
import json
import shutil
import struct
import time

from etils import epath
import numpy as np
import pytest
import rich.console

from w2s_jax import check_config
from w2s_jax import errors
from w2s_jax import study
from w2s_jax.runtime import tracker_runs
from w2s_jax.runtime import trackers

import tiny

PNG = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sII', 13, b'IHDR', 2, 1)
KEY = '0123456789ab'

needs_tensorboard = pytest.mark.skipif(
  importlib.util.find_spec('tensorboardX') is None,
  reason='tensorboardX is not installed',
)
needs_wandb = pytest.mark.skipif(
  importlib.util.find_spec('wandb') is None, reason='wandb is not installed'
)


def events(folder):
  """All events in the one file of a run."""
  from tensorboardX.proto import event_pb2

  (path,) = folder.glob('*tfevents*')
  content, found = path.read_bytes(), []
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
    content = content[16 + length :]
  return found


def curves(folder):
  """{name: [(step, value), ...]} of the one event file of a run."""
  found = {}
  for event in events(folder):
    for value in event.summary.value:
      if value.WhichOneof('value') == 'simple_value':
        point = event.step, value.simple_value
        found.setdefault(value.tag, []).append(point)
  return found


def hyper_parameters(folder):
  from tensorboardX.proto import plugin_hparams_pb2

  fields, tags = {}, []
  for event in events(folder):
    for value in event.summary.value:
      data = value.metadata.plugin_data
      if data.plugin_name == 'hparams':
        tags.append(value.tag)
        start = plugin_hparams_pb2.HParamsPluginData.FromString(data.content)
        for name, x in start.session_start_info.hparams.items():
          fields[name] = getattr(x, x.WhichOneof('kind'))
  return fields, tags


def stage(workdir, *, config=None, steps=3, **files):
  """A stage folder as a run leaves it."""
  folder = epath.Path(workdir) / 'stages' / f'student-seed0-{KEY}'
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config or {}))
  log = [{'step': i, 'train/loss': 1 / (i + 1)} for i in range(steps)]
  text = ''.join(json.dumps(line) + '\n' for line in log)
  (folder / 'metrics.jsonl').write_text(text)
  for name, value in files.items():
    (folder / f'{name}.json').write_text(json.dumps(value))
  return folder


def tracking(workdir, names=('tensorboard',)):
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=200)
  return trackers.Tracking(names, workdir, console), stream


@pytest.mark.parametrize(
  'value, names',
  [
    ('', ()),
    ((), ()),
    ('wandb', ('wandb',)),
    ('tensorboard, wandb,tensorboard', ('tensorboard', 'wandb')),
    (['wandb', 'tensorboard'], ('wandb', 'tensorboard')),
  ],
)
def test_names_of_trackers(value, names):
  assert trackers.parse(value) == names


@pytest.mark.parametrize('value', ['tensorbord', ('wandb', 3), 4, None, True])
def test_unknown_tracker_is_named(value):
  with pytest.raises(errors.UserError, match='tracker=.* is not one of auto'):
    check_config.check(tiny.config(tracker=value))


@pytest.mark.parametrize('installed', [True, False])
def test_auto_is_tensorboard_where_it_is_installed(monkeypatch, installed):
  found = (lambda name: name) if installed else (lambda name: None)
  monkeypatch.setattr(importlib.util, 'find_spec', found)
  assert trackers.parse('auto') == (('tensorboard',) if installed else ())
  trackers.check('auto')


@needs_tensorboard
def test_points_have_the_time_at_which_they_were_written(tmp_path, monkeypatch):
  """The file is opened by `flush`, so that no step waits for an import."""
  run = tracker_runs.TensorBoard(tmp_path, 'weak', {})
  for step in range(3):
    monkeypatch.setattr(time, 'time', lambda step=step: 100.0 + step)
    run.write(step, {'train/loss': 1.0})
  assert not list((tmp_path / 'tensorboard' / 'weak').iterdir())
  monkeypatch.setattr(time, 'time', lambda: 200.0)
  run.flush()
  found = [(x.step, x.wall_time) for x in events(tmp_path / 'tensorboard/weak')]
  assert found[-3:] == [(0, 100.0), (1, 101.0), (2, 102.0)]


@pytest.mark.parametrize('name', tracker_runs.RUNS)
def test_missing_package_is_said_before_anything_is_made(
  monkeypatch, name, tmp_path
):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  package = tracker_runs.RUNS[name].package
  with pytest.raises(errors.MissingPackageError, match=f'install {package}`'):
    tiny.run(tmp_path / 'workdir', tracker=name)
  assert not (tmp_path / 'workdir').exists()


def test_tracker_is_no_part_of_a_key_or_a_recipe():
  def identity(tracker):
    outlined = study.outline(tiny.config(tracker=tracker))
    return [
      (stage.key, result.recipe_hash)
      for each in outlined.values()
      for result in each
      for stage in result.stages
    ]

  assert identity('') == identity('tensorboard,wandb')


@pytest.mark.parametrize('partial', [False, True])
def test_hyper_parameters_of_training_stages_have_the_same_names(
  tmp_path, partial
):
  function = {'name': 'soft', 'source': '12'}
  labels = {'function': [function, [], {}] if partial else function}
  config = {
    'seed': 3,
    'weights': 'asset:x',
    'model': {'architecture': {'num_layers': 6}},
    'labels': labels,
    'loss': {'name': 'logconf'},
    'loss_args': {'start': 0.0},
    'lora': {'rank': 8},
    'train': {'epochs': 2},
  }
  found = trackers.hyper_parameters(stage(tmp_path, config=config))
  assert found == {
    'stage': 'student',
    'seed': 3,
    'weights': 'asset:x',
    'num_layers': 6,
    'labels': 'soft',
    'loss': 'logconf',
    'loss_args': '{"start": 0.0}',
    'lora_rank': 8,
    'train.epochs': 2,
  }
  least = stage(tmp_path, config={'lora': None, 'train': {'epochs': 2}})
  assert trackers.hyper_parameters(least).keys() == found.keys()
  assert trackers.hyper_parameters(stage(tmp_path, config={'seed': 0})) == {}


def test_rows_and_points_are_in_the_order_of_their_steps(tmp_path):
  curve = [{'step': s, 'accuracy': 0.5 + s / 10} for s in (1, 3)]
  agreement = {'2': 0.6, 'end': 0.7}
  folder = stage(tmp_path, curve=curve, early_stopping=agreement)
  assert trackers.logged(folder) == [
    (0, {'train/loss': 1.0}),
    (1, {'test/accuracy': 0.6}),
    (1, {'train/loss': 0.5}),
    (2, {'validation/label_agreement': 0.6}),
    (2, {'train/loss': 1 / 3}),
    (3, {'test/accuracy': 0.8}),
    (3, {'validation/label_agreement': 0.7}),
  ]
  assert trackers.logged(folder, before=1) == [(0, {'train/loss': 1.0})]


@needs_tensorboard
def test_cached_stage_is_shown_once(tmp_path):
  folder = stage(tmp_path, curve=[{'step': 3, 'accuracy': 0.75}])
  for _ in range(2):
    shown, stream = tracking(tmp_path)
    shown.finish(folder, {'steps': 3, 'test_accuracy': 0.75, 'note': 'x'})
    shown.close()
    assert stream.getvalue() == ''
  run = tmp_path / 'tensorboard' / folder.name
  assert curves(run) == {
    'train/loss': [(0, 1.0), (1, 0.5), (2, np.float32(1 / 3))],
    'test/accuracy': [(3, 0.75)],
    'final/steps': [(3, 3)],
    'final/test_accuracy': [(3, 0.75)],
  }
  shutil.rmtree(tmp_path / 'tensorboard')  # is written again as a whole
  tracking(tmp_path)[0].finish(folder, {'steps': 3})
  assert curves(run)['train/loss'][-1] == (2, np.float32(1 / 3))


@needs_tensorboard
def test_interrupted_stage_goes_on_without_repetition(tmp_path):
  folder = stage(tmp_path, steps=0)
  killed, _ = tracking(tmp_path)
  killed.restart(folder, 0)
  for step in range(3):
    killed.write(folder, step, {'train/loss': 1.0})
  killed.flush(folder)
  run = tmp_path / 'tensorboard' / folder.name
  assert len(curves(run)['train/loss']) == 3
  stage(tmp_path, steps=2)  # up to the checkpoint
  (folder / 'snapshots').mkdir()
  points = {'1': {'step': 1, 'accuracy': 0.5}, '2': {'step': 2, 'accuracy': 1}}
  (folder / 'snapshots' / 'measured.json').write_text(
    json.dumps({'curve': points, 'agreement': {}})
  )
  resumed, _ = tracking(tmp_path)
  resumed.restart(folder, 2)
  resumed.add_point(folder, 2, {'test/accuracy': 1.0})  # before step 2
  resumed.write(folder, 2, {'train/loss': 0.25})
  resumed.add_point(folder, 3, {'test/accuracy': 0.5})  # at the end
  resumed.finish(folder, {'steps': 3})
  assert curves(run) == {
    'train/loss': [(0, 1.0), (1, 0.5), (2, 0.25)],
    'test/accuracy': [(1, 0.5), (2, 1.0), (3, 0.5)],
    'final/steps': [(3, 3)],
  }


@needs_tensorboard
def test_figures_are_shown_once_and_again_when_they_change(tmp_path):
  (tmp_path / 'figures').mkdir()
  shown, stream = tracking(tmp_path)
  shown.show_figures()
  assert not (tmp_path / 'tensorboard' / 'report').exists()  # there are none
  times = []
  for content in (PNG, PNG, PNG + b'\0'):
    (tmp_path / 'figures' / 'pgr.png').write_bytes(content)
    shown.show_figures()
    (path,) = (tmp_path / 'tensorboard' / 'report').glob('*tfevents*')
    times.append(path.stat().st_mtime_ns)
    _, event = events(path.parent)
    (value,) = event.summary.value
    assert (value.tag, value.image.encoded_image_string) == ('pgr', content)
    assert (value.image.width, value.image.height) == (2, 1)
  assert times[0] == times[1] < times[2]
  assert stream.getvalue() == ''


def test_without_trackers_nothing_is_written(tmp_path):
  folder = stage(tmp_path)
  before = tiny.files(tmp_path)
  shown = trackers.Tracking((), tmp_path)  # as on processes other than 0
  shown.restart(folder, 0)
  shown.write(folder, 0, {'train/loss': 1.0})
  shown.add_point(folder, 1, {'test/accuracy': 1.0})
  shown.flush(folder)
  shown.finish(folder, {'steps': 3})
  shown.show_figures()
  shown.close()
  assert tiny.files(tmp_path) == before


def test_failing_tracker_warns_once_and_is_left_out(monkeypatch, tmp_path):
  class Failing:
    def __init__(self, *_):
      raise OSError('no [route]\nto host')

  monkeypatch.setitem(tracker_runs.RUNS, 'tensorboard', Failing)
  folder = stage(tmp_path)
  shown, stream = tracking(tmp_path)
  shown.restart(folder, 0)
  shown.write(folder, 0, {'train/loss': 1.0})
  shown.add_point(folder, 1, {'test/accuracy': 1.0})
  shown.finish(folder, {'steps': 3})
  shown.show_figures()
  shown.close()
  text = ' '.join(stream.getvalue().split())
  assert text.startswith(
    'Warning: tracker tensorboard is left out from here on'
  )
  assert text.count('no [route] to host') == 1 and text.count('Warning') == 1
  assert not (tmp_path / 'tensorboard' / 'finished' / folder.name).exists()


@pytest.mark.slow  # it trains three models
@needs_tensorboard
def test_study_is_shown_whole_and_its_results_do_not_change(tmp_path):
  tracked = tmp_path / 'tracked'
  fields = {
    'losses': ('xent',),
    'eval_every': 4,
    'early_stopping': 'weak_labels',
    'tracker': 'auto',
  }
  tiny.run(tracked, **fields)
  runs = {path.name: path for path in (tracked / 'tensorboard').iterdir()}
  runs.pop('finished')
  assert runs.keys() == tiny.stage_names(tracked)
  before = tiny.files(tracked / 'tensorboard')
  tiny.run(tracked, **fields)  # all is cached
  assert tiny.files(tracked / 'tensorboard') == before
  live = {name: curves(run) for name, run in runs.items()}
  shutil.rmtree(tracked / 'tensorboard')
  tiny.run(tracked, **fields)  # read from the stages
  assert {name: curves(run) for name, run in runs.items()} == live
  student = tiny.stage(tracked, 'student-xent')
  shown = live[student.name]
  for name in ('train/loss', 'train/label_agreement'):
    assert shown[name] == [
      (row['step'], np.float32(row[name])) for row in tiny.metrics(student)
    ]
  curve = json.loads((student / 'curve.json').read_text())
  assert len(curve) > 2 and shown['test/accuracy'] == [
    (point['step'], np.float32(point['accuracy'])) for point in curve
  ]
  agreement = json.loads((student / 'early_stopping.json').read_text())
  assert [y for _, y in shown['validation/label_agreement']] == [
    np.float32(y) for y in agreement.values()
  ]
  found, tags = hyper_parameters(runs[student.name])
  assert found['loss'] == 'xent' and found['train.epochs'] == 2
  assert tags[0] == '_hparams_/experiment' and len(tags) == 3
  weak, plain = (tiny.stage(x, 'weak') for x in (tracked, tiny.xent_workdir()))
  assert weak.name == plain.name
  tiny.assert_same_results(weak, plain)


@pytest.mark.slow  # wandb starts a process of its own
@needs_wandb
def test_offline_run_of_wandb_has_the_key_of_the_stage(monkeypatch, tmp_path):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  folder = stage(tmp_path, curve=[{'step': 3, 'accuracy': 0.75}])
  trackers.check('wandb')
  stopped, stream = tracking(tmp_path, ('wandb',))
  stopped.restart(folder, 1)
  stopped.write(folder, 1, {'train/loss': 0.5})
  stopped.close()
  shown, _ = tracking(tmp_path, ('wandb',))
  shown.finish(folder, {'steps': 3, 'test_accuracy': 0.75})
  assert stream.getvalue() == ''
  (run,) = (tmp_path / 'wandb').glob('offline-run-*')  # replaces the first
  assert run.name.endswith(KEY)
  (path,) = run.glob('run-*.wandb')
  assert wandb_history(path) == [
    {'train/loss': 1.0},
    {'train/loss': 0.5},
    {'train/loss': 1 / 3},
    {'test/accuracy': 0.75, 'final/steps': 3, 'final/test_accuracy': 0.75},
  ]


def wandb_history(path):
  """The values of each step in the file of an offline run."""
  from wandb.proto import wandb_internal_pb2

  rows = []
  for data in log_records(path.read_bytes()[7:], offset=7):
    record = wandb_internal_pb2.Record.FromString(data)
    if record.WhichOneof('record_type') == 'history':
      items = {
        item.key or '/'.join(item.nested_key): json.loads(item.value_json)
        for item in record.history.item
      }
      rows.append({k: v for k, v in items.items() if k[0] != '_'})
  return rows


def log_records(content, *, offset):
  """Yields the records of a log in the format of LevelDB."""
  at, data, block = 0, b'', 32_768
  while at + 7 <= len(content):
    left = block - (at + offset) % block
    if left < 7:
      at += left
      continue
    length, kind = struct.unpack('<HB', content[at + 4 : at + 7])
    data += content[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # whole, or its last part
      yield data
      data = b''
