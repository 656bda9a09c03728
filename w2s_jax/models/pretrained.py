"""Loads and saves model folders: config.json and safetensors.

Folders of Hugging Face hold a trunk; our own board models hold their head, too.
The tables of hf_families.py are strict: a tensor without a row and a parameter
without a tensor are errors.
"""

from concurrent import futures
import dataclasses
import hashlib
import json
import pathlib

from etils import epath
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from w2s_jax import adapt
from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.models import hf_config
from w2s_jax.models import hf_families
from w2s_jax.models import hf_tensors
from w2s_jax.models import stored_tensors
from w2s_jax.models import transformer

_READERS = 8  # files that are hashed at a time


def _read_json(path):
  if not path.exists():
    raise errors.MissingFileError(
      f'{path} not found: a model folder needs config.json and '
      'model.safetensors (or its shards with model.safetensors.index.json).'
    )
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON ({error}).') from None


def _read_config(folder):
  path = epath.Path(folder) / 'config.json'
  return hf_config.read(_read_json(path), path)


def read_config(folder):
  """Returns the TransformerConfig of a model folder.

  Dropout is 0 whatever the file has; the model's config field sets it.

  Raises:
    FileNotFoundError: no config.json.
    ValueError: a model or a field value that is not implemented.
  """
  config, _ = _read_config(folder)
  return config


def parameter_shapes(config):
  """Returns {path: shape} of the trunk's parameters."""
  nested = transformer.parameter_shapes(config)
  flat = flax.traverse_util.flatten_dict(nested, sep='/')
  return {path: x.shape for path, x in flat.items()}


def _table(family, config):
  if family.rows:
    return hf_families.table(family, config)
  return {
    path: hf_tensors.Row(path, (path,)) for path in parameter_shapes(config)
  }


def _weight_files(folder):
  index = folder / 'model.safetensors.index.json'
  names = {'model.safetensors'}
  if index.exists():
    names = set(_read_json(index)['weight_map'].values())
  for name in names:
    if not (folder / name).exists():
      raise errors.MissingFileError(
        f'{folder / name} not found; weights are read from safetensors only.'
      )
  return [folder / name for name in sorted(names)]


def fingerprint(folder):
  """Returns the sha256 of the contents of a model folder, wherever it is.

  Raises:
    FileNotFoundError: no weights.
  """
  folder = epath.Path(folder)
  others = [folder / 'config.json', folder / 'tokenizer.json']
  files = [*(x for x in others if x.exists()), *_weight_files(folder)]
  with futures.ThreadPoolExecutor(_READERS) as pool:
    each = [bytes.fromhex(x) for x in pool.map(assets.digest, files)]
  return hashlib.sha256(b''.join(each)).hexdigest()


def _tensors(folder):
  """Yields the stored tensors of a folder, none of them read."""
  for file in _weight_files(epath.Path(folder)):
    yield from stored_tensors.read(file)


class _Parameter:
  """A parameter that is one tensor; indexing it reads that part of the file."""

  def __init__(self, tensor, layout, shape, dtype):
    self.shape, self.dtype = shape, jnp.dtype(dtype)
    self._tensor, self._layout = tensor, layout

  def __getitem__(self, index):
    if index is Ellipsis:
      index = (slice(None),) * len(self.shape)
    part = self._layout.part(self._tensor, index)
    # A copy: JAX may share the memory of an array, here that of the file.
    return np.array(part, self.dtype, order='C')


def load(folder, *, num_layers=None, param_dtype='float32', place=None):
  """Loads a model folder: (TransformerConfig, trunk parameters).

  Each tensor is placed on its devices before the next is read, so the host
  holds one at a time, and of it the parts that `place` asks for. Tensors that
  hold several parameters, as in GPT-2 and GPT-NeoX, are read whole.

  Args:
    folder: with config.json and safetensors, of one of hf_families.FAMILIES; on
      a disk or in a bucket.
    num_layers: keeps only the first layers, for a ladder of sizes from one set
      of weights; None keeps all.
    param_dtype: of the parameters, whatever dtype is stored.
    place: (path, array) -> jax.Array; puts each parameter on its devices.
      `array` has a shape and a dtype, and indexing it with slices reads a part.

  Raises:
    FileNotFoundError: a file of the folder is missing.
    ValueError: the folder and the table disagree in any tensor or shape, a
      file is damaged, or the model is not implemented or has too few layers.
  """
  folder = epath.Path(folder)
  full_config, family = _read_config(folder)
  full_config = dataclasses.replace(full_config, param_dtype=param_dtype)
  num_layers = full_config.num_layers if num_layers is None else num_layers
  if not 0 <= num_layers <= full_config.num_layers:
    raise errors.UserError(
      f'num_layers={num_layers}, but {folder} has 0 to '
      f'{full_config.num_layers} layers to take.'
    )
  config = dataclasses.replace(full_config, num_layers=num_layers)
  place = place or (lambda path, array: jnp.asarray(array[...]))
  table, shapes = _table(family, full_config), parameter_shapes(config)
  params, unused = {}, []
  for tensor in _tensors(folder):
    name = hf_families.plain_name(family, tensor.name)
    if name is None or (config.tied and name == f'{family.output}.weight'):
      continue
    if name not in table:
      unused.append(tensor.name)
      continue
    row = table[name]
    if row.paths[0] not in shapes:  # a layer above the cut
      continue
    for path, array in _parameters(row, tensor, config, shapes):
      params[path] = place(path, array)
  unfilled = sorted(set(shapes) - set(params))
  if unused or unfilled:
    raise errors.UserError(
      f'{folder}: unexpected tensors: {unused or "none"}; '
      f'parameters without a tensor: {unfilled or "none"}.'
    )
  return config, flax.traverse_util.unflatten_dict(params, sep='/')


def _parameters(row, tensor, config, shapes):
  """Returns (path, parameter) pairs of a stored tensor; checks their shapes."""
  expected = [shapes[path] for path in row.paths]
  unread = np.broadcast_to(np.int8(0), tensor.shape)  # needs no memory
  try:
    found = [part.shape for part in row.layout.split(unread, config)]
  except ValueError:  # it does not divide
    found = []
  if found != expected:
    raise errors.UserError(
      f'{tensor.file}: {tensor.name} has the shape {tensor.shape}; by '
      f'config.json it holds {", ".join(row.paths)} of shape '
      f'{", ".join(map(str, expected))}.'
    )
  dtype = jnp.dtype(config.param_dtype)
  if row.layout.part is not None:
    array = _Parameter(tensor, row.layout, expected[0], dtype)
    return [(row.paths[0], array)]
  parts = row.layout.split(tensor[...], config)
  return [(path, np.array(x, dtype)) for path, x in zip(row.paths, parts)]


def load_head(folder, *, place):
  """Returns the parameters of a board model's head; {} for other folders."""
  flat = {
    x.name: place(x.name, _Parameter(x, hf_tensors.AS_IS, x.shape, np.float32))
    for x in _tensors(folder)
    if x.name.startswith('head_')
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def save(
  folder,
  config,
  params,
  *,
  tokenizer=None,
  shard_bytes=5 * 10**9,
  fields=None,
  head=None,
):
  """Saves a trunk as a folder that `load` and `transformers` open.

  Args:
    folder: created if absent.
    config: of the trunk.
    params: of the trunk, stored in their own dtype; factors of LoRA are added
      to their kernels.
    tokenizer: saved in the same folder.
    shard_bytes: larger weights are split into several files with an index; the
      host holds one at a time.
    fields: of config.json, in place of those that the trunk has or beside them.
    head: {stored name: array} of tensors beside those of the trunk.

  Raises:
    ValueError: no family of hf_families.FAMILIES has such models, or the
      parameters are not those of the config.
  """
  family, stored = hf_config.write(config)
  table = _table(family, config)
  flat = flax.traverse_util.flatten_dict(adapt.fold(params), sep='/')
  paths = {path for row in table.values() for path in row.paths}
  if unmatched := sorted(paths ^ set(flat)):
    raise errors.UserError(
      f'Parameters of config or params but not of both: {unmatched}.'
    )
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  stored['torch_dtype'] = str(next(iter(flat.values())).dtype)
  if tokenizer is not None:
    tokenizer.save(folder)
    stored['eos_token_id'] = tokenizer.end_id()
  stored |= fields or {}
  (folder / 'config.json').write_text(json.dumps(stored, indent=2) + '\n')
  _write_weights(folder, family, config, table, flat, shard_bytes, head or {})


def _write_weights(folder, family, config, table, flat, shard_bytes, head):
  shards = _shards(table, flat, shard_bytes)
  weight_map = {}
  for i, names in enumerate(shards):
    file = 'model.safetensors'
    if len(shards) > 1:
      file = f'model-{i + 1:05}-of-{len(shards):05}.safetensors'
    tensors = {}
    for name in names:
      row = table[name]
      parts = [np.asarray(flat[path]) for path in row.paths]
      is_output = name == f'{family.output}.weight'
      stored_name = name if is_output else family.prefix + name
      tensors[stored_name] = np.ascontiguousarray(
        row.layout.join(parts, config)
      )
      weight_map[stored_name] = file
    if i == len(shards) - 1:
      tensors |= head
      weight_map |= dict.fromkeys(head, file)
    # Older versions of `transformers` require the metadata.
    stored_tensors.save(folder / file, tensors, {'format': 'pt'})
  path = folder / 'model.safetensors.index.json'
  path.unlink(missing_ok=True)  # of an earlier save
  if len(shards) > 1:
    total = sum(x.nbytes for x in [*flat.values(), *head.values()])
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    path.write_text(json.dumps(index, indent=2) + '\n')


def _shards(table, flat, shard_bytes):
  """Splits stored names into lists of at most shard_bytes, if possible."""
  shards, size = [[]], 0
  for name, row in table.items():
    nbytes = sum(flat[path].nbytes for path in row.paths)
    if shards[-1] and size + nbytes > shard_bytes:
      shards.append([])
      size = 0
    shards[-1].append(name)
    size += nbytes
  return shards


def save_board(folder, config, params):
  """Saves a board model with its head, in float16, for `load`."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  _, fields = hf_config.write(config)
  (folder / 'config.json').write_text(json.dumps(fields, indent=2) + '\n')
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  tensors = {path: np.asarray(x, np.float16) for path, x in flat.items()}
  stored_tensors.save(folder / 'model.safetensors', tensors)
