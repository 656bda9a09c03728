"""Model fields of a config to a network, a tokenizer and parameters."""

import dataclasses
import functools
from typing import Any
from typing import Callable
from typing import NamedTuple

import jax
import numpy as np

from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import heads
from w2s_jax.models import model_folder
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers
from w2s_jax.models import transformer


class Model(NamedTuple):
  name: str
  network: Any  # one of heads.py
  tokenizer: Any
  init: Callable  # init(mesh, seed) -> params, placed on the mesh
  identity: dict  # all that decides what it computes at first, for stage keys
  weights: str  # as in the config; where the parameters came from
  num_parameters: int

  def starting_from(self, init, **identity):
    """The same model with other initial parameters, of another identity."""
    return self._replace(init=init, identity={**self.identity, **identity})


def build(
  *,
  name,
  weights,
  num_layers,
  head,
  head_init,
  head_tokens,
  prompt,
  dropout,
  dtype,
  param_dtype,
  remat,
  inputs,
  num_classes,
):
  """Model of a config's `models`.

  Args:
    name: shown in tables and folder names.
    weights: 'asset:NAME', 'hf:OWNER/NAME@REVISION', a Hugging Face folder, or
      'random:PRESET'.
    num_layers: keeps the first so many layers of the weights, -1 all; with 0
      the model is a bag of token embeddings.
    head: 'classify', a linear map of the pooled states, or 'verbalize': the
      next of `head_tokens`, one token a class, after `prompt` with the text.
    head_init: 'zero', or 'token_rows': the embeddings of `head_tokens` (paper
      appendix A.1). A board model brings its own head, and a model that writes
      has none.
    dropout: rate while training. dtype: of the trunk's computation.
    param_dtype: of the parameters. remat: computes activations twice to store
      fewer.
    inputs: of the task, 'text' or 'position'. num_classes: of the task.

  Raises:
    ValueError, FileNotFoundError: a field does not fit; the field is named.
  """
  folder = folder_of(weights)
  if folder is None:
    preset = weights.partition(':')[2]
    if preset not in transformer.PRESETS:
      raise errors.UserError(
        f'weights={weights}: the presets are '
        f'{", ".join(sorted(transformer.PRESETS))}.'
      )
    architecture, source = transformer.PRESETS[preset], weights
  else:
    architecture = pretrained.read_config(folder)
    source = pretrained.fingerprint(folder)
  if not -1 <= num_layers <= architecture.num_layers:
    raise errors.UserError(
      f'{name}: num_layers={num_layers}, but {weights} has '
      f'{architecture.num_layers} layers; -1 keeps all.'
    )
  if num_layers == -1:
    num_layers = architecture.num_layers
  for field, value in {'dtype': dtype, 'param_dtype': param_dtype}.items():
    if value not in ('float32', 'bfloat16'):
      raise errors.UserError(
        f"{name}: {field}={value!r}: use 'float32' or 'bfloat16'."
      )
  architecture = dataclasses.replace(
    architecture,
    num_layers=num_layers,
    dropout=dropout,
    dtype=dtype,
    param_dtype=param_dtype,
    remat=remat,
  )
  tokenizer = _tokenizer(folder, architecture, inputs)
  if head not in ('classify', 'verbalize'):
    raise errors.UserError(f"head={head!r} must be 'classify' or 'verbalize'.")
  verbalizes = head == 'verbalize'
  head_ids = []
  if verbalizes or head_init != 'zero':
    head_ids = _head_ids(tokenizer, head_init, head_tokens, num_classes)
  network = heads.choose(
    inputs,
    architecture,
    num_classes,
    label_ids=head_ids if verbalizes else None,
  )
  identity = {
    'weights': source,
    'architecture': dataclasses.asdict(architecture),
    'head': type(network).__name__,
    'num_classes': num_classes,
    'head_ids': head_ids,
  }
  if verbalizes:
    tokenizer = tokenizers.Prompted(tokenizer, prompt)
    identity['prompt'] = prompt
  shapes = jax.tree.leaves(heads.parameter_shapes(network))
  return Model(
    name=name,
    network=network,
    tokenizer=tokenizer,
    init=functools.partial(initial, network, folder, head_ids),
    identity=identity,
    weights=weights,
    num_parameters=sum(x.size for x in shapes),
  )


def folder_of(weights):
  """Where the `weights` of a config lie, see hub.py; None for random ones."""
  return None if weights.startswith('random:') else model_folder.folder(weights)


def initial(network, folder, head_ids, mesh, seed):
  """Parameters of a network before any training, placed on a mesh.

  Args:
    folder: of the pretrained weights, or None for random ones of `seed`.
    head_ids: tokens whose embeddings become the head, or none.
  """
  if folder is None:
    params = _random(network, mesh)(jax.random.key(seed))
  else:
    params = _from_folder(folder, network, mesh)
  if head_ids and 'head' in params:
    params = jax.jit(heads.head_from_token_rows, static_argnums=1)(
      params, tuple(head_ids)
    )
  return params


@functools.lru_cache(maxsize=4)
def _random(network, mesh):
  """Jitted key -> parameters; compiled once for all stages and seeds."""

  def params(key):
    return network.init(key, *network.dummy_inputs(1))['params']

  place = sharding.tree_sharding(mesh, heads.parameter_shapes(network))
  return jax.jit(params, out_shardings=place)


def _from_folder(folder, network, mesh):
  def place(path, array):
    return sharding.place_parameter(mesh, path, array)

  layers = network.config.num_layers
  _, trunk = pretrained.load(
    folder,
    num_layers=layers,
    param_dtype=network.config.param_dtype,
    place=place,
  )
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
  if head_init not in ('zero', 'token_rows'):
    raise errors.UserError(
      f"head_init={head_init!r} must be 'zero' or 'token_rows'."
    )
  if len(head_tokens) != num_classes:
    raise errors.UserError(
      f'head_tokens={tuple(head_tokens)} must name one token for each of the '
      f'{num_classes} classes.'
    )
  return [tokenizer.token_id(token) for token in head_tokens]
