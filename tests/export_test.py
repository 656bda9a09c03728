"""Exports of stages that are written by hand: nothing is trained."""

import dataclasses
import json

import hf_heads_test
import jax
import numpy as np
import pytest
import reward_model_test
import safetensors.numpy

from w2s_jax import adapt
from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import export
from w2s_jax import results
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers
from w2s_jax.report import groups
from w2s_jax.report import report
from w2s_jax.runtime import files
from w2s_jax.tasks import class_names

import made_up

NAME = 'student-xent-tiny-by-weak-seed0-0123456789ab'


def call(name, *arguments):
  return {'function': {'name': name}, 'arguments': arguments}


LABELS = call('soft', call('predicted', 'aaaaaaaaaaaa'))


def save_stage(workdir, network, tokenizer, params, name=NAME, **fields):
  """Writes a finished stage of a network with these stored parameters."""
  folder = workdir / 'stages' / name
  folder.mkdir(parents=True, exist_ok=True)
  architecture = dataclasses.asdict(network.config)
  for field in ('remat', 'matmul_dtype', 'attention'):
    del architecture[field]
  config = {
    'model': {
      'weights': fields.pop('fingerprint', 'none'),
      'architecture': architecture,
      'head': type(network).__name__,
      'num_classes': network.num_classes,
      'head_ids': [],
    },
    'seed': 0,
    'start': [],
    'weights': 'random:none',
    'labels': LABELS,
    'loss': {'name': 'xent'},
    'train': {'learning_rate': 0.1, 'freeze': ''},
    'evaluation': {'max_length': 32},
  }
  files.write_atomically(folder / 'config.json', json.dumps(config | fields))
  tokenizer.save(folder)
  checkpoint.save_params(folder / 'params', params, name=name)
  digests = {
    x.name: files.sha256(x.read_bytes()) for x in folder.glob('*.json')
  }
  files.save_record(
    folder / 'DONE',
    {'summary': {'rows': 4, 'test_accuracy': 0.75}, 'files': digests},
  )
  return folder


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """(workdir, network, params) of a classifier that was trained whole."""
  workdir = tmp_path_factory.mktemp('whole')
  network, tokenizer = hf_heads_test.model_of('gpt_neox')
  params = reward_model_test.random_params(network)
  save_stage(workdir, network, tokenizer, params)
  labels = workdir / 'stages' / 'labels-of-weak-seed0-aaaaaaaaaaaa'
  weak = workdir / 'stages' / 'weak-bag-seed0-bbbbbbbbbbbb'
  for folder, fields in ((labels, {'supervisor': 'bbbbbbbbbbbb'}), (weak, {})):
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(fields))
  (labels / 'DONE').write_text('{}')
  (weak / 'params').mkdir()
  return workdir, network, params


def tensors_of(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def test_the_whole_model(whole, tmp_path):
  workdir, network, params = whole
  folder = tmp_path / 'new' / 'folder'
  export.export(f'{workdir}/student-xent', folder, labels=('a', 'b', 'c'))
  tensors = tensors_of(folder)
  np.testing.assert_array_equal(
    tensors['score.weight'], params['head']['kernel'].T
  )
  np.testing.assert_array_equal(
    tensors['gpt_neox.embed_in.weight'],
    params['transformer']['token_embed']['embedding'],
  )
  assert 'embed_out.weight' not in tensors
  fields = json.loads((folder / 'config.json').read_text())
  assert fields['architectures'] == ['GPTNeoXForSequenceClassification']
  assert fields['id2label'] == {'0': 'a', '1': 'b', '2': 'c'}
  assert tokenizers.load(folder).vocab_size == 257
  modes = {oct(x.stat().st_mode) for x in folder.iterdir()}
  assert len(modes) == 1 and modes != {'0o100600'}  # as the umask has it
  export.export(workdir / 'stages' / NAME, tmp_path / 'again')  # its own folder
  fields = json.loads((tmp_path / 'again' / 'config.json').read_text())
  assert fields['id2label'] == {str(i): f'LABEL_{i}' for i in range(3)}
  np.testing.assert_array_equal(
    tensors_of(tmp_path / 'again')['score.weight'], tensors['score.weight']
  )


@pytest.mark.parametrize('method', ['probe', 'lora'])
def test_what_was_trained_is_added_to_the_base_model(method, tmp_path):
  network, tokenizer = hf_heads_test.model_of('bert')
  base = reward_model_test.random_params(network)
  pretrained.save(
    tmp_path / 'base', network.config, base['transformer'], tokenizer=tokenizer
  )
  stored, expected = {'head': base['head']}, base
  if method == 'lora':
    lora = dict(rank=2, alpha=4.0, targets='query/kernel')
    trainable, frozen = adapt.split(base, lora=lora)
    stored = jax.tree.map(lambda x: x + 0.1, trainable)
    expected = adapt.fold(adapt.merge(stored, frozen))
  save_stage(
    tmp_path,
    network,
    tokenizer,
    stored,
    weights=str(tmp_path / 'base'),
    fingerprint=pretrained.fingerprint(tmp_path / 'base'),
  )
  export.export(tmp_path / NAME, tmp_path / 'out')
  tensors = tensors_of(tmp_path / 'out')
  np.testing.assert_array_equal(
    tensors['score.weight'], expected['head']['kernel'].T
  )
  name = 'bert.encoder.layer.1.attention.self.query.weight'
  kernel = expected['transformer']['layer_1']['attention']['query']['kernel']
  np.testing.assert_allclose(tensors[name], kernel.T, atol=1e-6)
  changed = (tensors[name] != tensors_of(tmp_path / 'base')[name]).any()
  assert changed == (method == 'lora')
  assert (tmp_path / 'out' / 'modeling_w2s.py').exists()


def test_the_card(whole, tmp_path):
  workdir, _, _ = whole
  export.export(workdir / NAME, tmp_path / 'out')
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert card.startswith('---\nlibrary_name: transformers\n')
  assert (
    'Trained on: soft labels (probabilities) from weak-bag-seed0-bbbbbbbbbbbb'
  ) in card
  assert 'Test accuracy: 75.0%' in card
  assert 'no results with this stage' in card
  assert 'hf upload OWNER/NAME' in card
  assert 'trust_remote_code' not in card
  assert str(tmp_path) not in card


@pytest.mark.parametrize(
  ('stage', 'message'),
  [
    ('studnet-xent', f"begins with 'studnet-xent'; the nearest .*{NAME}"),
    ('weak-bag', 'weak-bag-seed0-bbbbbbbbbbbb is not finished'),
    ('labels-of', f'labels-of-.* holds no parameters; name .*{NAME}'),
    ('none/student', 'has no folder stages/; name WORKDIR/STAGE'),
  ],
)
def test_bad_stages_are_named(stage, message, whole, tmp_path):
  workdir, _, _ = whole
  with pytest.raises(errors.UserError, match=message) as caught:
    export.export(workdir / stage, tmp_path / 'out')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'out').exists()


def test_a_language_model_is_named(tmp_path):
  network, tokenizer = hf_heads_test.model_of('gpt_neox')
  params = reward_model_test.random_params(network)
  trunk = {'transformer': params['transformer']}
  save_stage(tmp_path, network, tokenizer, trunk, kind='generative')
  with pytest.raises(errors.UserError, match=f'{NAME} is a language model'):
    export.export(tmp_path / NAME, tmp_path / 'out')


def test_bad_folders_are_named(whole, tmp_path):
  workdir, _, _ = whole
  (tmp_path / 'used').mkdir()
  (tmp_path / 'used' / 'file').write_text('')
  for folder, message in (
    (tmp_path / 'used', 'exists and is not empty'),
    (tmp_path / 'used' / 'file', 'is a file'),
    ('gs://bucket/folder', 'to a disk'),
  ):
    with pytest.raises(errors.UserError, match=message):
      export.export(workdir / NAME, folder)
  with pytest.raises(errors.UserError, match=r"labels=\('a',\).*3 scores"):
    export.export(workdir / NAME, tmp_path / 'new', labels=('a',))
  assert not (tmp_path / 'new').exists()


def test_the_table_of_its_study_is_in_the_card(tmp_path):
  row = made_up.make(tmp_path)[0]
  network, tokenizer = hf_heads_test.model_of('gpt_neox', num_classes=2)
  params = reward_model_test.random_params(network)
  name = row['stages']['student']
  save_stage(tmp_path, network, tokenizer, params, name=name)
  export.export(tmp_path / name, tmp_path / 'out')
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert fields['id2label'] == {'0': 'negative', '1': 'positive'}
  card = (tmp_path / 'out' / 'README.md').read_text()
  (line,) = [x for x in card.splitlines() if x.startswith('| rotten_tomatoes')]
  (group,) = report.aggregate(tmp_path, made_up_rows(tmp_path, row))
  for cell in (*groups.accuracies(group), groups.pgr_text(group)):
    assert cell in line
  assert '- Classes: 0 negative, 1 positive' in card
  assert 'logconf' in line and 'This model is the student of seed 0' in card


def test_classes_are_named_by_the_task(tmp_path, monkeypatch):
  names = 'bad', 'fair', 'good'
  monkeypatch.setitem(class_names.NAMES, 'rotten_tomatoes', names)
  name = made_up.make(tmp_path)[0]['stages']['student']
  network, tokenizer = hf_heads_test.model_of('gpt_neox')
  params = reward_model_test.random_params(network)
  save_stage(tmp_path, network, tokenizer, params, name=name)
  export.export(tmp_path / name, tmp_path / 'out')
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert fields['id2label'] == {'0': 'bad', '1': 'fair', '2': 'good'}
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert '- Classes: 0 bad, 1 fair, 2 good' in card
  export.export(tmp_path / name, tmp_path / 'own', labels=('a', 'b', 'c'))
  card = (tmp_path / 'own' / 'README.md').read_text()
  assert '- Classes: 0 a, 1 b, 2 c' in card


def made_up_rows(workdir, row):
  """All seeds of the student of a row."""
  rows = results.read(workdir)
  return [x for x in rows if results.name_of(x) == results.name_of(row)]
