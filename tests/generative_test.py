"""Studies of pairs, with and without generative fine-tuning."""

import json
import re

import jax
import numpy as np
import pytest
import rich.console

from configs import base
from configs import chess
from configs import reward_modeling
from w2s_jax import checkpoint
from w2s_jax import fine_tune
from w2s_jax import graph
from w2s_jax import study
from w2s_jax.models import model as model_lib
from w2s_jax.report import report
from w2s_jax.tasks import registry

import made_up
import tiny


def config(**fields):
  c = reward_modeling.get_config('debug,generative,loss=xent')
  c.seeds = (0,)
  c.data.num_buckets = 1
  c.data.splits.update(weak=32, transfer=64, validation=32, test=64)
  for key in c.models:
    c.models[key].num_layers = 1
    c.models[key].train.update(epochs=1, batch_size=16)
  c.generative_train.update(epochs=6, batch_size=16)
  c.eval_batch_size = 16
  c.update_from_flattened_dict(fields)
  return c


def run(c, workdir):
  study.run(
    c,
    workdir,
    console=rich.console.Console(quiet=True),
    devices=jax.devices()[:1],
  )


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  """Workdir of a study with and without."""
  workdir = tmp_path_factory.mktemp('compared')
  run(config(), workdir)
  return workdir


def specs(workdir, start):
  folders = sorted(workdir.glob(f'stages/{start}*'))
  return [json.loads((x / 'config.json').read_text()) for x in folders]


def test_student_and_ceiling_start_from_the_same_generative_model(compared):
  (generative,) = compared.glob('stages/generative-*')
  key = generative.name.rpartition('-')[2]
  for start in ('student-', 'ceiling-'):
    starts = [s['start'] for s in specs(compared, start)]
    assert sorted(starts) == [[], [key]]
  (weak,) = specs(compared, 'weak-')
  assert weak['start'] == []
  rows = [
    json.loads(line)
    for line in (compared / 'results.jsonl').read_text().splitlines()
  ]
  without, with_ = sorted(rows, key=lambda row: row['generative'])
  assert (without['generative'], with_['generative']) == (False, True)
  assert without['stages']['weak'] == with_['stages']['weak']
  for role in ('student', 'ceiling'):
    assert without['stages'][role] != with_['stages'][role]
  shown = made_up.console(report.write(compared))
  assert re.search(r'\+ generative +without generative +[-+]', shown)


def test_it_is_trained_on_the_texts_and_sees_no_labels(compared):
  (folder,) = compared.glob('stages/generative-*')
  done = json.loads((folder / 'DONE').read_text())['summary']
  assert done['validation_nats'] < done['validation_nats_before'] - 0.3
  assert done['validation_nats_before'] == pytest.approx(np.log(1024), abs=0.2)
  losses = [
    json.loads(line)['train/loss']
    for line in (folder / 'metrics.jsonl').read_text().splitlines()
  ]
  assert losses[-1] < losses[0] and len(losses) == done['steps']
  (spec,) = specs(compared, 'generative-')
  c = config()
  _, slices = study.load_splits(c)
  unlabelled = slices[0].transfer[0].without_labels()
  assert spec['rows'] == unlabelled.fingerprint


def test_the_trunk_goes_on_and_the_head_starts_anew(compared, monkeypatch):
  """Seen in the parameters that the reward stages are given."""
  (folder,) = compared.glob('stages/generative-*')
  mesh = tiny.one_device()
  written = checkpoint.load_params(folder / 'params', mesh=mesh)
  c = config()
  model = model_lib.build(c.models.strong, registry.find(c.task))
  given = []
  fit = fine_tune.train_lib.fit

  def spy(**arguments):
    given.append(jax.tree.map(np.asarray, arguments['trainable']))
    return fit(**arguments)

  monkeypatch.setattr(fine_tune.train_lib, 'fit', spy)
  for start in ('student-', 'ceiling-'):
    for path in compared.glob(f'stages/{start}*'):
      (path / 'DONE').rename(path / 'DONE.old')
      (path / 'params').rename(path / 'params.old')
  run(config(), compared)
  fresh = jax.tree.map(np.asarray, model.init(mesh, 0))
  assert len(given) == 4
  for params, start in zip(given, (fresh, fresh, written, written)):
    expected = {**fresh, 'transformer': start['transformer']}
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_all_stages_are_counted(compared):
  c = config()
  described = [x for each in study.outline(c).values() for x in each]
  stages = graph.in_order([stage for x in described for stage in x.stages])
  assert len(stages) == len(list(compared.glob('stages/*/DONE')))


@pytest.mark.slow
def test_decoders_can_be_fine_tuned_on_games_first(tmp_path):
  c = chess.get_config('debug')
  c.students, c.seeds, c.generative = ('xs>writer',), (0,), (True,)
  c.models = {
    'xs': c.models.xs,
    'writer': base.model('writer', weights='random:tiny-decoder', epochs=1),
  }
  c.models.writer.num_layers = 1
  c.data.max_length = 128
  c.data.splits.update(weak=32, transfer=32, validation=32, test=32)
  run(c, tmp_path)
  (folder,) = tmp_path.glob('stages/generative-*')
  done = json.loads((folder / 'DONE').read_text())['summary']
  assert done['validation_nats'] < done['validation_nats_before']


def test_an_encoder_can_not(tmp_path):
  wrong = {'models.strong.weights': 'random:tiny-encoder'}
  with pytest.raises(
    ValueError, match='tiny-encoder-l1 is not a decoder.*models.strong'
  ):
    run(config(**wrong), tmp_path)
  for field, value in (('epochs', 0), ('freeze', 'nothing_like_it')):
    with pytest.raises(ValueError, match=f'generative_train.*{field}|{value}'):
      run(config(**{f'generative_train.{field}': value}), tmp_path)
  assert not list(tmp_path.iterdir())
