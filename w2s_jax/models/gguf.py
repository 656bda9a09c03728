"""Converts GGUF files of Llama models to Hugging Face model folders.

A GGUF file holds the whole model: sizes, tokenizer, and weights, which may be
quantised. They are dequantised exactly, to float32.
"""

import os
import pathlib
import shutil
import sys

import flax.traverse_util
import numpy as np
import tokenizers as hf_tokenizers

from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.models import hf_config
from w2s_jax.models import hf_families
from w2s_jax.models import hf_tensors
from w2s_jax.models import pretrained
from w2s_jax.models import tokenizers


def _split_rotary(tensor, config):
  """Reorders the rotary features of each head.

  The two features of a rotated pair are adjacent in a GGUF file and half a head
  apart here.
  """
  pairs = tensor.reshape(-1, config.head_width // 2, 2, tensor.shape[-1])
  return [pairs.swapaxes(1, 2).reshape(tensor.shape).T]


_ROTARY = hf_tensors.Layout(_split_rotary, join=None)
_ROWS = (
  *hf_tensors.embedding('token_embd', 'token_embed'),
  *hf_tensors.norm('output_norm', 'final_norm', False),
  *hf_tensors.norm('blk.{i}.attn_norm', 'layer_{i}/attention_norm', False),
  *hf_tensors.norm('blk.{i}.ffn_norm', 'layer_{i}/mlp_norm', False),
  *hf_tensors.linear(
    'blk.{i}.attn_q', 'layer_{i}/attention/query', False, _ROTARY
  ),
  *hf_tensors.linear(
    'blk.{i}.attn_k', 'layer_{i}/attention/key', False, _ROTARY
  ),
  *hf_tensors.linear('blk.{i}.attn_v', 'layer_{i}/attention/value', False),
  *hf_tensors.linear('blk.{i}.attn_output', 'layer_{i}/attention/out', False),
  *hf_tensors.linear('blk.{i}.ffn_gate', 'layer_{i}/mlp/gate', False),
  *hf_tensors.linear('blk.{i}.ffn_up', 'layer_{i}/mlp/up', False),
  *hf_tensors.linear('blk.{i}.ffn_down', 'layer_{i}/mlp/down', False),
)
_FAMILY = hf_families.Family(
  architecture='',
  prefix='',
  rows=_ROWS,
  ignored={},
  sizes={},
  activation='',
  fixed={},
  only={},
  defaults={},
  output='output',
)

_DIGITS = hf_tokenizers.pre_tokenizers.Digits(individual_digits=True)
_BYTES = hf_tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
_PRE_TOKENIZERS = {'gpt-2': [_BYTES], 'smollm': [_DIGITS, _BYTES]}
_CONTROL = 3  # token type of special tokens


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
  reader = gguf.GGUFReader(file)
  fields = {key: field.contents() for key, field in reader.fields.items()}
  tensors = {tensor.name: tensor for tensor in reader.tensors}
  config = _config(fields, tensors, file)
  table = hf_families.table(_FAMILY, config)
  if unmatched := sorted(table.keys() ^ tensors.keys()):
    raise errors.UserError(
      f'{file}: unexpected or missing tensors: {unmatched}'
    )
  flat = {}
  for name, row in table.items():
    tensor = tensors[name]
    array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    array = np.asarray(array, np.float32)
    flat |= zip(row.paths, row.layout.split(array, config))
  params = flax.traverse_util.unflatten_dict(flat, sep='/')
  tokenizer = _tokenizer(fields, file)
  pretrained.save(folder, config, params, tokenizer=tokenizer)


def _config(fields, tensors, file):
  architecture = fields['general.architecture']
  size = {
    key.removeprefix(f'{architecture}.'): value for key, value in fields.items()
  }
  # Stored as float32: 1e-5 is 9.999999747378752e-06.
  epsilon = np.float32(size['attention.layer_norm_rms_epsilon'])
  stored = dict(
    model_type=architecture,
    vocab_size=int(tensors['token_embd.weight'].shape[1]),
    max_position_embeddings=size['context_length'],
    hidden_size=size['embedding_length'],
    num_hidden_layers=size['block_count'],
    num_attention_heads=size['attention.head_count'],
    num_key_value_heads=size['attention.head_count_kv'],
    head_dim=size.get('rope.dimension_count'),
    intermediate_size=size['feed_forward_length'],
    rms_norm_eps=float(str(epsilon)),
    rope_theta=size.get('rope.freq_base'),
    hidden_act='silu',
    tie_word_embeddings='output.weight' not in tensors,
  )
  if architecture != 'llama':
    raise errors.UserError(
      f'{file}: general.architecture = {architecture!r} is not supported; '
      "supported: 'llama'."
    )
  return hf_config.read(stored, file)[0]


def _tokenizer(fields, file):
  """Returns the byte-level BPE tokenizer of a GGUF file."""
  kind = fields['tokenizer.ggml.model'], fields.get('tokenizer.ggml.pre')
  if kind[0] != 'gpt2' or kind[1] not in _PRE_TOKENIZERS:
    raise errors.UserError(
      f'{file}: tokenizer.ggml.model, tokenizer.ggml.pre = {kind} are not '
      f"supported; supported: 'gpt2', {', '.join(_PRE_TOKENIZERS)}."
    )
  tokens = fields['tokenizer.ggml.tokens']
  merges = [tuple(x.split(' ')) for x in fields['tokenizer.ggml.merges']]
  vocab = {token: i for i, token in enumerate(tokens)}
  backend = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE(vocab, merges))
  backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.Sequence(
    _PRE_TOKENIZERS[kind[1]]
  )
  backend.decoder = hf_tokenizers.decoders.ByteLevel()
  kinds = fields['tokenizer.ggml.token_type']
  special = [token for token, x in zip(tokens, kinds) if x == _CONTROL]
  backend.add_special_tokens(special)
  return tokenizers.Tokenizer(backend)
