import dataclasses
import re

import jax
import numpy as np
import pretrained_test
import pytest

from configs import base
from configs import nlp
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax.models import model as model_lib
from w2s_jax.models import tokenizers
from w2s_jax.tasks import registry

import tiny

TASK = registry.TASKS['synthetic']


def build(*, inputs='text', num_classes=2, **fields):
  spec = base.model('tiny', weights='random:tiny-encoder')
  spec.update(fields)
  task = dataclasses.replace(TASK, inputs=inputs, num_classes=num_classes)
  return model_lib.build(spec, task)


@pytest.mark.parametrize(
  'fields, says',
  [
    ({'num_layers': 3}, '^num_layers=3, but random:tiny-encoder has 2 layers'),
    ({'num_layers': -2}, 'num_layers=-2'),
    ({'head_init': 'ones'}, "head_init='ones'.*'zero'.*'token_rows'"),
    (
      {'head_init': 'token_rows', 'num_classes': 3},
      r"head_tokens=\('0', '1'\).*3 classes",
    ),
    (
      {'head_init': 'token_rows', 'head_tokens': ('0', 'two words')},
      "'two words' is not one word",
    ),
    ({'weights': 'random:giant'}, 'random:giant.*tiny-decoder, tiny-encoder'),
    ({'weights': 'asset:minilm'}, 'minilm'),
    ({'dtype': 'float31'}, "dtype='float31'"),
  ],
)
def test_wrong_field_is_named(fields, says):
  with pytest.raises(ValueError, match=says):
    build(**fields)


@pytest.mark.parametrize(
  'weights, num_layers, name',
  [
    ('asset:minilm-l6', -1, 'minilm-l6'),
    ('asset:minilm-l6', 6, 'minilm-l6'),
    ('asset:minilm-l6', 0, 'minilm-l0'),
    ('asset:board-l', -1, 'board-l'),
    ('asset:board-l', 12, 'board-l-l12'),
    ('random:tiny-encoder', 1, 'tiny-encoder-l1'),
    ('hf:EleutherAI/pythia-70m', -1, 'pythia-70m'),
    ('hf:EleutherAI/pythia-70m@step3000', -1, 'pythia-70m@step3000'),
    ('hf:EleutherAI/pythia-70m@step3000', 2, 'pythia-70m@step3000-l2'),
    ('hf:EleutherAI/pythia-70m@refs/pr/1', -1, 'pythia-70m@refs-pr-1'),
    ('some/folder@home/bert-large/', -1, 'bert-large'),
    ('/some/folder@home', 3, 'folder@home-l3'),
    ('gs://bucket/models/gpt2-l24', 6, 'gpt2-l6'),
  ],
)
def test_name_follows_the_weights(weights, num_layers, name):
  spec = base.model(weights=weights, num_layers=num_layers)
  assert model_lib.name_of(spec) == name
  spec.name = 'mine'
  assert model_lib.name_of(spec) == 'mine'


@pytest.mark.parametrize('weights', ['.', '..', '/', 'asset:', 'hf:'])
def test_weights_without_a_name_need_one(weights):
  with pytest.raises(ValueError, match="name=''.*set `name`"):
    model_lib.name_of(base.model(weights=weights))


def test_weights_of_the_command_line_change_the_name_in_results():
  config = nlp.get_config('weak=minilm-l2')
  config.models.strong.weights = 'hf:EleutherAI/pythia-70m@step3000'
  config.models.strong.num_layers = -1
  student = results.student(config, ('weak', 'strong'), 'xent', False)
  assert student['weak_model'] == 'minilm-l2'
  assert student['strong_model'] == 'pythia-70m@step3000'
  assert build(name='', num_layers=1).name == 'tiny-encoder-l1'


def test_missing_folder_is_named(tmp_path):
  folder = str(tmp_path / 'none')
  with pytest.raises(FileNotFoundError, match=re.escape(folder)):
    build(weights=folder)


def test_random_preset_differs_by_seed_only():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  model = build()
  first, again, other = (model.init(mesh, seed) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  kernel = first['transformer']['layer_1']['mlp']['up']['kernel']
  assert kernel.sharding.spec == jax.sharding.PartitionSpec('fsdp', 'tensor')
  assert not np.array_equal(
    kernel, other['transformer']['layer_1']['mlp']['up']['kernel']
  )
  assert not first['head']['kernel'].any()
  one_device = model.init(tiny.one_device(), 0)
  jax.tree.map(np.testing.assert_array_equal, first, one_device)


def test_head_starts_as_rows_of_its_tokens():
  model = build(head_init='token_rows', head_tokens=('bad', 'good'))
  params = model.init(tiny.one_device(), 0)
  table_VxD = params['transformer']['token_embed']['embedding']
  ids = [model.tokenizer.token_id(word) for word in ('bad', 'good')]
  np.testing.assert_array_equal(
    params['head']['kernel'], table_VxD[np.array(ids)].T
  )


def test_identity_holds_what_decides_the_parameters():
  identity = build().identity
  assert build(name='other').identity == identity
  for fields in (
    {'weights': 'random:tiny-decoder'},
    {'num_layers': 1},
    {'head_init': 'token_rows'},
    {'dropout': 0.1},
    {'dtype': 'bfloat16'},
    {'num_classes': 3},
  ):
    assert build(**fields).identity != identity, fields


@pytest.mark.parametrize('num_layers, kept', [(-1, 3), (2, 2), (0, 0)])
def test_folder_is_cut_to_its_first_layers(num_layers, kept, tmp_path):
  tensors = pretrained_test.random_tensors('bert')
  folder = pretrained_test.write_folder(tmp_path / 'bert', 'bert', tensors)
  tokenizers.WordHash(pretrained_test.V).save(folder)
  model = build(weights=str(folder), num_layers=num_layers)
  assert model.network.config.num_layers == kept
  params = model.init(tiny.one_device(), 0)
  names = [name for name in params['transformer'] if 'layer_' in name]
  assert sorted(names) == [f'layer_{i}' for i in range(kept)]
  tokens_BxL, length_B = np.ones((2, 4), np.int32), np.array([4, 0])
  logits_BxC = model.network.apply({'params': params}, tokens_BxL, length_B)
  assert logits_BxC.shape == (2, 2) and not logits_BxC.any()  # a zero head
