import hashlib
import os

import pytest

from w2s_jax import digests


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setattr(digests, '_SMALL', 2)
  return tmp_path / 'cache' / 'digests'


@pytest.fixture
def computed(monkeypatch):
  """Paths whose digest was computed."""
  computed, compute = [], digests._computed
  monkeypatch.setattr(
    digests,
    '_computed',
    lambda path: computed.append(path) or compute(path),
  )
  return computed


def write(path, content, *, time=1e9):
  path.write_bytes(content)
  os.utime(path, (time, time))
  return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_again_when_it_changed(tmp_path, cache, computed):
  path = tmp_path / 'weights'
  expected = write(path, b'one')
  assert [digests.sha256(path, cache=cache) for _ in range(3)] == 3 * [expected]
  assert len(computed) == 1
  for content, time in ((b'two', 1e9 + 1), (b'three', 1e9 + 1)):
    expected = write(path, content, time=time)
    assert [digests.sha256(path, cache=cache) for _ in range(2)] == 2 * [
      expected
    ]
  assert len(computed) == 3
  write(tmp_path / 'other', b'three', time=1e9 + 1)
  assert digests.sha256(tmp_path / 'other', cache=cache) == expected
  assert len(computed) == 4


def test_a_link_is_its_file(tmp_path, cache, computed):
  expected = write(tmp_path / 'blob', b'one')
  (tmp_path / 'link').symlink_to('blob')
  for name in ('link', 'blob'):
    assert digests.sha256(tmp_path / name, cache=cache) == expected
  assert len(computed) == 1


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, cache):
  path = tmp_path / 'weights'
  path.write_bytes(b'one')
  assert digests.sha256(path, cache=cache) == hashlib.sha256(b'one').hexdigest()
  assert not cache.exists()


@pytest.mark.parametrize(
  'damage',
  [
    lambda text: '',
    lambda text: text[:-9],
    lambda text: '[1]',
    lambda text: '{"sha256": 1}',
    lambda text: text.replace('"sha256": "', '"sha256": "0'),
    lambda text: '\xff',
  ],
)
def test_a_damaged_cache_is_ignored_and_mended(
  damage, tmp_path, cache, computed
):
  path = tmp_path / 'weights'
  expected = write(path, b'one')
  digests.sha256(path, cache=cache)
  (file,) = cache.iterdir()
  file.write_text(damage(file.read_text()), encoding='latin-1')
  assert [digests.sha256(path, cache=cache) for _ in range(2)] == 2 * [expected]
  assert len(computed) == 2
  assert list(cache.iterdir()) == [file]


def test_a_cache_that_cannot_be_written(tmp_path, cache, computed):
  path = tmp_path / 'weights'
  expected = write(path, b'one')
  cache.parent.write_text('a file where a folder should be')
  assert [digests.sha256(path, cache=cache) for _ in range(2)] == 2 * [expected]
  assert len(computed) == 2


def test_a_small_file_is_read_each_time(tmp_path, cache, computed):
  expected = write(tmp_path / 'config', b'{')
  for _ in range(2):
    assert digests.sha256(tmp_path / 'config', cache=cache) == expected
  assert len(computed) == 2 and not cache.exists()
