"""Tokenizers: texts and chess positions to token ids."""

import functools
import json
import zlib

import chess
from etils import epath
import numpy as np
import tokenizers
from tokenizers import processors

from w2s_jax import errors
from w2s_jax.tasks import chess as chess_task

# End tokens of GPT-2, GPT-NeoX, Qwen and SmolLM2; Llama 3; Llama 2 and Mistral;
# Gemma.
_ENDS = ('<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>')


class Tokenizer:
  """A Hugging Face tokenizer.json."""

  def __init__(self, backend):
    # Rows are padded when they are batched, whatever the file has stored.
    backend.no_padding()
    backend.no_truncation()
    self._backend = backend

  @property
  def vocab_size(self):
    return self._backend.get_vocab_size()

  def encode(self, texts, *, max_length, keep='start'):
    """Returns (list of int32 ids_L, list of bool: which were truncated).

    Truncates the end of a text, or with keep='end' its start, never the special
    tokens around it. A text without tokens becomes one special token (id 0 if
    there is none), so that every row has a state to pool.

    Raises:
      ValueError: max_length has no room for a token of the text.
    """
    num_special = self._backend.num_special_tokens_to_add(False)
    if max_length <= num_special:
      raise errors.UserError(
        f'max_length={max_length} has no room for text: the tokenizer adds '
        f'{num_special} special tokens.'
      )
    direction = {'start': 'right', 'end': 'left'}[keep]
    self._backend.enable_truncation(max_length, direction=direction)
    encodings = self._backend.encode_batch_fast(texts)
    self._backend.no_truncation()
    ids = [np.array(e.ids or [self.end_id()], np.int32) for e in encodings]
    return ids, [bool(e.overflowing) for e in encodings]

  def encode_whole(self, texts):
    """Returns a list of int32 ids_L, not truncated, without special tokens."""
    encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(e.ids, np.int32) for e in encodings]

  def decode(self, ids):
    """Returns a list of texts, with special tokens."""
    return self._backend.decode_batch(ids, skip_special_tokens=False)

  def token_id(self, text):
    """Returns the id of a text that is one token, such as the label '0'.

    Raises:
      ValueError: it is no or several tokens, or not in the vocabulary.
    """
    encoding = self._backend.encode(text, add_special_tokens=False)
    unknown = getattr(self._backend.model, 'unk_token', None)
    if len(encoding.ids) != 1 or encoding.tokens == [unknown]:
      # Llama 2 and Mistral put a space before a text, but not before a token.
      if (token_id := self._backend.token_to_id(text)) is not None:
        return token_id
      raise errors.UserError(
        f'{text!r} is not one token of the vocabulary but {encoding.tokens}.'
      )
    return encoding.ids[0]

  def special_ids(self):
    """Returns (ids before, ids after) every text, such as BOS, or [CLS]."""
    encoding = self._backend.encode('0')
    is_text = [not special for special in encoding.special_tokens_mask]
    first, last = is_text.index(True), is_text[::-1].index(True)
    return encoding.ids[:first], encoding.ids[len(is_text) - last :]

  def save(self, folder):
    path = epath.Path(folder) / 'tokenizer.json'
    path.write_text(self._backend.to_str(), encoding='utf-8')

  def end_id(self):
    """Returns the id that separates texts and replaces an empty text.

    It is the end-of-text token of known families, else the first special token.
    """
    special = self.special_tokens()
    for name in _ENDS:
      if name in special:
        return special[name]
    return min(special.values(), default=0)

  def special_tokens(self):
    """Returns {name: id}."""
    added = self._backend.get_added_tokens_decoder()
    return {token.content: i for i, token in added.items() if token.special}

  def name_of(self, token_id):
    """Returns the text of a token as in tokenizer.json."""
    return self._backend.id_to_token(token_id)

  def around(self, before, after):
    """Returns a Tokenizer that puts these ids before and after every text."""
    backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
    parts = {'before': [*map(int, before)], 'after': [*map(int, after)]}
    parts = {name: ids for name, ids in parts.items() if ids}
    template = [x for x in ('before', '$A', 'after') if x == '$A' or x in parts]
    backend.post_processor = processors.TemplateProcessing(
      single=' '.join(template),
      special_tokens=[
        {'id': name, 'ids': ids, 'tokens': [*map(self.name_of, ids)]}
        for name, ids in parts.items()
      ],
    )
    return Tokenizer(backend)


class WordHash:
  """Hashes words to ids below vocab_size, with the interface of Tokenizer.

  Needs no vocabulary; for random models in tests and debugging. Id 0 separates
  texts and replaces an empty text.
  """

  def __init__(self, vocab_size):
    self.vocab_size = vocab_size

  def encode(self, texts, *, max_length, keep='start'):
    """Returns (list of int32 ids_L, list of bool: which were truncated)."""
    ids = self.encode_whole(texts)
    cut = [len(row) > max_length for row in ids]
    part = {'start': slice(max_length), 'end': slice(-max_length, None)}[keep]
    empty = np.array([self.end_id()], np.int32)
    return [row[part] if len(row) else empty for row in ids], cut

  def encode_whole(self, texts):
    """Returns a list of int32 ids_L, not truncated."""
    words = [text.split() for text in texts]
    # Each word once: texts repeat most of theirs.
    id_of = {word: self._hash(word) for word in set().union(*words)}
    return [np.array([*map(id_of.get, row)], np.int32) for row in words]

  def special_ids(self):
    return [], []

  def end_id(self):
    return 0

  def token_id(self, text):
    """Returns the id of one word.

    Raises:
      ValueError: `text` is not one word.
    """
    if len(text.split()) != 1:
      raise errors.UserError(f'{text!r} is not one word.')
    return self._hash(text.strip())

  def save(self, folder):
    path = epath.Path(folder) / 'word_hash.json'
    path.write_text(json.dumps({'vocab_size': self.vocab_size}))

  def _hash(self, word):
    return 1 + zlib.crc32(word.encode()) % (self.vocab_size - 1)


class Prompted:
  """Puts each text into a prompt template, after few-shot examples.

  In examples the model answers with one token. Template and answers are never
  truncated; the texts of examples and question are truncated to the same
  length. Special tokens stand where the tokenizer puts them around a text.
  """

  def __init__(self, tokenizer, template, examples=()):
    """Takes a template with one '{text}' and examples (text, answer id)."""
    if template.count('{text}') != 1:
      raise errors.UserError(
        f"prompt={template!r} must have one '{{text}}' in it."
      )
    self._tokenizer = tokenizer
    self._template = template
    self._examples = [tuple(example) for example in examples]
    frame = [*template.split('{text}'), '\n\n']
    self._before, self._after, self._gap = tokenizer.encode_whole(frame)

  def with_examples(self, examples):
    return Prompted(self._tokenizer, self._template, examples)

  def encode(self, texts, *, max_length, keep='start'):
    """Returns (list of int32 ids_L, list of bool: which were truncated).

    Raises:
      ValueError: max_length has no room for a token of each text.
    """
    start, end = self._tokenizer.special_ids()
    frame = len(self._before) + len(self._after)
    shots = len(self._examples)
    fixed = len(start) + shots * (frame + 1 + len(self._gap)) + frame + len(end)
    room = (max_length - fixed) // (shots + 1)
    if room < 1:
      raise errors.UserError(
        f'max_length={max_length} has no room for a prompt with {shots} '
        f'examples: all but the texts is {fixed} tokens.'
      )
    part = {'start': slice(room), 'end': slice(-room, None)}[keep]
    shown = self._tokenizer.encode_whole([text for text, _ in self._examples])
    context = [np.array(start, np.int32)]
    for ids, (_, answer) in zip(shown, self._examples):
      context += [self._before, ids[part], self._after, [answer], self._gap]
    context = np.concatenate([*context, self._before]).astype(np.int32)
    after = np.append(self._after, np.array(end, np.int32))
    texts = self._tokenizer.encode_whole(texts)
    rows = [np.concatenate([context, x[part], after]) for x in texts]
    return rows, [len(x) > room for x in texts]

  def as_tokenizer(self):
    """Returns the Tokenizer whose file holds the template, without examples.

    Raises:
      ValueError: there are examples, or the tokenizer has no file.
    """
    if self._examples or not isinstance(self._tokenizer, Tokenizer):
      raise errors.UserError(
        'Only prompts without examples, of a tokenizer.json, fit into a '
        'tokenizer.json.'
      )
    start, end = self._tokenizer.special_ids()
    return self._tokenizer.around([*start, *self._before], [*self._after, *end])

  def encode_whole(self, texts):
    return self._tokenizer.encode_whole(texts)

  def special_ids(self):
    return self._tokenizer.special_ids()

  def end_id(self):
    return self._tokenizer.end_id()

  def save(self, folder):
    self._tokenizer.save(folder)
    fields = {'template': self._template, 'examples': self._examples}
    path = epath.Path(folder) / 'prompt.json'
    path.write_text(json.dumps(fields, indent=2))


class Characters:
  """Tokenizes ASCII characters, for random generators."""

  vocab_size = 128

  def special_ids(self):
    return [], []

  def end_id(self):
    return 0

  def encode_whole(self, texts):
    """Returns a list of int32 ids_L; other characters become '?'."""
    codes = [text.encode('ascii', errors='replace') for text in texts]
    return [np.frombuffer(code, np.uint8).astype(np.int32) for code in codes]

  def decode(self, ids):
    """Returns a list of texts."""
    return [''.join(map(chr, row)) for row in ids]

  def save(self, folder):
    path = epath.Path(folder) / 'characters.json'
    path.write_text(json.dumps({'vocab_size': self.vocab_size}))


class Board:
  """Encodes chess positions as tokens and legal moves, see tasks/chess.py."""

  vocab_size = chess_task.VOCAB_SIZE

  def encode(self, positions):
    """Returns a list of chess.Encoded, in int32 arrays."""
    return [_encode_board(position.fen) for position in positions]

  def save(self, folder):
    path = epath.Path(folder) / 'board.json'
    path.write_text(json.dumps({'vocab_size': self.vocab_size}))


@functools.lru_cache(maxsize=100_000)
def _encode_board(fen):
  encoded = chess_task.encode(chess.Board(fen))
  return chess_task.Encoded(*(np.array(x, np.int32) for x in encoded))


@functools.lru_cache(maxsize=8)
def shared(kind, *arguments):
  """Returns kind(*arguments), the same object for all models that it serves.

  So rows are tokenized once for all of them, see evaluate.Evaluation.
  """
  return kind(*arguments)


def load(folder):
  """Loads a tokenizer that `save` wrote, or the tokenizer.json of a model.

  Raises:
    FileNotFoundError: the folder holds no tokenizer.
    ValueError: its file is damaged.
  """
  folder = epath.Path(folder)
  prompt = folder / 'prompt.json'
  if prompt.exists():
    return Prompted(_load(folder), **json.loads(prompt.read_text()))
  return _load(folder)


def _load(folder):
  for name, kind in {'board': Board, 'characters': Characters}.items():
    if (folder / f'{name}.json').exists():
      return shared(kind)
  hashed, path = folder / 'word_hash.json', folder / 'tokenizer.json'
  if hashed.exists():
    return shared(WordHash, json.loads(hashed.read_text())['vocab_size'])
  if not path.exists():
    raise errors.MissingFileError(
      f'{path} not found: the folder has no tokenizer.'
    )
  try:
    return shared(_parse, path.read_text(encoding='utf-8'))
  except Exception as error:  # the library raises nothing narrower
    raise errors.UserError(f'{path} is damaged ({error}).') from None


def _parse(text):
  return Tokenizer(tokenizers.Tokenizer.from_str(text))
