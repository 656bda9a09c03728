"""Model folders (config.json, safetensors) to parameters.

Those of Hugging Face give the trunk; our own board models bring their head.

One strict table per family says where every stored tensor goes: a tensor that
no row takes, and a parameter that no tensor fills, are errors.
"""

import dataclasses
import hashlib
import json
import pathlib
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from w2s_jax import transformer
from w2s_jax.tasks import chess


def _as_is(array):
  return array


# Rows of a table: (regex of the stored name, path of the parameter, transform).
# A tensor that several rows match goes to each of them in part.
def _embedding(name, path):
  return ((rf'{name}\.weight', f'{path}/embedding', _as_is),)


def _norm(name, path):
  return (
    (rf'{name}\.(?:weight|gamma)', f'{path}/scale', _as_is),
    (rf'{name}\.(?:bias|beta)', f'{path}/bias', _as_is),
  )


def _linear(name, path, transform=np.transpose):
  """A torch Linear stores [out, in]."""
  return (
    (rf'{name}\.weight', f'{path}/kernel', transform),
    (rf'{name}\.bias', f'{path}/bias', _as_is),
  )


def _conv1d(name, path):
  """A GPT-2 Conv1D stores [in, out]."""
  return _linear(name, path, _as_is)


def _third(index):
  return lambda array: np.array_split(array, 3, axis=-1)[index]


def _fused_qkv(name, path):
  """A GPT-2 c_attn stores query, key and value side by side."""
  return tuple(
    (rf'{name}\.{stored}', f'{path}/{part}/{leaf}', _third(index))
    for index, part in enumerate(('query', 'key', 'value'))
    for stored, leaf in (('weight', 'kernel'), ('bias', 'bias'))
  )


@dataclasses.dataclass(frozen=True)
class _Family:
  prefix: str  # of every name, where the trunk sits inside a larger model
  table: tuple
  ignored: dict[str, str]  # regex of a name that needs no place -> why
  sizes: dict[str, str]  # our config field -> field of config.json
  activation: str  # its field of config.json
  fixed: dict  # our config fields that hold for the whole family
  only: dict  # field of config.json -> the one value that is implemented


_BERT = _Family(
  prefix='bert.',
  table=(
    *_embedding(r'embeddings\.word_embeddings', 'token_embed'),
    *_embedding(r'embeddings\.position_embeddings', 'position_embed'),
    *_embedding(r'embeddings\.token_type_embeddings', 'type_embed'),
    *_norm(r'embeddings\.LayerNorm', 'embed_norm'),
    *_linear(
      r'encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)',
      r'layer_\1/attention/\2',
    ),
    *_linear(
      r'encoder\.layer\.(\d+)\.attention\.output\.dense',
      r'layer_\1/attention/out',
    ),
    *_norm(
      r'encoder\.layer\.(\d+)\.attention\.output\.LayerNorm',
      r'layer_\1/attention_norm',
    ),
    *_linear(r'encoder\.layer\.(\d+)\.intermediate\.dense', r'layer_\1/mlp/up'),
    *_linear(r'encoder\.layer\.(\d+)\.output\.dense', r'layer_\1/mlp/down'),
    *_norm(r'encoder\.layer\.(\d+)\.output\.LayerNorm', r'layer_\1/mlp_norm'),
  ),
  ignored={
    r'embeddings\.position_ids': 'a constant',
    r'pooler\.dense\.(weight|bias)': 'mean pooling replaces it',
    r'cls\..*': 'pretraining heads; ours replaces them',
  },
  sizes=dict(
    vocab_size='vocab_size',
    max_positions='max_position_embeddings',
    embed_dim='hidden_size',
    num_layers='num_hidden_layers',
    num_heads='num_attention_heads',
    mlp_dim='intermediate_size',
    norm_eps='layer_norm_eps',
    type_vocab_size='type_vocab_size',
  ),
  activation='hidden_act',
  fixed=dict(causal=False, norm='post', pooling='mean'),
  only=dict(
    position_embedding_type='absolute',
    is_decoder=False,
    add_cross_attention=False,
  ),
)

_GPT2 = _Family(
  prefix='transformer.',
  table=(
    *_embedding('wte', 'token_embed'),
    *_embedding('wpe', 'position_embed'),
    *_norm(r'h\.(\d+)\.ln_1', r'layer_\1/attention_norm'),
    *_fused_qkv(r'h\.(\d+)\.attn\.c_attn', r'layer_\1/attention'),
    *_conv1d(r'h\.(\d+)\.attn\.c_proj', r'layer_\1/attention/out'),
    *_norm(r'h\.(\d+)\.ln_2', r'layer_\1/mlp_norm'),
    *_conv1d(r'h\.(\d+)\.mlp\.c_fc', r'layer_\1/mlp/up'),
    *_conv1d(r'h\.(\d+)\.mlp\.c_proj', r'layer_\1/mlp/down'),
    *_norm('ln_f', 'final_norm'),
  ),
  ignored={
    r'h\.\d+\.attn\.(bias|masked_bias)': 'the causal mask, a constant',
    r'lm_head\.weight': 'tied to the token embedding',
  },
  sizes=dict(
    vocab_size='vocab_size',
    max_positions='n_positions',
    embed_dim='n_embd',
    num_layers='n_layer',
    num_heads='n_head',
    mlp_dim='n_inner',
    norm_eps='layer_norm_epsilon',
  ),
  activation='activation_function',
  fixed=dict(causal=True, norm='pre', pooling='last'),
  only=dict(
    scale_attn_weights=True,
    scale_attn_by_inverse_layer_idx=False,
    add_cross_attention=False,
  ),
)

# Our own, written by `save_board`: names are the paths of the parameters.
_BOARD = _Family(
  prefix='transformer/',
  table=((r'(.+)', r'\1', _as_is),),
  ignored={r'head_.+': 'read by load_head'},
  sizes={
    name: name
    for name in (
      *('vocab_size', 'embed_dim', 'num_layers', 'num_heads', 'mlp_dim'),
      'norm_eps',
    )
  },
  activation='activation',
  fixed=dict(
    max_positions=0, causal=False, norm='pre', pooling='mean', reads='board'
  ),
  only=dict(vocab_size=chess.VOCAB_SIZE),
)

_FAMILIES = {'bert': _BERT, 'gpt2': _GPT2, 'w2s_board': _BOARD}
_ACTIVATIONS = {
  'relu': 'relu',
  'gelu': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
}


def _read_json(path):
  if not path.exists():
    raise FileNotFoundError(
      f'{path} not found: a model folder needs config.json and '
      'model.safetensors (or its shards with model.safetensors.index.json).'
    )
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}).') from None


def _read_config(folder):
  path = pathlib.Path(folder) / 'config.json'
  stored = _read_json(path)

  def check(field, value, supported):
    if value not in supported:
      raise ValueError(
        f'{path}: {field} = {value!r} is not supported; '
        f'supported: {", ".join(map(repr, supported))}.'
      )

  check('model_type', stored.get('model_type'), list(_FAMILIES))
  family = _FAMILIES[stored['model_type']]
  for field, value in family.only.items():
    check(field, stored.get(field, value), [value])
  activation = stored.get(family.activation)
  check(family.activation, activation, list(_ACTIVATIONS))
  sizes = {ours: stored.get(theirs) for ours, theirs in family.sizes.items()}
  if family is _GPT2 and sizes['mlp_dim'] is None:
    sizes['mlp_dim'] = 4 * stored['n_embd']
  absent = [family.sizes[k] for k, size in sizes.items() if size is None]
  if absent:
    raise ValueError(f'{path} lacks {", ".join(absent)}.')
  config = transformer.TransformerConfig(
    activation=_ACTIVATIONS[activation], **sizes, **family.fixed
  )
  return config, family


def read_config(folder):
  """TransformerConfig of a model folder.

  Dropout is off whatever the file says, as it is everywhere by default.

  Raises:
    FileNotFoundError: no config.json.
    ValueError: a model or a field value that is not implemented.
  """
  config, _ = _read_config(folder)
  return config


def parameter_shapes(config):
  """{path: shape} of the trunk's parameters."""
  model = transformer.Transformer(config)
  one_row = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
  variables = jax.eval_shape(model.init, jax.random.key(0), *one_row)
  flat = flax.traverse_util.flatten_dict(variables['params'], sep='/')
  return {path: x.shape for path, x in flat.items()}


def _weight_files(folder):
  index = folder / 'model.safetensors.index.json'
  names = {'model.safetensors'}
  if index.exists():
    names = set(_read_json(index)['weight_map'].values())
  for name in names:
    if not (folder / name).exists():
      raise FileNotFoundError(
        f'{folder / name} not found; weights are read from safetensors only.'
      )
  return [folder / name for name in sorted(names)]


def fingerprint(folder):
  """sha256 over what is in the files of a model folder, wherever it lies.

  Raises:
    FileNotFoundError: no weights.
  """
  folder = pathlib.Path(folder)
  digest = hashlib.sha256()
  others = [folder / 'config.json', folder / 'tokenizer.json']
  for path in [*filter(pathlib.Path.exists, others), *_weight_files(folder)]:
    with open(path, 'rb') as file:
      digest.update(hashlib.file_digest(file, 'sha256').digest())
  return digest.hexdigest()


def _tensors(folder):
  """Yields (file, name, function that reads the tensor)."""
  for file in _weight_files(folder):
    try:
      with safetensors.safe_open(file, framework='numpy') as tensors:
        for name in tensors.keys():
          yield file, name, tensors.get_tensor
    except safetensors.SafetensorError as error:
      raise ValueError(
        f'{file} is damaged or incomplete ({error}); fetch it again.'
      ) from None


def _targets(family, name):
  """[(path, transform)] of a stored tensor, or None where it is ignored."""
  name = name.removeprefix(family.prefix)
  if any(re.fullmatch(regex, name) for regex in family.ignored):
    return None
  matches = ((re.fullmatch(row[0], name), row) for row in family.table)
  return [(m.expand(path), f) for m, (_, path, f) in matches if m]


def load(folder, *, num_layers=None, place=None):
  """Reads a model folder: (TransformerConfig, trunk parameters in float32).

  Args:
    folder: with config.json and safetensors of a bert or gpt2 model.
    num_layers: keep only the first layers, which makes a ladder of sizes out
      of one set of weights; all by default.
    place: (path, array) -> jax.Array; puts each tensor on its devices as it is
      read, so that the whole model never lies on one of them.

  Raises:
    FileNotFoundError: a file of the folder is missing.
    ValueError: the folder and the table disagree in any tensor or shape, a
      file is damaged, or the model is not implemented or has too few layers.
  """
  folder = pathlib.Path(folder)
  full_config, family = _read_config(folder)
  num_layers = full_config.num_layers if num_layers is None else num_layers
  if not 0 <= num_layers <= full_config.num_layers:
    raise ValueError(
      f'num_layers={num_layers}, but {folder} has 0 to '
      f'{full_config.num_layers} layers to take.'
    )
  config = dataclasses.replace(full_config, num_layers=num_layers)
  place = place or (lambda path, array: jnp.asarray(array))
  full_shapes, shapes = parameter_shapes(full_config), parameter_shapes(config)
  params, unused = {}, []
  for file, name, read in _tensors(folder):
    targets = _targets(family, name)
    if targets is None:
      continue
    if not any(path in full_shapes for path, _ in targets):
      unused.append(name)
    for path, transform in targets:
      if path not in shapes:  # a layer above the cut
        continue
      array = transform(read(name)).astype(np.float32)
      if array.shape != shapes[path]:
        raise ValueError(
          f'{file}: {name} gives {path} the shape {array.shape}; config.json '
          f'asks for {shapes[path]}.'
        )
      params[path] = place(path, array)
  unfilled = sorted(set(shapes) - set(params))
  if unused or unfilled:
    raise ValueError(
      f'{folder}: tensors that have no place: {unused or "none"}; parameters '
      f'that no tensor fills: {unfilled or "none"}.'
    )
  return config, flax.traverse_util.unflatten_dict(params, sep='/')


def load_head(folder, *, place):
  """Parameters of the head that a board model brings; {} of other folders."""
  flat = {
    name: place(name, read(name).astype(np.float32))
    for _, name, read in _tensors(pathlib.Path(folder))
    if name.startswith('head_')
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def save_board(folder, config, params):
  """Writes a board model, in float16, as a folder that `load` reads."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  sizes = {name: getattr(config, name) for name in _BOARD.sizes}
  fields = {'model_type': 'w2s_board', 'activation': config.activation, **sizes}
  (folder / 'config.json').write_text(json.dumps(fields, indent=2) + '\n')
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  tensors = {path: np.asarray(x, np.float16) for path, x in flat.items()}
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
