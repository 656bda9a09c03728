"""Converts GGUF files of Llama and Gemma 3 to Hugging Face model folders.

A GGUF file holds the whole model: sizes, tokenizer, and weights, which may be
quantised. They are dequantised exactly, to float32.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import sys
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.models import gguf_tokenizer
from w2s_jax.models import hf_config
from w2s_jax.models import hf_families
from w2s_jax.models import hf_tensors
from w2s_jax.models import pretrained


def _split_rotary(tensor, config):
  """Reorders the rotary features of each head.

  The two features of a rotated pair are adjacent in a GGUF file and half a head
  apart here.
  """
  pairs = tensor.reshape(-1, config.head_width // 2, 2, tensor.shape[-1])
  return [pairs.swapaxes(1, 2).reshape(tensor.shape).T]


_ROTARY = hf_tensors.Layout(_split_rotary, join=None)
_PLUS_ONE = hf_tensors.Layout(lambda x, config: [x - 1], join=None)


class _Architecture(NamedTuple):
  """How GGUF files store the models of one general.architecture."""

  model_type: str  # in hf_families
  activation: tuple  # (field of config.json, its value)
  fields: dict  # field of config.json -> GGUF field, beside _FIELDS
  norms: dict  # of each layer: GGUF name -> our name, beside _NORMS
  query_layout: hf_tensors.Layout  # of queries and keys
  scale_layout: hf_tensors.Layout  # of norms

  @property
  def family(self):
    linear = functools.partial(hf_tensors.linear, bias=False)
    norm = functools.partial(
      hf_tensors.norm, bias=False, layout=self.scale_layout
    )
    attention, mlp = 'layer_{i}/attention', 'layer_{i}/mlp'
    rows = (
      *hf_tensors.embedding('token_embd', 'token_embed'),
      *norm('output_norm', 'final_norm'),
      *linear('blk.{i}.attn_q', f'{attention}/query', layout=self.query_layout),
      *linear('blk.{i}.attn_k', f'{attention}/key', layout=self.query_layout),
      *linear('blk.{i}.attn_v', f'{attention}/value'),
      *linear('blk.{i}.attn_output', f'{attention}/out'),
      *linear('blk.{i}.ffn_gate', f'{mlp}/gate'),
      *linear('blk.{i}.ffn_up', f'{mlp}/up'),
      *linear('blk.{i}.ffn_down', f'{mlp}/down'),
    )
    for stored, ours in (_NORMS | self.norms).items():
      rows += norm(f'blk.{{i}}.{stored}', f'layer_{{i}}/{ours}')
    family = hf_families.FAMILIES[self.model_type]
    return dataclasses.replace(family, rows=rows, output='output')


_NORMS = {'attn_norm': 'attention_norm', 'ffn_norm': 'mlp_norm'}
_FIELDS = {
  'max_position_embeddings': 'context_length',
  'hidden_size': 'embedding_length',
  'num_hidden_layers': 'block_count',
  'num_attention_heads': 'attention.head_count',
  'num_key_value_heads': 'attention.head_count_kv',
  'intermediate_size': 'feed_forward_length',
  'rms_norm_eps': 'attention.layer_norm_rms_epsilon',
  'rope_theta': 'rope.freq_base',
}
_OPTIONAL = ('rope.freq_base', 'rope.dimension_count')
# Not read: the shapes of the tensors are checked against the config.
_IGNORED = ('vocab_size', 'attention.key_length', 'attention.value_length')
_ARCHITECTURES = {
  'llama': _Architecture(
    model_type='llama',
    activation=('hidden_act', 'silu'),
    fields={'head_dim': 'rope.dimension_count'},
    norms={},
    query_layout=_ROTARY,
    scale_layout=hf_tensors.AS_IS,
  ),
  # Layers without a window and the rotary base of the others are the defaults
  # of the family, as in llama.cpp.
  'gemma3': _Architecture(
    model_type='gemma3_text',
    activation=('hidden_activation', 'gelu_pytorch_tanh'),
    fields={
      'head_dim': 'attention.key_length',
      'query_pre_attn_scalar': 'attention.key_length',
      'sliding_window': 'attention.sliding_window',
    },
    norms={
      'attn_q_norm': 'attention/query_norm',
      'attn_k_norm': 'attention/key_norm',
      'post_attention_norm': 'attention_out_norm',
      'post_ffw_norm': 'mlp_out_norm',
    },
    query_layout=hf_tensors.TRANSPOSED,
    scale_layout=_PLUS_ONE,
  ),
}


def converted(file):
  """Returns the model folder beside a GGUF file; converts if absent or damaged.

  Sizes and sha256 of all files of the folder are compared at every call.

  Raises:
    ImportError: the package gguf is not installed.
    ValueError: a model or a tokenizer that is not implemented.
  """
  file = pathlib.Path(file)
  folder = file.with_suffix('')
  if assets.damage(folder, complete=True):
    with assets.lock(folder.with_name(f'{folder.name}.lock')):
      # Another process may have converted it meanwhile.
      if damage := assets.damage(folder, complete=True):
        if folder.exists():
          print(f'{folder}: {damage}; converting it again.', file=sys.stderr)
        _replace(folder, file)
  return folder


def _replace(folder, file):
  """Converts beside `folder` and moves into place: it is whole or absent."""
  print(f'Converting the weights of {file}', file=sys.stderr)
  fresh = folder.with_name(f'{folder.name}.converting')
  shutil.rmtree(fresh, ignore_errors=True)  # left by a killed process
  try:
    convert(file, fresh)
    assets.write_manifest(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)
  finally:
    shutil.rmtree(fresh, ignore_errors=True)


def convert(file, folder):
  """Writes config.json, model.safetensors and tokenizer.json.

  Raises:
    ImportError: the package gguf is not installed.
    ValueError: a model or a tokenizer that is not implemented.
  """
  try:
    import gguf
  except ModuleNotFoundError as error:
    raise errors.MissingPackageError(
      f'{file} needs the package {error.name}: pip install "w2s_jax[gguf]".'
    ) from None
  try:
    reader = gguf.GGUFReader(file)
  except (ValueError, IndexError) as error:  # another format, or truncated
    raise errors.UserError(
      f'{file} cannot be read as GGUF ({error}).'
    ) from None
  fields = {key: field.contents() for key, field in reader.fields.items()}
  tensors = {tensor.name: tensor for tensor in reader.tensors}
  name = fields.get('general.architecture')
  if name not in _ARCHITECTURES:
    raise errors.UserError(
      f'{file}: general.architecture = {name!r} is not supported; '
      f'supported: {", ".join(map(repr, _ARCHITECTURES))}.'
    )
  config = _config(fields, tensors, file)
  table = hf_families.table(_ARCHITECTURES[name].family, config)
  if unmatched := sorted(table.keys() ^ tensors.keys()):
    raise errors.UserError(
      f'{file}: unexpected or missing tensors: {unmatched}'
    )
  tokenizer = gguf_tokenizer.read(fields, file)
  flat = {}
  for name, row in table.items():
    tensor = tensors[name]
    try:
      array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
      raise errors.UserError(
        f'{file}: {name} is quantised as {tensor.tensor_type.name}, which is '
        'not supported.'
      ) from None
    array = np.asarray(array, np.float32)
    flat |= zip(row.paths, row.layout.split(array, config))
  params = flax.traverse_util.unflatten_dict(flat, sep='/')
  pretrained.save(folder, config, params, tokenizer=tokenizer)


def _config(fields, tensors, file):
  name = fields['general.architecture']
  architecture = _ARCHITECTURES[name]
  size = {
    key.removeprefix(f'{name}.'): value
    for key, value in fields.items()
    if key.startswith(f'{name}.')
  }
  names = _FIELDS | architecture.fields
  absent = sorted(set(names.values()) - set(size) - set(_OPTIONAL))
  unread = sorted(set(size) - set(names.values()) - set(_IGNORED))
  if absent or unread:
    raise errors.UserError(
      f'{file}: fields of {name} that are missing: {absent or "none"}; that '
      f'are not supported: {unread or "none"}.'
    )
  stored = {theirs: size.get(key) for theirs, key in names.items()}
  # Stored as float32: 1e-5 is 9.999999747378752e-06.
  stored['rms_norm_eps'] = float(str(np.float32(stored['rms_norm_eps'])))
  stored |= {
    'model_type': architecture.model_type,
    architecture.activation[0]: architecture.activation[1],
    'vocab_size': int(tensors['token_embd.weight'].shape[1]),
    'tie_word_embeddings': 'output.weight' not in tensors,
  }
  return hf_config.read(stored, file)[0]
