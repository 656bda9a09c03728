import dataclasses
import re

import jax
import numpy as np
import pretrained_test
import pytest
import tokenizers as hf_tokenizers
import tokenizers_test

from configs import base
from configs import nlp
from w2s_jax import results
from w2s_jax import sharding
from w2s_jax.models import model as model_lib
from w2s_jax.models import presets
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
      {
        'head_init': 'token_rows',
        'head_tokens': ('0', '1'),
        'num_classes': 3,
      },
      r"head_tokens=\('0', '1'\).*3 classes",
    ),
    (
      {'head_init': 'token_rows', 'inputs': 'pair'},
      "head_init='token_rows'.*kind 'pair'",
    ),
    (
      {
        'weights': 'random:tiny-decoder',
        'inputs': 'position',
        'prompt': '{text}!',
      },
      r"prompt='{text}!' is for texts; .*set prompt=''",
    ),
    ({'prompt': 'no place'}, "prompt='no place' must have one '{text}'"),
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
  config = nlp.get_config('weak=minilm-l2,adapt=full')
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


def decoder_folder(folder, backend):
  """Saves a tiny GPT-2 with the tokenizer of `backend`."""
  tensors = pretrained_test.random_tensors('gpt2')
  pretrained_test.write_folder(folder, 'gpt2', tensors)
  tokenizers.Tokenizer(backend).save(folder)
  return str(folder)


@pytest.mark.parametrize('inputs', ['text', 'pair'])
@pytest.mark.parametrize('preset', ['tiny-encoder', 'tiny-decoder'])
def test_a_prompt_is_honoured_by_every_head_on_texts(preset, inputs):
  weights = f'random:{preset}'
  plain = build(weights=weights, inputs=inputs)
  prompted = build(weights=weights, inputs=inputs, prompt='is {text} good ?')
  assert isinstance(plain.tokenizer, tokenizers.WordHash)
  assert 'prompt' not in plain.identity
  assert prompted.identity == plain.identity | {'prompt': 'is {text} good ?'}
  found, _ = prompted.tokenizer.encode(['it'], max_length=9)
  wanted, _ = plain.tokenizer.encode(['is it good ?'], max_length=9)
  assert found[0].tolist() == wanted[0].tolist()


def test_a_verbalizer_has_a_prompt_of_its_own():
  fields = dict(weights='random:tiny-decoder', head='verbalize')
  model = build(**fields)
  assert model.identity['prompt'] == '{text}\nAnswer:'
  assert build(**fields, prompt='{text}\nAnswer:').identity == model.identity


def test_default_tokens_follow_the_tokenizer(tmp_path):
  joined = tokenizers_test.gpt2_like()
  vocab = joined.get_vocab() | {'\u01200': 257, '\u01201': 258}
  merges = [('\u0120', '0'), ('\u0120', '1')]
  joined.model = hf_tokenizers.models.BPE(vocab, merges)
  apart = tokenizers_test.gpt2_like()
  for name, backend, words in (
    ('joined', joined, ['\u01200', '\u01201']),
    ('apart', apart, ['0', '1']),
  ):
    weights = decoder_folder(tmp_path / name, backend)
    model = build(weights=weights, head='verbalize')
    ids = [backend.token_to_id(word) for word in words]
    assert model.identity['head_ids'] == ids == list(model.network.label_ids)
  given = build(weights=weights, head='verbalize', head_tokens=('0', '1'))
  assert given.identity == model.identity


def test_no_verbalizer_where_texts_are_closed_by_a_token(tmp_path):
  weights = decoder_folder(tmp_path / 'bert', tokenizers_test.bert_like())
  with pytest.raises(ValueError, match=r'ends each text with the tokens \[3\]'):
    build(weights=weights, head='verbalize')


def test_bos_is_part_of_the_identity_of_a_decoder(tmp_path):
  weights = decoder_folder(tmp_path / 'llama', tokenizers_test.llama2_like())
  assert build(weights=weights).identity['start_ids'] == [1]
  assert 'start_ids' not in build(weights='random:tiny-decoder').identity


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


def test_models_of_one_tokenizer_share_it(tmp_path):
  architecture = presets.PRESETS['tiny-encoder']

  def tokenizer(folder):
    return model_lib._tokenizer(folder, architecture, 'text')

  folders = [tmp_path / name for name in ('small', 'large')]
  for folder in folders:
    folder.mkdir()
    tokenizers_test.gpt2_like().save(str(folder / 'tokenizer.json'))
  small, large = map(tokenizer, folders)
  assert small is large and small.vocab_size == 257
  tokenizers.WordHash(60).save(folders[0])  # the files change
  assert tokenizer(folders[0]).vocab_size == 60
  assert tokenizer(None) is tokenizer(None)
