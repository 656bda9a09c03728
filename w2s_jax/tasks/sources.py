"""Where the rows of a task come from.

A source is one string:

    file:PATH           .jsonl, .csv, .parquet or .pgn; plain, .gz or .zst.
                        `{split}` in PATH becomes the name of the split.
    asset:NAME/PATH     such a file inside a package of assets.py
    tfds:NAME/CONFIG    TensorFlow Datasets, read without TensorFlow
    hf:ORG/NAME:CONFIG  the Hugging Face `datasets` library; FOLDER/ may stand
                        for CONFIG, and @REVISION behind NAME
    synthetic:          made-up reviews, for debugging and tests

Every row comes with its origin, such as 'train.jsonl.gz:17', for error texts.
"""

import csv
import difflib
import gzip
import importlib
import io
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from w2s_jax import assets

Rows = Iterator[tuple[str, dict]]


def read(source: str, split: str) -> Rows:
  """Yields (origin, row) for each row of a split.

  Raises:
    ValueError: unknown kind of source, or a damaged file or row.
    FileNotFoundError: no such file; names the files that look like it.
    ImportError: the source needs a package that is not installed.
  """
  kind, _, name = source.partition(':')
  if kind not in READERS:
    close = difflib.get_close_matches(kind, READERS, n=1, cutoff=0)[0]
    raise ValueError(
      f'data.source = {source!r} is of unknown kind {kind!r}: did you mean '
      f'{close!r}? Kinds: {", ".join(f"{known}:" for known in READERS)}.'
    )
  return READERS[kind](name, split)


def has_splits(source: str) -> bool:
  """Whether `source` tells splits apart, or is one pool of rows."""
  return source.startswith(('tfds:', 'hf:')) or '{split}' in source


def _read_file(name: str, split: str) -> Rows:
  file = pathlib.Path(name.replace('{split}', split)).expanduser()
  if not file.is_file():
    raise FileNotFoundError(f'No data file {file}; {_similar_files(file)}.')
  plain = file.stem if file.suffix in ('.gz', '.zst') else file.name
  suffix = pathlib.PurePath(plain).suffix
  readers = {
    '.jsonl': _read_jsonl,
    '.csv': _read_csv,
    '.parquet': _read_parquet,
    '.pgn': _read_pgn,
  }
  if suffix not in readers:
    raise ValueError(
      f'{file}: the name must end in .jsonl, .csv, .parquet or .pgn, or in one '
      'of these and .gz or .zst.'
    )
  return readers[suffix](file)


def _similar_files(file: pathlib.Path) -> str:
  if not file.parent.is_dir():
    return f'the folder {file.parent} does not exist either'
  names = sorted(entry.name for entry in file.parent.iterdir())
  close = difflib.get_close_matches(file.name, names, n=5, cutoff=0.4)
  return f'{file.parent} has {", ".join(close or names[:5]) or "no files"}'


def _open(file: pathlib.Path) -> io.BufferedIOBase:
  if file.suffix == '.gz':
    return gzip.open(file)
  if file.suffix == '.zst':  # Unlike zstandard, Arrow notices a cut-off end.
    arrow = _import('pyarrow', needed_for=file)
    return io.BufferedReader(arrow.input_stream(file, compression='zstd'))
  return open(file, 'rb')


def _lines(file: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Yields numbered lines; damage is a ValueError with the line it hits."""
  number = 0
  try:
    with _open(file) as stream:
      for number, line in enumerate(stream, 1):
        yield number, line.decode('utf-8-sig' if number == 1 else 'utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{file}:{number}: not UTF-8: {error}.') from error
  except (EOFError, OSError, zlib.error) as error:
    raise ValueError(
      f'{file}:{number + 1}: damaged or truncated: {error}.'
    ) from error


def _read_jsonl(file: pathlib.Path) -> Rows:
  for number, line in _lines(file):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(f'{file}:{number}: not JSON: {error}.') from error
    if not isinstance(row, dict):
      raise ValueError(f'{file}:{number}: not a JSON object: {line[:40]!r}.')
    yield f'{file}:{number}', row


def _read_csv(file: pathlib.Path) -> Rows:
  reader = csv.reader((line for _, line in _lines(file)), strict=True)
  header = None
  while True:
    # A quoted field may span lines: a row is known by the first of them.
    origin = f'{file}:{reader.line_num + 1}'
    try:
      values = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise ValueError(f'{origin}: {error}.') from error
    if header is None:
      header = values
    elif values and len(values) != len(header):
      raise ValueError(
        f'{origin}: {len(values)} columns, but the header has {len(header)}.'
      )
    elif values:
      yield origin, dict(zip(header, values, strict=True))


def _read_parquet(file: pathlib.Path) -> Rows:
  parquet = _import('pyarrow.parquet', needed_for=file)
  try:
    with _open(file) as stream:
      table = parquet.ParquetFile(io.BytesIO(stream.read()))
    number = itertools.count(1)
    for batch in table.iter_batches():
      for row in batch.to_pylist():
        yield f'{file}:{next(number)}', row
  except (EOFError, OSError, ValueError, zlib.error) as error:
    # Arrow's errors are of these kinds; the index of a parquet file is at its
    # end, so a cut one has no readable rows at all.
    raise ValueError(f'{file}: damaged or truncated: {error}.') from error


def _read_pgn(file: pathlib.Path) -> Rows:
  """Games: their headers, and `moves` in UCI."""
  pgn = _import('chess.pgn', needed_for=file)
  text = io.StringIO(''.join(line for _, line in _lines(file)))
  for number in itertools.count(1):
    game = pgn.read_game(text)
    if game is None:
      return
    origin = f'{file}: game {number}'
    if game.errors:
      raise ValueError(f'{origin}: {game.errors[0]}.')
    moves = ' '.join(move.uci() for move in game.mainline_moves())
    yield origin, {**game.headers, 'moves': moves}


def _read_asset(name: str, split: str) -> Rows:
  asset, _, inner = name.partition('/')
  return _read_file(f'{assets.path(asset)}/{inner}', split)


def _read_tfds(name: str, split: str) -> Rows:
  tfds = _import('tensorflow_datasets', needed_for=f'tfds:{name}')
  try:
    source = tfds.data_source(
      name,
      split=split,
      data_dir=os.environ.get('TFDS_DATA_DIR'),
      builder_kwargs={'file_format': 'array_record'},
    )
  except Exception as error:  # Of a dozen types, with pages of text.
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise ValueError(
      f'tfds:{name} has no split {split!r} that can be read: {reason}. Prepare '
      f'it with `tfds build {name} --file_format=array_record`; the folder is '
      '$TFDS_DATA_DIR, else ~/tensorflow_datasets.'
    ) from error
  for number, row in enumerate(source, 1):
    yield f'tfds:{name}[{split}]:{number}', _decode(row)


def _decode(value):
  """Bytes to str, at any depth."""
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, dict):
    return {key: _decode(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_decode(item) for item in value]
  return value


def _read_hf(name: str, split: str) -> Rows:
  datasets = _import('datasets', needed_for=f'hf:{name}')
  path, _, part = name.partition(':')
  path, _, revision = path.partition('@')
  which = {'data_dir': part} if part.endswith('/') else {'name': part or None}
  try:
    rows = datasets.load_dataset(
      path, split=split, revision=revision or None, **which
    )
  except Exception as error:  # Hub, network, cache, file and split errors.
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise ValueError(
      f'hf:{name} has no split {split!r} that can be read: {reason}.'
    ) from error
  for number, row in enumerate(rows, 1):
    yield f'hf:{name}[{split}]:{number}', row


def _import(module: str, *, needed_for: str | pathlib.Path):
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    package = error.name.replace('_', '-')
    raise ImportError(
      f'{needed_for} needs a package that is not installed: '
      f'pip install {package}.'
    ) from error


_PRAISE = """
  great good superb warm funny moving clever lovely bright fresh gentle brave
  rich sharp sweet honest charming graceful vivid tender witty lively elegant
  touching stunning radiant soulful joyous nimble luminous""".split()
_BLAME = """
  bad awful dull cold boring weak stupid ugly stale tired clumsy lazy flat
  messy bitter fake tedious hollow bland grim silly lifeless dreary shallow
  painful murky sloppy joyless inept vapid""".split()
_FILLER = """
  the a this that film movie story plot actor scene script camera music ending
  and with of in on for from about very quite rather some every his her their
  town night train river dog king doctor brother summer war dream city road
  house letter garden winter money school island ship song window watch made
  seen told left came went found kept felt""".split()


def _read_synthetic(name: str, split: str, *, rows: int = 10_000) -> Rows:
  """Made-up reviews: do the words of praise outnumber those of blame?

  'not' turns the next cue round, rare cues are learned from many rows only, and
  4 % of the labels are noise, so capacity and data both count. RandomState is
  the generator of NumPy whose stream never changes.
  """
  del name, split  # One pool, always the same.
  random = np.random.RandomState(0)
  frequency = 1 / np.arange(1, len(_PRAISE) + 1)
  frequency /= frequency.sum()
  for number in range(1, rows + 1):
    cues = 2 * random.randint(0, 3) + 1  # Odd: no ties.
    length = random.randint(max(4, 2 * cues), 41)
    words = random.choice(_FILLER, length).tolist()
    label = int(random.rand() < 0.5)
    agree = random.randint(cues // 2 + 1, cues + 1)
    places = 2 * random.permutation(length // 2)[:cues]
    for i, place in enumerate(places):
      praise = label == (i < agree)
      negated = random.rand() < 0.15
      cue = random.choice(len(frequency), p=frequency)
      words[place + 1] = (_PRAISE if praise != negated else _BLAME)[cue]
      if negated:
        words[place] = 'not'
    noise = random.rand() < 0.04
    row = {'text': ' '.join(words), 'label': label ^ int(noise)}
    yield f'synthetic:{number}', row


READERS = {
  'file': _read_file,
  'asset': _read_asset,
  'tfds': _read_tfds,
  'hf': _read_hf,
  'synthetic': _read_synthetic,
}
