"""Trains and studies generators, which write their answers."""

import dataclasses

import heads_test
import jax
import model_test
import numpy as np
import pretrained_test
import pytest
import rich.console

from configs import base
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import predict
from w2s_jax import study
from w2s_jax import train
from w2s_jax.models import chess_heads
from w2s_jax.models import heads
from w2s_jax.runtime import logger
from w2s_jax.tasks import chess as chess_task

import tiny
import tiny_chess


def test_tiny_decoder_learns_puzzles_by_heart(tmp_path):
  sizes = dict(vocab_size=128, embed_dim=64, mlp_dim=128, num_layers=1)
  config = dataclasses.replace(heads_test.DECODER, **sizes)
  model, mesh = chess_heads.Generator(config), tiny.one_device()
  rows, _ = model.rows(
    heads_test.CHARACTERS,
    heads_test.PUZZLES.inputs,
    heads_test.TRUTH,
    max_length=72,
  )
  plan = batching.EpochPlan(
    rows.lengths_N, batch_size=32, buckets=(72,), epochs=80, seed=0
  )
  params = train.fit(
    model=model,
    trainable=heads_test.initial_params(model),
    frozen={},
    folder=tmp_path,
    logger=logger.Logger(
      tmp_path, console=rich.console.Console(quiet=True), is_primary=True
    ),
    rows=rows,
    plan=plan,
    recipe=tiny.RECIPE._replace(total_steps=len(plan), learning_rate=1e-2),
    seed=0,
    mesh=mesh,
    checkpoint_every=1000,
    name='student',
  )
  unlabelled, _ = model.rows(
    heads_test.CHARACTERS, heads_test.PUZZLES.inputs, None, max_length=72
  )
  for examples in (unlabelled, rows):  # the known answer is not looked at
    found = predict.predict(
      model, params, examples, batch_size=16, buckets=(72,), mesh=mesh
    )
    probs_NxC, texts_N = model.read(
      heads_test.CHARACTERS, heads_test.PUZZLES.inputs, found
    )
    assert texts_N.tolist() == heads_test.answers(heads_test.PUZZLES)
    np.testing.assert_array_equal(probs_NxC, heads_test.PUZZLES.label_probs_NxC)
  assert predict.answer_fn(model, mesh)._cache_size() == 1


def test_text_and_board_models_teach_each_other(tmp_path):
  tiny_chess.write(tmp_path / 'puzzles.csv', 48)
  config = chess_config(tmp_path / 'puzzles.csv')
  workdir = tmp_path / 'study'
  study.run(
    config,
    workdir,
    console=rich.console.Console(quiet=True),
    devices=jax.devices()[:1],
  )
  lines = (workdir / 'results.jsonl').read_text().splitlines()
  assert len(lines) == 3

  evaluated, slices = study.load_splits(config)
  positions = evaluated['test'].inputs
  (folder,) = workdir.glob('stages/weak-writer-*')
  test = tiny.arrays(folder / 'predictions' / 'test.npz')
  for position, text, probs_C in zip(positions, test['texts'], test['probs']):
    legal = text in position.completions
    assert probs_C[-1] == (not legal) and probs_C.sum() == 1
  loaded = checkpoint.load_model(workdir, folder.name)
  probs_NxC = predict.predict_inputs(loaded, positions)
  np.testing.assert_array_equal(probs_NxC, test['probs'])

  (labels,) = workdir.glob('stages/labels*-writer-*/weak_labels.npz')
  weak = tiny.arrays(labels)
  assert weak['texts'].shape == (16,)
  assert set(weak['ids']) == set(slices[0].transfer[0].ids)
  (labels,) = workdir.glob('stages/labels*-board-*/weak_labels.npz')
  assert 'texts' not in tiny.arrays(labels)


def chess_config(path):
  config = base.get_config()
  config.update_from_flattened_dict(
    {
      'task': 'chess_puzzles',
      'seeds': (0,),
      'losses': ('xent',),
      'students': ('board>writer', 'writer>board', 'writer>author'),
      'weak_labels': 'hard',
      'eval_batch_size': 8,
      'data.source': f'file:{path}',
      'data.max_length': 72,
      'data.num_buckets': 1,
      'data.splits.weak': 16,
      'data.splits.transfer': 16,
      'data.splits.validation': 8,
      'data.splits.test': 8,
    }
  )
  fields = dict(num_layers=1, epochs=1, batch_size=16, learning_rate=1e-2)
  for name, preset in (
    ('board', 'board-xs'),
    ('writer', 'tiny-decoder'),
    ('author', 'tiny-decoder'),
  ):
    weights = f'random:{preset}'
    config.models[name] = base.model(name, weights=weights, **fields)
  return config


@pytest.mark.parametrize(
  'fields, says',
  [
    ({'data.max_length': 129}, 'length 129 does not fit the 128 positions'),
    ({'data.max_length': 9}, 'writer: max_length=9 has no room'),
    (
      {'models.writer.weights': 'random:tiny-encoder'},
      "models.writer: .*'encoder'.*'position'",
    ),
    (
      {'models.writer.head_init': 'token_rows'},
      "models.writer: head_init='token_rows'.*kind 'position'",
    ),
    (
      {'weak_labels': 'soft'},
      "weak_labels='soft': models.writer .*set weak_labels='hard'",
    ),
  ],
)
def test_mistake_is_found_before_anything_is_trained(fields, says, tmp_path):
  tiny_chess.write(tmp_path / 'puzzles.csv', 48)
  config = chess_config(tmp_path / 'puzzles.csv')
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=says):
    study.run(config, tmp_path / 'study', console=None)
  assert not (tmp_path / 'study').exists()


def test_folder_of_a_language_model_has_no_head(tmp_path):
  tensors = pretrained_test.random_tensors('gpt2')
  folder = pretrained_test.write_folder(tmp_path / 'gpt2', 'gpt2', tensors)
  heads_test.CHARACTERS.save(folder)
  model = model_test.build(
    weights=str(folder),
    inputs='position',
    num_classes=chess_task.NUM_CLASSES,
  )
  params = model.init(tiny.one_device(), 0)
  assert params.keys() == {'transformer'}
  shapes = heads.parameter_shapes(model.network)
  assert jax.tree.map(np.shape, params) == jax.tree.map(
    lambda x: x.shape, shapes
  )
