"""Reads the rows of a task from its source.

A source is one string:

    file:PATH           .jsonl, .json, .csv, .parquet or .pgn; also .gz, .zst.
                        `{split}` in PATH becomes the name of the split; a
                        FOLDER/ stands for all its SPLIT.jsonl (or .csv, ...)
    asset:NAME/PATH     such a file inside a package of assets.py
    tfds:NAME/CONFIG    TensorFlow Datasets, read without TensorFlow; those of
                        tfds_builder.py are named tfds:w2s/NAME
    hf:ORG/NAME:CONFIG  the Hugging Face `datasets` library; FOLDER/ may stand
                        for CONFIG, and @REVISION follow NAME
    synthetic:          made-up reviews, for debugging and tests

Every row has an origin for messages, such as 'train.jsonl.gz:17'.
"""

from collections.abc import Iterator
import difflib
import os

from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.tasks import files
from w2s_jax.tasks import synthetic

Rows = Iterator[tuple[str, dict]]


def read(source: str, split: str, wanted: Iterator[bool] | None = None) -> Rows:
  """Yields (origin, row) for each row of a split.

  Args:
    wanted: whether each row is; None is yielded in place of those that are not.
      Others follow if it ends early.

  Raises:
    UserError: unknown kind of source, or a damaged file or row.
    MissingFileError: no such file; names files with similar names.
    MissingPackageError: the source needs a package that is not installed.
  """
  kind, _, name = source.partition(':')
  if kind not in READERS:
    close = difflib.get_close_matches(kind, READERS, n=1, cutoff=0)[0]
    raise errors.UserError(
      f'data.source = {source!r} is of unknown kind {kind!r}: did you mean '
      f'{close!r}? Kinds: {", ".join(f"{known}:" for known in READERS)}.'
    )
  if kind in ('file', 'asset'):
    return READERS[kind](name, split, wanted)
  rows = READERS[kind](name, split)
  return rows if wanted is None else files.only(rows, wanted)


def csv_bytes(source: str, split: str) -> int:
  """Returns the size of a source whose rows can be passed over fast, else 0."""
  kind, _, name = source.partition(':')
  if kind == 'asset':
    name = _asset_file(name)
  return files.csv_bytes(name, split) if kind in ('file', 'asset') else 0


def split_names(source: str) -> tuple[str, ...] | None:
  """Returns the names of a source's splits; None where it is a single pool.

  Raises:
    UserError, MissingFileError, MissingPackageError: as `read`.
  """
  kind, _, name = source.partition(':')
  if kind in ('tfds', 'hf'):
    return tuple((_open_tfds if kind == 'tfds' else _open_hf)(name))
  return files.split_names(name) if kind == 'file' else None


def _read_asset(
  name: str, split: str, wanted: Iterator[bool] | None = None
) -> Rows:
  return files.read(_asset_file(name), split, wanted)


def _asset_file(name: str) -> str:
  asset, _, inner = name.partition('/')
  return f'{assets.path(asset)}/{inner}'


def _read_tfds(name: str, split: str) -> Rows:
  rows = _one_split(_open_tfds(name), f'tfds:{name}', split)
  for number, row in enumerate(rows, 1):
    origin = f'tfds:{name}[{split}]:{number}'
    try:
      yield origin, _decode(row)
    except UnicodeDecodeError as error:
      raise errors.UserError(f'{origin}: not UTF-8: {error}.') from error


def _open_tfds(name: str) -> dict:
  """Returns rows that are already prepared, by split."""
  tfds = files.require('tensorflow_datasets', needed_for=f'tfds:{name}')
  try:
    return tfds.data_source(
      name,
      data_dir=os.environ.get('TFDS_DATA_DIR'),
      builder_kwargs={'file_format': 'array_record'},
    )
  except Exception as error:  # A dozen types, with pages of text.
    reason = str(error).strip().split('\n')[0].rstrip('.')
    how = '.'  # The caller adds how to prepare those of tfds_builder.py.
    if not name.startswith('w2s/'):
      how = (
        f'. Prepare it with `tfds build {name} --file_format=array_record`, '
        'which needs TensorFlow; the folder is $TFDS_DATA_DIR, else '
        '~/tensorflow_datasets.'
      )
    raise errors.UserError(
      f'tfds:{name} cannot be read: {reason}{how}'
    ) from error


def _one_split(splits: dict, source: str, split: str):
  if split not in splits:
    raise errors.UserError(
      f'{source} has no split {split!r}; there are {", ".join(splits)}.'
    )
  return splits[split]


def _decode(value):
  """Decodes bytes to str, at any depth."""
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, dict):
    return {key: _decode(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_decode(item) for item in value]
  return value


def _read_hf(name: str, split: str) -> Rows:
  rows = _one_split(_open_hf(name), f'hf:{name}', split)
  for number, row in enumerate(rows, 1):
    yield f'hf:{name}[{split}]:{number}', row


def _open_hf(name: str) -> dict:
  """Returns rows by split; those of the Hub are downloaded once."""
  datasets = files.require('datasets', needed_for=f'hf:{name}')
  path, _, part = name.partition(':')
  path, _, revision = path.partition('@')
  which = {'data_dir': part} if part.endswith('/') else {'name': part or None}
  try:
    return datasets.load_dataset(path, revision=revision or None, **which)
  except Exception as error:  # Hub, network, cache and file errors.
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise errors.UserError(f'hf:{name} cannot be read: {reason}.') from error


def _read_synthetic(name: str, split: str) -> Rows:
  del name, split  # There is one pool.
  for number, row in enumerate(synthetic.reviews(), 1):
    yield f'synthetic:{number}', row


READERS = {
  'file': files.read,
  'asset': _read_asset,
  'tfds': _read_tfds,
  'hf': _read_hf,
  'synthetic': _read_synthetic,
}
