"""Model fields of a config to a network, a tokenizer and parameters."""

import dataclasses
import functools
import pathlib
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import assets
from w2s_jax import pretrained
from w2s_jax import sharding
from w2s_jax import tokenizers
from w2s_jax import transformer


class Model(NamedTuple):
  name: str
  network: transformer.Classifier
  tokenizer: Any
  init: Callable  # init(mesh, seed) -> params, placed on the mesh
  identity: dict  # all that decides the initial parameters, for stage keys


def build(
  *,
  name,
  weights,
  num_layers,
  head_init,
  head_tokens,
  dropout,
  dtype,
  num_classes,
):
  """Model of a config's `weak` or `strong`.

  Args:
    name: shown in tables and folder names.
    weights: 'asset:NAME', a Hugging Face folder, or 'random:PRESET'.
    num_layers: keeps the first so many layers of the weights, -1 all; with 0
      the model is a bag of token embeddings.
    head_init: 'zero', or 'token_rows': the embeddings of `head_tokens`, one
      token a class (paper appendix A.1).
    dropout: rate while training. dtype: of the trunk's computation.

  Raises:
    ValueError, FileNotFoundError: a field does not fit; the field is named.
  """
  kind, _, rest = weights.partition(':')
  if kind == 'random':
    architecture, tokenizer, load, source = _random(rest)
  else:
    folder = assets.path(rest) if kind == 'asset' else pathlib.Path(weights)
    architecture, tokenizer, load, source = _from_folder(folder)
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
  network = transformer.Classifier(architecture, num_classes)
  head_ids = _head_ids(tokenizer, head_init, head_tokens, num_classes)

  def init(mesh, seed):
    params = {
      'transformer': load(network, mesh, seed),
      'head': {
        'kernel': sharding.place_parameter(
          mesh,
          'head/kernel',
          np.zeros((architecture.embed_dim, num_classes), np.float32),
        )
      },
    }
    if head_ids:
      params = jax.jit(transformer.head_from_token_rows, static_argnums=1)(
        params, tuple(head_ids)
      )
    return params

  identity = {
    'weights': source,
    'architecture': dataclasses.asdict(architecture),
    'num_classes': num_classes,
    'head': head_ids,
  }
  return Model(name, network, tokenizer, init, identity)


def _random(preset):
  if preset not in transformer.PRESETS:
    raise ValueError(
      f'weights=random:{preset}: the presets are '
      f'{", ".join(sorted(transformer.PRESETS))}.'
    )
  architecture = transformer.PRESETS[preset]

  def load(network, mesh, seed):
    return _random_trunk(network, mesh)(jax.random.key(seed))

  tokenizer = tokenizers.word_hash(architecture.vocab_size)
  return architecture, tokenizer, load, f'random:{preset}'


@functools.lru_cache(maxsize=4)
def _random_trunk(network, mesh):
  """Jitted key -> parameters; compiled once for all stages and seeds."""

  def trunk(key):
    one_row = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    return network.init(key, *one_row)['params']['transformer']

  shapes = jax.eval_shape(trunk, jax.random.key(0))
  return jax.jit(trunk, out_shardings=sharding.tree_sharding(mesh, shapes))


def _from_folder(folder):
  architecture = pretrained.read_config(folder)

  def load(network, mesh, seed):
    del seed
    _, trunk = pretrained.load(
      folder,
      num_layers=network.config.num_layers,
      place=lambda path, array: sharding.place_parameter(mesh, path, array),
    )
    return trunk

  source = pretrained.fingerprint(folder)
  return architecture, tokenizers.load(folder), load, source


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
