"""Reads rows of files: .jsonl, .json, .csv, .parquet, .pgn; plain, .gz or .zst.

Every row has an origin for messages, such as 'train.jsonl.gz:17'.
"""

from collections.abc import Iterable
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
from w2s_jax.tasks import cells

# As long a text as from the other formats; it is a setting of the process.
csv.field_size_limit(cells.MAX_CHARACTERS)

Rows = Iterator[tuple[str, dict]]


def split_names(name: str) -> tuple[str, ...] | None:
  """Returns the splits of a folder or `{split}` path; None for one file."""
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
  """Returns a path with `{split}` in it, made up for a folder.

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


def read(name: str, split: str, wanted: Iterator[bool] | None = None) -> Rows:
  """Yields (origin, row) for each row of a file; `{split}` in it is replaced.

  Args:
    wanted: as in sources.read.

  Raises:
    UserError: unknown ending, or a damaged file or row.
    MissingFileError: no such file; names files with similar names.
    MissingPackageError: the ending needs a package that is not installed.
  """
  file, ending = _file(name, split)
  if not file.is_file():
    what = 'data file' if file.suffix else 'file or folder'
    raise errors.MissingFileError(f'No {what} {file}; {_similar_files(file)}.')
  if ending not in _READERS:
    raise errors.UserError(
      f'{file}: the name must end in .{", .".join(_READERS)}, or in one of '
      'these and .gz or .zst.'
    )
  if wanted is None:
    return _READERS[ending](file)
  if ending == 'csv':
    return _read_csv(file, wanted)
  return only(_READERS[ending](file), wanted)


def _file(name: str, split: str) -> tuple[pathlib.Path, str]:
  """Returns the file of a split, and its ending without .gz or .zst."""
  file = pathlib.Path(_pattern(name).replace('{split}', split))
  plain = file.stem if file.suffix in ('.gz', '.zst') else file.name
  return file, pathlib.PurePath(plain).suffix.removeprefix('.')


def csv_bytes(name: str, split: str) -> int:
  """Returns the size of a file that is CSV, else 0."""
  file, ending = _file(name, split)
  return file.stat().st_size if ending == 'csv' and file.is_file() else 0


def only(rows: Rows, wanted: Iterator[bool]) -> Rows:
  """Yields None in place of each row that is not wanted."""
  for found in rows:
    yield found if next(wanted, True) else None


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
  """Yields numbered lines; raises UserError with the line that is damaged."""
  number = 0
  try:
    with _open(file) as stream:
      for number, line in enumerate(stream, 1):
        yield number, line.decode() if number > 1 else line.decode('utf-8-sig')
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
    row = _parse_json(line, file, number)
    if not isinstance(row, dict):
      raise errors.UserError(
        f'{file}:{number}: not a JSON object: {cells.short(line)}.'
      )
    yield f'{file}:{number}', row


def _parse_json(text: str, file: pathlib.Path, first_line: int):
  """Parses a text that begins at a line; raises UserError with the bad line."""
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    line = error.lineno
    what = f'not JSON: {error.msg} at column {error.colno}'
  except RecursionError:
    line, what = _deepest_line(text), 'JSON is nested too deeply'
  except ValueError as error:  # a number of more than 4300 digits
    line, what = 1, f'not JSON: {error}'
  raise errors.UserError(f'{file}:{first_line + line - 1}: {what}.')


def _deepest_line(text: str) -> int:
  """Returns the line in which the brackets of a JSON text nest deepest."""
  depth = deepest = position = 0
  for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[][{}]', text):
    depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(match[0], 0)
    if depth > deepest:
      deepest, position = depth, match.start()
  return 1 + text.count('\n', 0, position)


def read_json(file: pathlib.Path) -> list:
  """Returns a list; some files of this ending have one object per line."""
  lines = list(_lines(file))
  if any(line.strip().startswith('[') for _, line in lines[:1]):
    return _parse_json(''.join(line for _, line in lines), file, 1)
  return [row for _, row in _read_jsonl(file)]


def _read_json(file: pathlib.Path) -> Rows:
  for number, row in enumerate(read_json(file), 1):
    if not isinstance(row, dict):
      raise errors.UserError(f'{file}: item {number}: not a JSON object.')
    yield f'{file}: item {number}', row


def _read_csv(file: pathlib.Path, wanted: Iterable[bool] = ()) -> Rows:
  name, lines, wanted = str(file), _lines(file), iter(wanted)
  header, begun = None, []
  reader = csv.reader(_and_more(begun, lines), strict=True)
  # A quoted field may span lines: the first one identifies the row.
  for first, line in lines:
    values, plain = None, line.removesuffix('\n').removesuffix('\r')
    if '"' in plain or '\r' in plain or len(plain) > cells.MAX_CHARACTERS:
      begun.append(line)
      try:
        values = next(reader)
      except csv.Error as error:
        raise errors.UserError(f'{name}:{first}: {error}.') from error
    elif header is None or not plain:
      values = plain.split(',') if plain else []
    if header is None:
      _check_columns(values, f'{name}:{first}')
      header = values
    elif values == []:
      continue
    elif not next(wanted, True):
      yield None
    else:
      # As csv.reader does, but faster: millions are read.
      values = values or plain.split(',')
      if len(values) != len(header):
        raise errors.UserError(
          f'{name}:{first}: {len(values)} columns, but the header has '
          f'{len(header)}.'
        )
      yield f'{name}:{first}', dict(zip(header, values))


def _and_more(begun: list[str], lines: Iterator) -> Iterator[str]:
  """Yields the line that `begun` holds, or the next one if it is empty.

  For one csv.reader of all rows that begin with a line in `begun`: a reader for
  each of them would take a third longer.
  """
  while True:
    line = begun.pop() if begun else next(lines, (0, None))[1]
    if line is None:
      return
    yield line


def _check_columns(names: list[str], origin: str) -> None:
  """Raises UserError for columns without a name or with the same name."""
  for position, name in enumerate(names, 1):
    if not name.strip():
      raise errors.UserError(
        f'{origin}: column {position} has no name; name or remove it.'
      )
    if name in names[: position - 1]:
      raise errors.UserError(
        f'{origin}: two columns are named {cells.short(name)}; rename or '
        'remove one.'
      )


def _read_parquet(file: pathlib.Path) -> Rows:
  arrow = require('pyarrow', needed_for=file)
  parquet = require('pyarrow.parquet', needed_for=file)
  number = 0
  try:
    with _open(file) as stream:
      table = parquet.ParquetFile(io.BytesIO(stream.read()))
    _check_columns(table.schema_arrow.names, f'{file}')
    for batch in table.iter_batches():
      for row in batch.to_pylist():
        number += 1
        yield f'{file}:{number}', row
  except errors.UserError:
    raise
  except (
    arrow.ArrowException,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
  ) as error:
    # The index of a parquet file is at its end, so a truncated one has no
    # readable rows at all.
    raise errors.UserError(
      f'{file}:{number + 1}: damaged or truncated: {_first_line(error)}.'
    ) from error


def _first_line(error: Exception) -> str:
  return cells.cut(str(error).strip().split('\n')[0].rstrip('.'))


def _read_pgn(file: pathlib.Path) -> Rows:
  """Yields games: their headers, and `moves` in UCI."""
  pgn = require('chess.pgn', needed_for=file)
  text = io.StringIO(''.join(line for _, line in _lines(file)))
  for number in itertools.count(1):
    game = pgn.read_game(text)
    if game is None:
      return
    origin = f'{file}: game {number}'
    if game.errors:
      raise errors.UserError(f'{origin}: {_first_line(game.errors[0])}.')
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
  """Imports an optional module.

  Raises:
    MissingPackageError: it is not installed; has the command to install it.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    package = error.name.replace('_', '-')
    raise errors.MissingPackageError(
      f'{needed_for} needs a package that is not installed: '
      f'pip install {package}.'
    ) from error
