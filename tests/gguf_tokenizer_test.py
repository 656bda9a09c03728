import re

import numpy as np
import pytest

from w2s_jax.models import gguf_tokenizer
from w2s_jax.models import tokenizers

# Tokens of a sentencepiece model with their score and their type: 1 normal,
# 3 control, 4 user-defined, 6 a byte.
PIECES = [
  *[('<pad>', -1000, 3), ('<eos>', -1000, 3), ('<bos>', -1000, 3)],
  *[('<unk>', -1000, 3), ('\n', -1000, 4), ('  ', -1000, 4), ('   ', -1000, 4)],
  *[('<0xC3>', 0, 6), ('<0xA9>', 0, 6), ('abc', -3, 1), ('bc', -1, 1)],
  *[('ab', -2, 1), ('\u2581a', -4, 1), ('cc', -5, 1), ('ca', -6, 1)],
  *[('abca', -7, 1), ('\u2581ab', -8, 1), ('\u2581', -90, 1), ('a', -91, 1)],
  *[('b', -92, 1), ('c', -93, 1), ('0', -94, 1), ('1', -95, 1)],
]
PIECES += [(f'<unused{i}>', -1000, 3) for i in range(40 - len(PIECES))]
TOKENS, SCORES, KINDS = map(list, zip(*PIECES))
FIELDS = {
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.pre': 'default',
  'tokenizer.ggml.tokens': TOKENS,
  'tokenizer.ggml.scores': SCORES,
  'tokenizer.ggml.token_type': KINDS,
  'tokenizer.ggml.bos_token_id': 2,
  'tokenizer.ggml.add_space_prefix': False,
}


def sentencepiece(text):
  """Returns the tokens of a text by the algorithm of sentencepiece.

  User-defined tokens are found first, the longest at each place; between them
  the neighbours whose token has the highest score are joined, over and over.
  """
  score = {token: score for token, score, kind in PIECES if kind == 1}
  spaces = [token for token, _, kind in PIECES if kind == 4]
  found = re.split('(' + '|'.join(sorted(spaces, key=len)[::-1]) + ')', text)
  tokens = []
  for part in found:
    if part in spaces:
      tokens.append(part.replace(' ', '\u2581'))
      continue
    pieces = list(part.replace(' ', '\u2581'))
    while True:
      joined = [a + b for a, b in zip(pieces, pieces[1:])]
      best = max(joined, key=lambda x: score.get(x, -np.inf), default='')
      if best not in score:
        break
      i = joined.index(best)
      pieces[i : i + 2] = [best]
    tokens += pieces
  return tokens


def test_sentencepiece_tokenizer(tmp_path):
  gguf_tokenizer.read(FIELDS, 'm.gguf').save(tmp_path)
  tokenizer = tokenizers.load(tmp_path)
  names = [token.replace(' ', '\u2581') for token, _, _ in PIECES]
  rng = np.random.default_rng(0)
  texts = [''.join(rng.choice(list('abc \n01'), 40)) for _ in range(300)]
  for text, ids in zip(texts, tokenizer.encode_whole(texts), strict=True):
    assert [names[i] for i in ids] == sentencepiece(text)
  assert tokenizer.decode(tokenizer.encode_whole(texts)) == texts
  ids, _ = tokenizer.encode(['\u00e9 a<eos>', '\u00e8'], max_length=9)
  assert [[names[i] for i in row] for row in ids] == [
    ['<bos>', '<0xC3>', '<0xA9>', '\u2581a', '<eos>'],
    ['<bos>', '<unk>'],  # a byte of it is no token
  ]
  assert tokenizer.end_id() == 1 and tokenizer.vocab_size == 40


def test_bos_only_where_the_file_asks_for_it():
  for add_bos, ids in ((True, [2, 21]), (False, [21])):
    fields = FIELDS | {'tokenizer.ggml.add_bos_token': add_bos}
    tokenizer = gguf_tokenizer.read(fields, 'm.gguf')
    assert tokenizer.encode(['0'], max_length=9)[0][0].tolist() == ids


@pytest.mark.parametrize(
  'changes, says',
  [
    ({'add_space_prefix': True}, "'llama' without add_space_prefix"),
    ({'model': 'gpt2', 'pre': 'tekken'}, "m.gguf: .*'gpt2', 'tekken'.*smollm"),
    ({'model': 't5'}, "'t5', 'default'"),
  ],
)
def test_what_is_not_implemented_is_named(changes, says):
  changes = {f'tokenizer.ggml.{key}': x for key, x in changes.items()}
  with pytest.raises(ValueError, match=says):
    gguf_tokenizer.read(FIELDS | changes, 'm.gguf')
