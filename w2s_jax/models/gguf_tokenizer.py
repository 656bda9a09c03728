"""Reads the tokenizer of a GGUF file: byte-level BPE or sentencepiece."""

import tokenizers as hf_tokenizers

from w2s_jax import errors
from w2s_jax.models import tokenizers

_DIGITS = hf_tokenizers.pre_tokenizers.Digits(individual_digits=True)
_BYTES = hf_tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
_PRE_TOKENIZERS = {'gpt-2': [_BYTES], 'smollm': [_DIGITS, _BYTES]}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # types of tokens
_SPACE = '\u2581'  # of sentencepiece


def read(fields, file):
  """Returns the tokenizer of a GGUF file.

  Args:
    fields: {key: value} of the file.
    file: its name, for messages.

  Raises:
    ValueError: a tokenizer that is not implemented.
  """
  kind = tuple(fields.get(f'tokenizer.ggml.{x}') for x in ('model', 'pre'))
  adds_space = fields.get('tokenizer.ggml.add_space_prefix', True)
  tokens = fields['tokenizer.ggml.tokens']
  kinds = fields['tokenizer.ggml.token_type']
  if kind[0] == 'gpt2' and kind[1] in _PRE_TOKENIZERS:
    backend = _byte_level(tokens, fields['tokenizer.ggml.merges'], kind[1])
  elif kind[0] == 'llama' and not adds_space:
    backend = _sentencepiece(tokens, fields['tokenizer.ggml.scores'], kinds)
  else:
    raise errors.UserError(
      f'{file}: tokenizer.ggml.model, tokenizer.ggml.pre = {kind} are not '
      f"supported; supported: 'gpt2', {', '.join(_PRE_TOKENIZERS)}; 'llama' "
      'without add_space_prefix.'
    )
  special = [token for token, x in zip(tokens, kinds) if x == _CONTROL]
  backend.add_special_tokens(special)
  if fields.get('tokenizer.ggml.add_bos_token', kind[0] == 'llama'):
    bos_id = fields['tokenizer.ggml.bos_token_id']
    backend.post_processor = hf_tokenizers.processors.TemplateProcessing(
      single=f'{tokens[bos_id]} $A', special_tokens=[(tokens[bos_id], bos_id)]
    )
  return tokenizers.Tokenizer(backend)


def _byte_level(tokens, merges, pre):
  merges = [tuple(x.split(' ')) for x in merges]
  vocab = {token: i for i, token in enumerate(tokens)}
  backend = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE(vocab, merges))
  backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.Sequence(
    _PRE_TOKENIZERS[pre]
  )
  backend.decoder = hf_tokenizers.decoders.ByteLevel()
  return backend


def _sentencepiece(tokens, scores, kinds):
  """Returns BPE with the merges that the scores of sentencepiece stand for.

  It joins the neighbours whose token has the highest score. User-defined
  tokens, such as runs of spaces, are found first and are never joined.
  """
  normal = {token for token, x in zip(tokens, kinds) if x == _NORMAL}
  merges = [
    (-score, -i, (token[:i], token[i:]))
    for token, score in zip(tokens, scores)
    if token in normal
    for i in range(1, len(token))
    if token[:i] in normal and token[i:] in normal
  ]
  # A GGUF file has a plain space in user-defined tokens.
  vocab = {token.replace(' ', _SPACE): i for i, token in enumerate(tokens)}
  backend = hf_tokenizers.Tokenizer(
    hf_tokenizers.models.BPE(
      vocab,
      [pair for _, _, pair in sorted(merges)],
      unk_token='<unk>',
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  backend.normalizer = hf_tokenizers.normalizers.Replace(' ', _SPACE)
  backend.decoder = hf_tokenizers.decoders.Sequence(
    [
      hf_tokenizers.decoders.Replace(_SPACE, ' '),
      hf_tokenizers.decoders.ByteFallback(),
      hf_tokenizers.decoders.Fuse(),
    ]
  )
  backend.add_tokens(
    [
      hf_tokenizers.AddedToken(token.replace(' ', _SPACE), normalized=True)
      for token, x in zip(tokens, kinds)
      if x == _USER_DEFINED
    ]
  )
  return backend
