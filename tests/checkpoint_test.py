import shutil

import jax
import numpy as np
import pytest

from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import export
from w2s_jax import predict
from w2s_jax import sharding
from w2s_jax.runtime import array_digests
from w2s_jax.runtime import files
from w2s_jax.runtime import logger

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


def flipped(folder, tmp_path, places):
  """Yields copies of a folder with one bit of one of its files flipped."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  for number, path in enumerate(files):
    for place in places:
      copy = shutil.copytree(folder, tmp_path / f'{number}-{place}')
      damaged = copy / path.relative_to(folder)
      content = bytearray(damaged.read_bytes())
      if not content:
        continue
      content[int(place * (len(content) - 1))] ^= 1
      damaged.write_bytes(bytes(content))
      yield copy


def test_a_flipped_bit_of_parameters_never_changes_them(tmp_path):
  params = tiny.random_params(tiny.network(), tiny.one_device(), head=1.0)
  whole = tmp_path / 'whole'
  checkpoint.save_params(whole / 'params', params, name='weak')
  found = 0
  for copy in flipped(whole, tmp_path, places=(0, 0.3, 0.6, 1)):
    try:
      loaded = checkpoint.load_params(copy / 'params')
    except files.DamagedError as error:
      found += 1
      assert 'is damaged' in str(error)
    else:  # nothing but the bits that matter is compared
      jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert found > 10


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
  settings = dict(mesh=tiny.one_device(), epochs=4, checkpoint_every=2)
  params, metrics = tiny.fit(tmp_path / 'theirs', **settings)
  with pytest.raises(tiny.MachineLost):
    stopping = tiny.stopping_logger(at_step=7)
    tiny.fit(tmp_path / 'ours', logger_class=stopping, **settings)
  newest = tmp_path / 'ours' / 'checkpoints' / '6'
  (largest, *_) = sorted(
    (path for path in newest.rglob('*') if path.is_file()),
    key=lambda path: -path.stat().st_size,
  )
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(bytes(content))
  written = []

  class Recording(logger.Logger):
    def write(self, step, values):
      written.append(step)
      super().write(step, values)

  resumed, log = tiny.fit(tmp_path / 'ours', logger_class=Recording, **settings)
  assert written[0] == 4
  assert log == metrics
  jax.tree.map(np.testing.assert_array_equal, resumed, params)


def test_digest_depends_on_values_and_places_not_on_the_mesh():
  params = tiny.random_params(tiny.network(), tiny.one_device(), head=1.0)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  digest = array_digests.digest(params)
  placed = tiny.random_params(tiny.network(), mesh, head=1.0)
  placed = jax.tree.map(
    lambda x, y: jax.device_put(x, y.sharding), params, placed
  )
  assert array_digests.digest(placed) == digest
  assert array_digests.digest(jax.tree.map(np.asarray, params)) == digest
  kernel = np.array(params['head']['kernel'])
  for other in (kernel[::-1], kernel[:, ::-1], -kernel):
    changed = {**params, 'head': {'kernel': np.ascontiguousarray(other)}}
    assert array_digests.digest(changed) != digest


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
  params = {'head': {'kernel': np.array([[1.0, np.inf]], np.float32)}}
  with pytest.raises(errors.DivergedError, match='weak-bag: .*learning_rate'):
    checkpoint.save_params(tmp_path / 'params', params, name='weak-bag')
  assert not list(tmp_path.iterdir())


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
  with pytest.raises(ValueError, match="^2 .*'weak-b'.*: weak-b-2, weak-b-23$"):
    checkpoint.find_stage(workdir, 'weak-b')


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
  with pytest.raises(ValueError, match='stages does not exist'):
    checkpoint.load_model(tmp_path, 'weak')


def test_params_keep_every_bit_and_their_folder_is_whole_or_absent(tmp_path):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  params = tiny.random_params(tiny.network(), mesh, head=1.0)
  folder = tmp_path / 'params'
  checkpoint.save_params(folder, params, name='weak')
  for place in (None, mesh, sharding.make_mesh(data=8)):
    loaded = checkpoint.load_params(folder, mesh=place)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def outcomes(rows):
  """Rows of results without what differs from run to run."""
  return [{k: v for k, v in row.items() if 'seconds' not in k} for row in rows]


def test_parameters_that_are_not_kept(tmp_path):
  """Those of students and ceilings; results stay, and a chain goes on."""
  chain = {'students': ('weak>strong>strong',), 'losses': ('xent',)}
  kept = outcomes(tiny.run(tmp_path / 'kept', **chain))
  fields = chain | {'keep_params': False}
  assert outcomes(tiny.run(tmp_path / 'study', **fields)) == kept
  stages = tmp_path / 'study' / 'stages'
  left = {path.parent.name for path in stages.glob('*/params')}
  assert left == {path.name for path in stages.glob('weak-*')}
  (student,) = stages.glob('student-*-by-weak-seed0-*')
  for load in (
    lambda: checkpoint.load_model(tmp_path / 'study', student.name),
    lambda: export.export(stages / student.name, tmp_path / 'exported'),
  ):
    with pytest.raises(errors.UserError, match='keep_params=True') as e:
      load()
    assert f'remove {student}' in str(e.value)
  files_before = tiny.files(student)
  assert (
    outcomes(tiny.run(tmp_path / 'study', **fields)) == kept
  )  # all is cached
  assert tiny.files(student) == files_before
  (labels,) = stages.glob('labels-of-student-*')
  shutil.rmtree(labels)
  assert (
    outcomes(tiny.run(tmp_path / 'study', **fields)) == kept
  )  # trained again
  for folder in stages.glob('*student-*'):
    ours = tmp_path / 'kept' / 'stages' / folder.name
    tiny.assert_same_results(folder, ours)
