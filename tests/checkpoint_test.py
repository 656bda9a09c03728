import jax
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import predict
from w2s_jax import sharding

import tiny


@pytest.fixture(scope='module')
def texts():
  """Inputs of the test set, in the order of the stored predictions."""
  evaluated, _ = tiny.splits()
  return evaluated['test'].inputs


def stored(workdir, role):
  folder = tiny.stage(workdir, role)
  return tiny.arrays(folder / 'predictions' / 'test.npz')['probs']


@pytest.mark.parametrize('role', ['weak', 'student-xent'])
def test_one_device_loads_what_a_mesh_trained(role, texts):
  workdir = tiny.mesh_workdir()
  loaded = checkpoint.load_model(workdir, tiny.stage(workdir, role).name)
  for leaf in jax.tree.leaves(loaded.params):
    assert leaf.devices() == {jax.local_devices()[0]}
  probs_NxC = predict.predict_inputs(loaded, texts)
  np.testing.assert_allclose(probs_NxC, stored(workdir, role), atol=1e-5)
  assert loaded.config['model']['num_classes'] == probs_NxC.shape[1]
  assert loaded.config['seed'] == 0


def test_another_mesh_loads_it_too(texts):
  mesh = sharding.make_mesh(data=1, fsdp=4, tensor=2)
  workdir = tiny.mesh_workdir()
  name = tiny.stage(workdir, 'ceiling').name
  loaded = checkpoint.load_model(workdir, name, mesh=mesh)
  up_DxF = loaded.params['transformer']['layer_0']['mlp']['up']['kernel']
  assert {s.data.shape for s in up_DxF.addressable_shards} == {(8, 32)}
  probs_NxC = predict.predict_inputs(loaded, texts)
  np.testing.assert_allclose(probs_NxC, stored(workdir, 'ceiling'), atol=1e-5)


def test_model_applies_to_tokens(texts):
  name = tiny.stage(tiny.mesh_workdir(), 'weak').name
  loaded = checkpoint.load_model(tiny.mesh_workdir(), name)
  tokens, _ = loaded.tokenizer.encode(texts[:1], max_length=16)
  logits_BxC = loaded.model.apply(
    {'params': loaded.params}, tokens[0][None], np.array([len(tokens[0])])
  )
  probs_C = stored(tiny.mesh_workdir(), 'weak')[0]
  np.testing.assert_allclose(jax.nn.softmax(logits_BxC)[0], probs_C, atol=1e-5)


def test_stage_names(tmp_path):
  workdir = tmp_path / 'study'
  for name in ('weak-a-1', 'weak-b-2', 'weak-b-23', 'labels-3', 'broken-4'):
    folder = workdir / 'stages' / name
    folder.mkdir(parents=True)
    if name != 'labels-3':  # nothing to load
      (folder / 'params').mkdir()
    if name != 'broken-4':  # never finished
      (folder / 'DONE').write_text('{}')
  for stage in ('weak-a', 'weak-a-1', 'weak-b-23'):
    assert checkpoint.find_stage(workdir, stage).name.startswith(stage)
  assert checkpoint.find_stage(workdir, 'weak-b-2').name == 'weak-b-2'
  names = 'weak-a-1, weak-b-2, weak-b-23$'
  for stage, count in (('weak', 3), ('strong', 0), ('labels', 0), ('bro', 0)):
    with pytest.raises(ValueError, match=f"^{count} fin.*'{stage}'.*{names}"):
      checkpoint.find_stage(workdir, stage)


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
  with pytest.raises(ValueError, match='stages does not exist'):
    checkpoint.load_model(tmp_path, 'weak')


def test_params_keep_every_bit_and_their_folder_is_whole_or_absent(tmp_path):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  params = tiny.random_params(tiny.network(), mesh, head=1.0)
  folder = tmp_path / 'params'
  checkpoint.save_params(folder, params)
  for place in (None, mesh, sharding.make_mesh(data=8)):
    loaded = checkpoint.load_params(folder, mesh=place)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
