"""A study whose workdir is a bucket: killed, shared by two jobs, loaded.

The libraries are those that reach Google Cloud Storage; the bucket is here.
"""

import os
import pathlib
import signal
import subprocess
import threading
import time

from etils import epath
import hf_families_test
import numpy as np
import pandas
import pretrained_test
import pytest

from w2s_jax import digests
from w2s_jax import loading
from w2s_jax import predict
from w2s_jax.models import model_folder
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers

import bucket as bucket_lib
import lock_test
import tiny

pytest.importorskip('gcsfs', reason='needs the extra gcs')

ROOT = epath.Path(f'gs://{bucket_lib.NAME}')
WORKDIR = ROOT / 'runs' / 'study'


@pytest.fixture(scope='module')
def bucket():
  """Where gs:// leads from here, and from processes that are started here."""
  bucket = bucket_lib.Bucket()
  threading.Thread(target=bucket.serve_forever, daemon=True).start()
  with pytest.MonkeyPatch.context() as patch:
    for name, value in bucket.environment().items():
      patch.setenv(name, value)
    yield bucket
  bucket.shutdown()


def half_saved(bucket, folder):
  """Whether a folder of Orbax has files, but not yet the one that ends it."""
  names = [name for name in list(bucket.objects) if folder in name]
  return names and not any('commit_success' in name for name in names)


@pytest.fixture(scope='module')
def killed(bucket):
  """The bucket after a study was killed while it saved parameters."""
  process = tiny.start(WORKDIR)
  deadline = time.monotonic() + 200
  while not half_saved(bucket, '/params/'):
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.001)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert half_saved(bucket, '/params/')
  return bucket


@pytest.fixture(scope='module')
def printed(killed):
  """By each of two jobs that finished the study together."""
  jobs = [tiny.start(WORKDIR, stdout=subprocess.PIPE) for _ in range(2)]
  printed = [job.communicate(timeout=300) for job in jobs]
  assert [job.returncode for job in jobs] == [0, 0], printed
  return [stdout for stdout, _ in printed]


@pytest.mark.slow
def test_two_jobs_make_each_stage_once(printed):
  lines = [line for text in printed for line in text.splitlines()]
  ended = [line for line in lines if '✓' in line]
  made = [
    line.split('✓')[1].split()[0] for line in ended if 'cached' not in line
  ]
  assert len(ended) == 10
  assert len(set(made)) == len(made)


@pytest.mark.slow
def test_the_study_is_that_of_a_disk(printed, bucket, tmp_path):
  for name, (content, _) in bucket.objects.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
  there = tmp_path / 'runs' / 'study'
  alone = pathlib.Path(tiny.process_workdir())
  assert {p.name for p in there.iterdir()} == {p.name for p in alone.iterdir()}
  assert tiny.stage_names(there) == tiny.stage_names(alone)
  for name in tiny.stage_names(alone):
    ours, theirs = there / 'stages' / name, alone / 'stages' / name
    assert {p.name for p in ours.iterdir()} == {
      p.name for p in theirs.iterdir()
    }
    tiny.assert_same_results(ours, theirs)


@pytest.mark.slow
def test_a_model_is_loaded_from_there(printed, tmp_path):
  loaded = loading.load_model(str(WORKDIR), 'ceiling')
  splits, _ = tiny.splits()
  probs_NxC = predict.predict_inputs(loaded, splits['test'].inputs)
  alone = tiny.stage(tiny.process_workdir(), 'ceiling')
  stored = tiny.arrays(alone / 'predictions' / 'test.npz')
  np.testing.assert_allclose(probs_NxC, stored['probs'], atol=1e-5)


def test_tables_are_read_from_there(bucket):
  alone = tiny.process_workdir()
  for path in alone.rglob('*'):
    if path.is_file() and 'params' not in path.parts:
      name = f'tables/study/{path.relative_to(alone)}'
      bucket.objects[name] = path.read_bytes(), next(bucket.generations)
  for read in (
    loading.load_results,
    loading.load_predictions,
    loading.load_weak_labels,
  ):
    table = read(str(ROOT / 'tables' / 'study'))
    pandas.testing.assert_frame_equal(table, read(alone))


def test_what_others_write_is_seen(bucket):
  folder = ROOT / 'seen'
  (folder / 'ours').write_text('')
  assert [path.name for path in folder.iterdir()] == ['ours']
  bucket.objects['seen/theirs'] = b'', next(bucket.generations)
  assert (folder / 'theirs').exists()
  assert len(list(folder.iterdir())) == 2


def test_one_holder_of_a_lock_at_a_time(bucket):
  assert lock_test.most_holders(ROOT / 'LOCK') == 1
  assert 'LOCK' not in bucket.objects


@pytest.fixture
def requested(bucket, monkeypatch):
  """(object, bytes) of each read."""
  requested, answer = [], bucket_lib._Request.answer

  def record(request, status, content=b'', **headers):
    if request.query.get('alt') == 'media':
      requested.append((request.path.split('?')[0], len(content)))
    answer(request, status, content, **headers)

  monkeypatch.setattr(bucket_lib._Request, 'answer', record)
  return requested


def test_weights_there_are_those_of_a_disk(
  bucket, requested, tmp_path, monkeypatch
):
  monkeypatch.setenv('W2S_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(digests, '_REQUEST', 1600)
  local = tmp_path / 'model'
  config = hf_families_test.TINY['llama']
  trunk = pretrained_test.random_trunk(config)
  tokenizer = tokenizers.WordHash(config.vocab_size)
  pretrained.save(local, config, trunk, tokenizer=tokenizer, shard_bytes=4000)
  for file in local.iterdir():
    name = f'weights/tiny/{file.name}'
    bucket.objects[name] = file.read_bytes(), next(bucket.generations)
  folder = model_folder.folder(f'{ROOT}/weights/tiny')
  assert tokenizers.load(folder).vocab_size == config.vocab_size
  identity = pretrained.fingerprint(local)
  assert pretrained.fingerprint(folder) == identity
  requested.clear()
  assert pretrained.fingerprint(folder) == identity  # remembered
  assert sum(size for name, size in requested if 'safetensors' in name) < 5000
  pretrained_test.same(pretrained.load(folder)[1], trunk)

  # Split by the first axis that is stored, half is read of a kernel.
  requested.clear()

  def place(path, array):
    half = array.shape[-1] // 2
    part = slice(None), slice(half)
    return array[part] if path.endswith('mlp/up/kernel') else None

  _, halves = pretrained.load(folder, place=place)
  whole = trunk['layer_0']['mlp']['up']['kernel']
  half = halves['layer_0']['mlp']['up']['kernel']
  np.testing.assert_array_equal(half, whole[:, : whole.shape[1] // 2])
  sizes = [size for name, size in requested if '.safetensors' in name]
  assert sizes.count(whole.nbytes // 2) == config.num_layers
  assert whole.nbytes not in sizes

  name = next(x for x in bucket.objects if 'model-00001-of' in x)
  content = bytearray(bucket.objects[name][0])
  content[-1] ^= 1
  bucket.objects[name] = bytes(content), next(bucket.generations)
  assert pretrained.fingerprint(folder) != identity


@pytest.mark.parametrize('weights', [f'{ROOT}/none', 'gs://none/at/all'])
def test_weights_that_are_not_there_are_named(bucket, weights):
  with pytest.raises(FileNotFoundError, match=f'weights={weights}'):
    model_folder.folder(weights)
