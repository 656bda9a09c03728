"""Builds models: config fields to a network, a tokenizer and parameters."""

import dataclasses
import functools
import os
import pathlib
import re
from typing import Any
from typing import Callable
from typing import NamedTuple

import jax
import numpy as np

from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import heads
from w2s_jax.models import model_folder
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers

ANSWER = '{text}\nAnswer:'  # the prompt of a verbalizer

# Of TransformerConfig, set by the config of a study.
_FIELDS = ('dropout', 'dtype', 'param_dtype', 'remat', 'attention')


class Model(NamedTuple):
  name: str  # in tables and folder names
  network: Any  # a head with its trunk, see heads.py
  tokenizer: Any
  init: Callable  # (mesh, seed) -> initial parameters, placed on the mesh
  identity: dict  # all that decides its outputs before training; in stage keys
  weights: str  # as in the config
  num_parameters: int

  @property
  def is_pretrained(self):
    return not self.weights.startswith('random:')


def build(spec, task):
  """Builds the model of one entry of config.models for a task.

  Args:
    spec: mapping with the fields below; `train` and `adapt` are ignored.
      name: shown in tables and folder names; '' is derived, see name_of.
      weights: 'asset:NAME', 'hf:OWNER/NAME@REVISION', a Hugging Face folder, on
        a disk or in a bucket (gs://), or 'random:PRESET'.
      num_layers: keeps the first so many layers of the weights, -1 all; with 0
        the model is a bag of token embeddings.
      head: 'classify', a linear map of the pooled states, or 'verbalize', the
        logits of `head_tokens`, one token per class, after `prompt`. Board
        models and generators have a head of their own.
      head_init: of a 'classify' head: 'zero', or 'token_rows', the embeddings
        of `head_tokens` (paper appendix A.1).
      head_tokens: one token for each class; () for '0', '1', ..., with a space
        before them if the tokenizer has such tokens.
      prompt: template with one '{text}' around each text; '' for the text alone
        with 'classify', and for ANSWER with 'verbalize'.
      dropout: rate during training.
      dtype: of the trunk's activations, 'float32' or 'bfloat16'.
      param_dtype: of the parameters, the same.
      matmul_dtype: 'bfloat16' rounds what the matmuls of the layers read and
        sums in float32, see matmul.py; '' leaves float32; 'auto' is 'bfloat16'
        on CPUs with instructions for it, and recorded as that.
      remat: a name of presets.REMAT, what of a layer is kept for the backward
        pass, which computes the rest again to save memory; '' keeps all.
      attention: 'einsum', 'cudnn' for NVIDIA GPUs, 'splash' for TPUs, or
        'auto': the kernel of the device where it can compute the attention of
        this model, else einsum.
    task: tasks.task.Task; its inputs and num_classes decide on the head.

  Raises:
    ValueError, FileNotFoundError: a field does not fit; the field is named.
  """
  folder = folder_of(spec['weights'])
  architecture = _architecture(spec, folder)
  tokenizer = _tokenizer(folder, architecture, task.inputs)
  if spec['head'] not in ('classify', 'verbalize'):
    raise errors.UserError(
      f"head={spec['head']!r} must be 'classify' or 'verbalize'."
    )
  verbalizes = spec['head'] == 'verbalize'
  head_ids = []
  if verbalizes or spec['head_init'] != 'zero':
    head_ids = _head_ids(spec, tokenizer, task)
  network = heads.choose(
    task.inputs,
    architecture,
    task.num_classes,
    label_ids=head_ids if verbalizes else None,
  )
  identity = {
    'weights': pretrained.fingerprint(folder) if folder else spec['weights'],
    'architecture': _recorded(architecture),
    'head': type(network).__name__,
    'num_classes': task.num_classes,
    'head_ids': head_ids,
  }
  if architecture.causal and (start := tokenizer.special_ids()[0]):
    identity['start_ids'] = start  # of packed texts and of prompts
  if prompt := spec['prompt'] or (ANSWER if verbalizes else ''):
    tokenizer = _prompted(tokenizer, prompt, task, verbalizes=verbalizes)
    identity['prompt'] = prompt
  shapes = jax.tree.leaves(heads.parameter_shapes(network))
  return Model(
    name=name_of(spec),
    network=network,
    tokenizer=tokenizer,
    init=functools.partial(initial, network, folder, head_ids),
    identity=identity,
    weights=spec['weights'],
    num_parameters=sum(x.size for x in shapes),
  )


def name_of(spec):
  """Returns the name of a spec, by default that of its weights.

  It is the last part of the weights, and ends in '-l<num_layers>' where only
  the first layers are kept: 'asset:minilm-l6' with num_layers=0 is 'minilm-l0',
  'hf:EleutherAI/pythia-70m@step3000' is 'pythia-70m@step3000'. No file is read.

  Raises:
    ValueError: the weights have no such part, as '..'.
  """
  if spec['name']:
    return spec['name']
  path, _, revision = spec['weights'].partition('@')
  kind, _, rest = path.partition(':')
  known = kind in ('asset', 'hf', 'random')
  name = pathlib.PurePosixPath(rest if known else spec['weights']).name
  if name in ('', '..'):
    raise errors.UserError(
      f"name='' and weights={spec['weights']!r} end in no name; set `name`."
    )
  if known and revision:
    name += f'@{revision.replace("/", "-")}'  # names are parts of folder names
  if spec['num_layers'] >= 0:
    name = re.sub(r'-l\d+$', '', name) + f'-l{spec["num_layers"]}'
  return name


def _architecture(spec, folder):
  """Returns the TransformerConfig of the weights with the fields of a spec."""
  weights, num_layers = spec['weights'], spec['num_layers']
  if folder is None:
    preset = weights.partition(':')[2]
    if preset not in presets.PRESETS:
      raise errors.UserError(
        f'weights={weights}: the presets are '
        f'{", ".join(sorted(presets.PRESETS))}.'
      )
    architecture = presets.PRESETS[preset]
  else:
    architecture = pretrained.read_config(folder)
  if not -1 <= num_layers <= architecture.num_layers:
    raise errors.UserError(
      f'num_layers={num_layers}, but {weights} has '
      f'{architecture.num_layers} layers; -1 keeps all.'
    )
  for field in ('dtype', 'param_dtype'):
    if spec[field] not in ('float32', 'bfloat16'):
      raise errors.UserError(
        f"{field}={spec[field]!r}: use 'float32' or 'bfloat16'."
      )
  if spec['remat'] not in ('', *presets.REMAT):
    raise errors.UserError(
      f"remat={spec['remat']!r} is not '' or one of {', '.join(presets.REMAT)}."
    )
  return dataclasses.replace(
    architecture,
    num_layers=architecture.num_layers if num_layers == -1 else num_layers,
    **{k: spec[k] for k in _FIELDS},
    matmul_dtype=_matmul_dtype(spec['matmul_dtype'], dtype=spec['dtype']),
  )


def _matmul_dtype(name, *, dtype):
  """Returns that of a TransformerConfig: 'auto' depends on the processor."""
  if name == 'auto':
    rounds = dtype == 'float32' and _multiplies_bfloat16()
    return 'bfloat16' if rounds else ''
  if name not in presets.MATMUL:
    raise errors.UserError(
      f"matmul_dtype={name!r}: use 'auto', '' or 'bfloat16'."
    )
  if name and dtype != 'float32':
    raise errors.UserError(
      f"matmul_dtype={name!r} needs dtype='float32', not {dtype!r}, whose "
      "matmuls are rounded already; use ''."
    )
  return name


def _multiplies_bfloat16():
  """Returns whether programs are for a CPU with instructions for bfloat16.

  A flag of XLA that limits its instructions to older ones is respected.
  """
  info = pathlib.Path('/proc/cpuinfo')
  return (
    sharding.device_kind() == 'cpu'
    and '--xla_cpu_max_isa' not in os.environ.get('XLA_FLAGS', '')
    and info.exists()
    and 'avx512_bf16' in info.read_text()
  )


def _recorded(architecture):
  """Returns the fields of a TransformerConfig that decide its outputs.

  How attention is computed changes their rounding only, as a device does: the
  default is not recorded, since it is not the same on every device. Nor is
  `remat`, which changes what is computed twice, nor matmuls that round nothing.
  """
  fields = dataclasses.asdict(architecture)
  del fields['remat']
  if not architecture.matmul_dtype:
    del fields['matmul_dtype']
  if architecture.attention == 'auto':
    del fields['attention']
  return fields


def folder_of(weights):
  """Returns the folder of `weights`, fetched if absent; None for random ones.

  See model_folder.py.
  """
  return None if weights.startswith('random:') else model_folder.folder(weights)


def initial(network, folder, head_ids, mesh, seed):
  """Returns the parameters of a network before training, placed on a mesh.

  Args:
    network: a head with its trunk.
    folder: of the pretrained weights, or None for random ones drawn by `seed`.
    head_ids: token ids whose embeddings initialise the head; may be empty.
    mesh: of devices.
    seed: of random weights.
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
  """Returns jitted key -> parameters, compiled once for all seeds."""

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
  if 'head' in shapes:  # a new head starts at zero
    zeros_DxC = np.zeros(shapes['head']['kernel'].shape, np.float32)
    params['head'] = {'kernel': place('head/kernel', zeros_DxC)}
  return params


def _tokenizer(folder, architecture, inputs):
  if architecture.reads == 'board':
    return tokenizers.shared(tokenizers.Board)
  if folder is not None:
    return tokenizers.load(folder)
  if inputs == 'position':
    return tokenizers.shared(tokenizers.Characters)
  return tokenizers.shared(tokenizers.WordHash, architecture.vocab_size)


def _prompted(tokenizer, prompt, task, *, verbalizes):
  if task.inputs == 'position':
    raise errors.UserError(
      f'prompt={prompt!r} is for texts; chess positions have no prompt, or one '
      "of their own: set prompt=''."
    )
  if verbalizes and (end := tokenizer.special_ids()[1]):
    raise errors.UserError(
      f"head='verbalize': the tokenizer ends each text with the tokens {end}, "
      "so a model does not answer there; use head='classify'."
    )
  return tokenizers.shared(tokenizers.Prompted, tokenizer, prompt)


def _head_ids(spec, tokenizer, task):
  """Returns the token id of each class."""
  head_init, head_tokens = spec['head_init'], spec['head_tokens']
  if head_init not in ('zero', 'token_rows'):
    raise errors.UserError(
      f"head_init={head_init!r} must be 'zero' or 'token_rows'."
    )
  if task.inputs != 'text':
    raise errors.UserError(
      f'head_init={head_init!r}, head={spec["head"]!r}: only tasks of one text '
      f'have a token for each class; this one has inputs of kind '
      f"{task.inputs!r}. Use head_init='zero', head='classify'."
    )
  if not head_tokens:
    return _digit_ids(tokenizer, task.num_classes)
  if len(head_tokens) != task.num_classes:
    raise errors.UserError(
      f'head_tokens={tuple(head_tokens)} must name one token for each of the '
      f'{task.num_classes} classes.'
    )
  return [tokenizer.token_id(token) for token in head_tokens]


def _digit_ids(tokenizer, num_classes):
  """Returns the ids of ' 0', ' 1', ..., or of '0', '1', ... if it has none."""
  try:
    return [tokenizer.token_id(f' {i}') for i in range(num_classes)]
  except errors.UserError:
    return [tokenizer.token_id(str(i)) for i in range(num_classes)]
