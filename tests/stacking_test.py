"""Stacked layers: the same model, in a program that does not grow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import adapt
from w2s_jax import batching
from w2s_jax import checkpoint
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax.models import presets
from w2s_jax.models import stacking
from w2s_jax.models import text_heads

import tiny

LORA = {'rank': 2, 'alpha': 4.0, 'targets': 'attention/(query|value)/kernel'}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
  """Stacks models of two layers, too."""
  monkeypatch.setattr(stacking, 'MIN_LAYERS', 2)


def network(preset='tiny-encoder', **fields):
  config = dataclasses.replace(presets.PRESETS[preset], num_layers=3, **fields)
  return text_heads.Classifier(config, 2)


def logits_of(model, params):
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)
  return model.apply({'params': params}, batch['tokens'], batch['length'])


@pytest.mark.parametrize('preset', ['tiny-encoder', 'tiny-decoder'])
def test_a_stacked_model_has_the_logits_of_the_other(preset):
  model = network(preset)
  params = tiny.random_params(model, tiny.one_device(), head=1.0)
  stacked = stacking.stack(params, model.config)
  kernel = stacked['transformer']['layers']['mlp']['up']['kernel']
  assert kernel.shape == (3, 32, 64) and 'layer_0' not in stacked['transformer']
  np.testing.assert_allclose(
    logits_of(model, stacked), logits_of(model, params), atol=1e-6
  )
  again = stacking.unstack(stacked)
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_shapes_are_stacked_as_arrays_are():
  model = network()
  params = tiny.random_params(model, tiny.one_device())
  stacked = stacking.stack(params, model.config)
  shapes = jax.eval_shape(lambda: params)
  found = stacking.stack(shapes, model.config)
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, stacked)


@pytest.mark.parametrize(
  'remat, fields',
  [
    ('', {}),
    ('nothing_saveable', {'freeze': 'mlp/up'}),
    ('dots_saveable', {'lora': LORA}),
  ],
)
def test_training_is_that_of_layers_apart(remat, fields, monkeypatch, tmp_path):
  """Decay, clipping and LoRA, too."""
  mesh = tiny.one_device()
  model = network(remat=remat)
  recipe = tiny.RECIPE._replace(weight_decay=0.5)

  def train_it(folder):
    return tiny.fit(
      tmp_path / folder, mesh=mesh, model=model, recipe=recipe, **fields
    )

  together, losses = train_it('together')
  monkeypatch.setattr(stacking, 'MIN_LAYERS', 99)
  apart, expected = train_it('apart')
  for line, other in zip(losses, expected, strict=True):
    assert line['train/loss'] == pytest.approx(other['train/loss'], abs=1e-5)
  together = stacking.unstack(together)
  assert jax.tree.structure(together) == jax.tree.structure(apart)

  def compare(path, x, y):
    if not sharding.path_string(path).endswith('key/bias'):
      np.testing.assert_allclose(x, y, atol=1e-4)

  jax.tree_util.tree_map_with_path(compare, together, apart)


def test_training_on_a_mesh_is_that_of_one_device(tmp_path):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  params, losses = tiny.fit(tmp_path / 'mesh', mesh=mesh, model=network())
  _, expected = tiny.fit(
    tmp_path / 'one', mesh=tiny.one_device(), model=network()
  )
  for line, other in zip(losses, expected, strict=True):
    assert line['train/loss'] == pytest.approx(other['train/loss'], abs=1e-5)
  up_NxDxF = params['transformer']['layers']['mlp']['up']['kernel']
  assert up_NxDxF.sharding.shard_shape(up_NxDxF.shape) == (3, 16, 32)
  up_DxF = stacking.unstack(params)['transformer']['layer_1']['mlp']['up']
  assert up_DxF['kernel'].sharding.shard_shape((32, 64)) == (16, 32)


def test_irregular_parts_and_windows_keep_layers_apart():
  model = network()
  params = tiny.random_params(model, tiny.one_device())
  parts = adapt.split(params, freeze='layer_0/')
  assert stacking.stack_parts(parts, model.config) is parts
  both = stacking.stack_parts(adapt.split(params, freeze='mlp/'), model.config)
  assert all(map(stacking.is_stacked, both))
  windows = dataclasses.replace(model.config, window=4, full_every=2)
  assert not stacking.suits(windows)
  assert stacking.suits(dataclasses.replace(windows, full_every=None))


def test_size_of_the_program_does_not_grow_with_depth():
  recipe = tiny.RECIPE
  batch = batching.assemble(tiny.rows(8), np.arange(8), 16, batch_size=8)

  def lines(layers, stacked):
    config = dataclasses.replace(network().config, num_layers=layers)
    model = text_heads.Classifier(config, 2)
    mesh = tiny.one_device()
    params = tiny.random_params(model, mesh)
    if stacked:
      params = stacking.stack(params, config)
    init_state, step = train.make_step(model, recipe, mesh)
    state = jax.eval_shape(init_state, params)
    with jax.set_mesh(mesh):
      lowered = step.lower(state, {}, batch, 0, recipe.numbers())
    return len(lowered.as_text().splitlines())

  assert lines(2, True) == lines(8, True)
  assert lines(8, False) > 2 * lines(2, False)


def test_a_study_stores_layers_apart(tmp_path):
  fields = {
    'models.weak.num_layers': 2,
    'models.strong.num_layers': 2,
    'losses': ('xent',),
    'seeds': (0,),
    'early_stopping': 'weak_labels',
    'eval_every': 3,
  }
  tiny.run(tmp_path, **fields)
  (folder,) = tmp_path.glob('stages/student-xent-*')
  params = checkpoint.load_params(folder / 'params')
  assert {'layer_0', 'layer_1'} <= params['transformer'].keys()
  assert 'layers' not in params['transformer']
