"""Model fields of a config to a network, a tokenizer and parameters."""

import dataclasses
import functools
import pathlib
from typing import Any, Callable, NamedTuple

import jax
import numpy as np

from w2s_jax import assets
from w2s_jax import heads
from w2s_jax import pretrained
from w2s_jax import sharding
from w2s_jax import tokenizers
from w2s_jax import transformer


class Model(NamedTuple):
  name: str
  network: Any  # one of heads.py
  tokenizer: Any
  init: Callable  # init(mesh, seed) -> params, placed on the mesh
  identity: dict  # all that decides the initial parameters, for stage keys
  num_parameters: int


def build(
  *,
  name,
  weights,
  num_layers,
  head_init,
  head_tokens,
  dropout,
  dtype,
  inputs,
  num_classes,
):
  """Model of a config's `models`.

  Args:
    name: shown in tables and folder names.
    weights: 'asset:NAME', a Hugging Face folder, or 'random:PRESET'.
    num_layers: keeps the first so many layers of the weights, -1 all; with 0
      the model is a bag of token embeddings.
    head_init: 'zero', or 'token_rows': the embeddings of `head_tokens`, one
      token a class (paper appendix A.1). A board model brings its own head,
      and a model that writes has none.
    dropout: rate while training. dtype: of the trunk's computation.
    inputs: of the task, 'text' or 'position'. num_classes: of the task.

  Raises:
    ValueError, FileNotFoundError: a field does not fit; the field is named.
  """
  kind, _, rest = weights.partition(':')
  folder = None
  if kind == 'random':
    if rest not in transformer.PRESETS:
      raise ValueError(
        f'weights=random:{rest}: the presets are '
        f'{", ".join(sorted(transformer.PRESETS))}.'
      )
    architecture, source = transformer.PRESETS[rest], weights
  else:
    folder = assets.path(rest) if kind == 'asset' else pathlib.Path(weights)
    architecture = pretrained.read_config(folder)
    source = pretrained.fingerprint(folder)
  if not -1 <= num_layers <= architecture.num_layers:
    raise ValueError(
      f'{name}: num_layers={num_layers}, but {weights} has '
      f'{architecture.num_layers} layers; -1 keeps all.'
    )
  if num_layers == -1:
    num_layers = architecture.num_layers
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"{name}: dtype={dtype!r}: use 'float32' or 'bfloat16'.")
  architecture = dataclasses.replace(
    architecture,
    num_layers=num_layers,
    dropout=dropout,
    dtype=dtype,
  )
  network = heads.choose(inputs, architecture, num_classes)
  tokenizer = _tokenizer(folder, architecture, inputs)
  head_ids = _head_ids(tokenizer, head_init, head_tokens, num_classes)

  def init(mesh, seed):
    if folder is None:
      params = _random(network, mesh)(jax.random.key(seed))
    else:
      params = _from_folder(folder, network, mesh)
    if head_ids:
      params = jax.jit(heads.head_from_token_rows, static_argnums=1)(
        params, tuple(head_ids)
      )
    return params

  identity = {
    'weights': source,
    'architecture': dataclasses.asdict(architecture),
    'head': type(network).__name__,
    'num_classes': num_classes,
    'head_ids': head_ids,
  }
  shapes = jax.tree.leaves(heads.parameter_shapes(network))
  num_parameters = sum(x.size for x in shapes)
  return Model(name, network, tokenizer, init, identity, num_parameters)


@functools.lru_cache(maxsize=4)
def _random(network, mesh):
  """Jitted key -> parameters; compiled once for all stages and seeds."""

  def params(key):
    return network.init(key, *heads.dummy_inputs(network))['params']

  place = sharding.tree_sharding(mesh, heads.parameter_shapes(network))
  return jax.jit(params, out_shardings=place)


def _from_folder(folder, network, mesh):
  def place(path, array):
    return sharding.place_parameter(mesh, path, array)

  layers = network.config.num_layers
  _, trunk = pretrained.load(folder, num_layers=layers, place=place)
  params = {'transformer': trunk, **pretrained.load_head(folder, place=place)}
  shapes = heads.parameter_shapes(network)
  if 'head' in shapes:  # of a classifier: starts at zero
    zeros_DxC = np.zeros(shapes['head']['kernel'].shape, np.float32)
    params['head'] = {'kernel': place('head/kernel', zeros_DxC)}
  return params


def _tokenizer(folder, architecture, inputs):
  if architecture.reads == 'board':
    return tokenizers.Board()
  if folder is not None:
    return tokenizers.load(folder)
  if inputs == 'position':
    return tokenizers.Characters()
  return tokenizers.word_hash(architecture.vocab_size)


def _head_ids(tokenizer, head_init, head_tokens, num_classes):
  if head_init == 'zero':
    return []
  if head_init != 'token_rows':
    raise ValueError(f"head_init={head_init!r} must be 'zero' or 'token_rows'.")
  if len(head_tokens) != num_classes:
    raise ValueError(
      f'head_tokens={tuple(head_tokens)} must name one token for each of the '
      f'{num_classes} classes.'
    )
  return [tokenizer.token_id(token) for token in head_tokens]
