"""Rows of files: .jsonl, .json, .csv, .parquet, .pgn; plain, .gz or .zst.

Every row comes with its origin, such as 'train.jsonl.gz:17'.
"""

from collections.abc import Iterator
import csv
import difflib
import glob
import gzip
import importlib
import io
import itertools
import json
import pathlib
import re
import zlib

from w2s_jax import errors

Rows = Iterator[tuple[str, dict]]


def split_names(name: str) -> tuple[str, ...] | None:
  """Splits that a folder or a path with `{split}` has; None for one file."""
  if not ('{split}' in name or _is_folder(name)):
    return None
  path = _pattern(name)
  first, *rest = map(re.escape, path.split('{split}'))
  expression = first + '([^/]+)' + r'\1'.join(rest)
  found = glob.glob(glob.escape(path).replace('{split}', '*'))
  matches = (re.fullmatch(expression, file) for file in found)
  return tuple(sorted(match[1] for match in matches if match))


def _is_folder(name: str) -> bool:
  return name.endswith('/') or pathlib.Path(name).expanduser().is_dir()


def _pattern(name: str) -> str:
  """The path of a file with `{split}` in it, for a folder too.

  All splits in a folder have the ending of its first data file.
  """
  path = pathlib.Path(name).expanduser()
  if not _is_folder(name):
    return str(path)
  for file in sorted(path.glob('*')):
    split, _, ending = file.name.partition('.')
    if ending.removesuffix('.gz').removesuffix('.zst') in _READERS:
      return str(path / f'{{split}}.{ending}')
  what = 'has no data file' if path.is_dir() else 'does not exist'
  raise errors.MissingFileError(f'The folder {path} {what}.')


def read(name: str, split: str) -> Rows:
  """Yields (origin, row) for each row of a file; `{split}` in it is replaced.

  Raises:
    ValueError: unknown ending, or a damaged file or row.
    FileNotFoundError: no such file; names the files that look like it.
    ImportError: the ending needs a package that is not installed.
  """
  file = pathlib.Path(_pattern(name).replace('{split}', split))
  if not file.is_file():
    raise errors.MissingFileError(
      f'No data file {file}; {_similar_files(file)}.'
    )
  plain = file.stem if file.suffix in ('.gz', '.zst') else file.name
  ending = pathlib.PurePath(plain).suffix.removeprefix('.')
  if ending not in _READERS:
    raise errors.UserError(
      f'{file}: the name must end in .{", .".join(_READERS)}, or in one of '
      'these and .gz or .zst.'
    )
  return _READERS[ending](file)


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
    arrow = require('pyarrow', needed_for=file)
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
    raise errors.UserError(f'{file}:{number}: not UTF-8: {error}.') from error
  except (EOFError, OSError, zlib.error) as error:
    raise errors.UserError(
      f'{file}:{number + 1}: damaged or truncated: {error}.'
    ) from error


def _read_jsonl(file: pathlib.Path) -> Rows:
  for number, line in _lines(file):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise errors.UserError(f'{file}:{number}: not JSON: {error}.') from error
    if not isinstance(row, dict):
      raise errors.UserError(
        f'{file}:{number}: not a JSON object: {line[:40]!r}.'
      )
    yield f'{file}:{number}', row


def read_json(file: pathlib.Path) -> list:
  """A list; some files of this ending are one object a line."""
  lines = list(_lines(file))
  if any(line.strip().startswith('[') for _, line in lines[:1]):
    try:
      return json.loads(''.join(line for _, line in lines))
    except json.JSONDecodeError as error:
      raise errors.UserError(
        f'{file}:{error.lineno}: not JSON: {error}.'
      ) from error
  return [row for _, row in _read_jsonl(file)]


def _read_json(file: pathlib.Path) -> Rows:
  for number, row in enumerate(read_json(file), 1):
    if not isinstance(row, dict):
      raise errors.UserError(f'{file}: item {number}: not a JSON object.')
    yield f'{file}: item {number}', row


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
      raise errors.UserError(f'{origin}: {error}.') from error
    if header is None:
      header = values
    elif values and len(values) != len(header):
      raise errors.UserError(
        f'{origin}: {len(values)} columns, but the header has {len(header)}.'
      )
    elif values:
      yield origin, dict(zip(header, values, strict=True))


def _read_parquet(file: pathlib.Path) -> Rows:
  parquet = require('pyarrow.parquet', needed_for=file)
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
    raise errors.UserError(f'{file}: damaged or truncated: {error}.') from error


def _read_pgn(file: pathlib.Path) -> Rows:
  """Games: their headers, and `moves` in UCI."""
  pgn = require('chess.pgn', needed_for=file)
  text = io.StringIO(''.join(line for _, line in _lines(file)))
  for number in itertools.count(1):
    game = pgn.read_game(text)
    if game is None:
      return
    origin = f'{file}: game {number}'
    if game.errors:
      raise errors.UserError(f'{origin}: {game.errors[0]}.')
    moves = ' '.join(move.uci() for move in game.mainline_moves())
    yield origin, {**game.headers, 'moves': moves}


_READERS = {
  'jsonl': _read_jsonl,
  'json': _read_json,
  'csv': _read_csv,
  'parquet': _read_parquet,
  'pgn': _read_pgn,
}


def require(module: str, *, needed_for: str | pathlib.Path):
  """An optional module; raises ImportError with the command to install it."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    package = error.name.replace('_', '-')
    raise errors.MissingPackageError(
      f'{needed_for} needs a package that is not installed: '
      f'pip install {package}.'
    ) from error
