import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers as hf

from w2s_jax.models import tokenizers

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '0', '1', 'good', 'bad', '##ly']


def bert_like():
  """Returns a WordPiece tokenizer with stored padding and truncation."""
  vocab = {word: i for i, word in enumerate(WORDS)}
  backend = hf.Tokenizer(hf.models.WordPiece(vocab, unk_token='[UNK]'))
  backend.normalizer = hf.normalizers.BertNormalizer()
  backend.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
  backend.add_special_tokens(WORDS[:4])
  backend.post_processor = hf.processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  backend.enable_padding(length=32)
  backend.enable_truncation(4)
  return backend


def gpt2_like():
  """Returns a byte-level tokenizer without special tokens around a text."""
  alphabet = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
  vocab = {letter: i for i, letter in enumerate(alphabet)}
  backend = hf.Tokenizer(hf.models.BPE(vocab, []))
  backend.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = hf.decoders.ByteLevel()
  backend.add_special_tokens(['<|endoftext|>'])
  return backend


def loaded(backend, folder):
  backend.save(str(folder / 'tokenizer.json'))
  return tokenizers.load(folder)


def as_lists(ids):
  return [row.tolist() for row in ids]


def test_stored_padding_and_truncation_are_dropped(tmp_path):
  tokenizer = loaded(bert_like(), tmp_path)
  tokenizer.save(tmp_path)
  saved = json.loads((tmp_path / 'tokenizer.json').read_text())
  assert saved['padding'] is None and saved['truncation'] is None
  ids, cut = tokenizer.encode(['good bad Goodly 1'], max_length=128)
  assert as_lists(ids) == [[2, 6, 7, 6, 8, 5, 3]]
  assert ids[0].dtype == np.int32
  assert sum(cut) == 0


def test_cuts_the_end_and_keeps_special_tokens(tmp_path):
  tokenizer = loaded(bert_like(), tmp_path)
  texts = ['good bad good', 'good bad', 'bad ' * 50, '']
  ids, cut = tokenizer.encode(texts, max_length=4)
  assert as_lists(ids) == [[2, 6, 7, 3], [2, 6, 7, 3], [2, 7, 7, 3], [2, 3]]
  assert sum(cut) == 2
  assert cut == [True, False, True, False]
  assert as_lists(tokenizer.encode(['good bad good'], max_length=9)[0]) == [
    [2, 6, 7, 6, 3]
  ]
  ends, same = tokenizer.encode(texts, max_length=4, keep='end')
  assert as_lists(ends) == [[2, 7, 6, 3], [2, 6, 7, 3], [2, 7, 7, 3], [2, 3]]
  assert same == cut
  with pytest.raises(ValueError, match='max_length=2 has no room'):
    tokenizer.encode(texts, max_length=2)


def test_a_text_without_tokens_is_one_special_token(tmp_path):
  tokenizer = loaded(gpt2_like(), tmp_path)
  ids, cut = tokenizer.encode(['', 'ab'], max_length=1)
  assert as_lists(ids)[0] == [256]
  assert len(ids[1]) == 1 and sum(cut) == 1
  assert tokenizer.vocab_size == 257


def test_token_id(tmp_path):
  tokenizer = loaded(bert_like(), tmp_path)
  assert (tokenizer.token_id('0'), tokenizer.token_id('1')) == (4, 5)
  for text in ('goodly', '', 'unknown'):
    with pytest.raises(ValueError, match=f"'{text}' is not one token"):
      tokenizer.token_id(text)


def llama2_like():
  """Puts a space before each text; <unk> comes before what ends a text."""
  vocab = ['<unk>', '<s>', '</s>', '\u2581', '0', '1', 'a']
  vocab = {token: i for i, token in enumerate(vocab)}
  backend = hf.Tokenizer(hf.models.BPE(vocab, [], unk_token='<unk>'))
  backend.normalizer = hf.normalizers.Sequence(
    [hf.normalizers.Prepend('\u2581'), hf.normalizers.Replace(' ', '\u2581')]
  )
  backend.add_special_tokens(['<unk>', '<s>', '</s>'])
  backend.post_processor = hf.processors.TemplateProcessing(
    single='<s> $A', special_tokens=[('<s>', 1)]
  )
  return backend


def test_a_tokenizer_that_puts_a_space_before_texts(tmp_path):
  tokenizer = loaded(llama2_like(), tmp_path)
  assert as_lists(tokenizer.encode(['0 1'], max_length=9)[0]) == [
    [1, 3, 4, 3, 5]
  ]
  assert (tokenizer.token_id('0'), tokenizer.token_id('1')) == (4, 5)
  with pytest.raises(ValueError, match="'01' is not one token"):
    tokenizer.token_id('01')


@pytest.mark.parametrize(
  'make, start, end',
  [(bert_like, [2], [3]), (gpt2_like, [], []), (llama2_like, [1], [])],
)
def test_special_ids_around_a_text(make, start, end, tmp_path):
  tokenizer = loaded(make(), tmp_path)
  assert tokenizer.special_ids() == (start, end)
  prompted = tokenizers.Prompted(tokenizer, 'bad {text} 1')
  assert prompted.special_ids() == (start, end)
  # Without a template around it, the text is as the tokenizer encodes it.
  plain = tokenizers.Prompted(tokenizer, '{text}')
  ids, cut = plain.encode(['0 1', '1'], max_length=9)
  expected, _ = tokenizer.encode(['0 1', '1'], max_length=9)
  assert as_lists(ids) == as_lists(expected) and cut == [False, False]


def test_a_prompt_is_within_special_tokens_and_never_truncated(tmp_path):
  tokenizer = tokenizers.Prompted(
    loaded(bert_like(), tmp_path), 'good {text} bad'
  )
  texts = ['0 1 1 1', '0']
  ids, cut = tokenizer.encode(texts, max_length=6)
  assert as_lists(ids) == [[2, 6, 4, 5, 7, 3], [2, 6, 4, 7, 3]]
  assert cut == [True, False]
  ids, _ = tokenizer.encode(texts, max_length=6, keep='end')
  assert as_lists(ids) == [[2, 6, 5, 5, 7, 3], [2, 6, 4, 7, 3]]
  with pytest.raises(ValueError, match='max_length=4 has no room.*4 tokens'):
    tokenizer.encode(texts, max_length=4)


def test_what_ends_a_text_is_known_by_its_name(tmp_path):
  assert loaded(llama2_like(), tmp_path).end_id() == 2
  assert loaded(gpt2_like(), tmp_path).end_id() == 256
  assert loaded(bert_like(), tmp_path).end_id() == 0


@pytest.mark.parametrize('make', [bert_like, gpt2_like])
def test_save_round_trips(make, tmp_path):
  tokenizer = loaded(make(), tmp_path)
  texts = ['good 0', 'bad ' * 9, '', 'naïve ☃']
  ids, cut = tokenizer.encode(texts, max_length=6)
  (tmp_path / 'copy').mkdir()
  (tmp_path / 'again').mkdir()
  tokenizer.save(tmp_path / 'copy')
  copy = tokenizers.load(tmp_path / 'copy')
  copy.save(tmp_path / 'again')
  copied_ids, copied_cut = copy.encode(texts, max_length=6)
  assert as_lists(copied_ids) == as_lists(ids) and copied_cut == cut
  first, second = (
    (tmp_path / name / 'tokenizer.json').read_text()
    for name in ('copy', 'again')
  )
  assert first == second


def test_whole_texts_there_and_back(tmp_path):
  texts = [' Qa1xb2#\n', '', 'e4', '1. e4 e5 2.' * 9]
  tokenizer = loaded(gpt2_like(), tmp_path)
  ids = tokenizer.encode_whole(texts)
  assert [row.dtype for row in ids] == [np.int32] * 4
  assert [len(row) for row in ids] == [9, 0, 2, 99]
  assert tokenizer.decode(ids) == texts
  assert tokenizer.decode(np.stack([ids[2], [258, 256]])) == [
    'e4',
    '<|endoftext|>',  # 258 is no token
  ]
  bert = loaded(bert_like(), tmp_path)
  assert as_lists(bert.encode_whole(['good bad'])) == [[6, 7]]


def test_characters(tmp_path):
  tokenizer = tokenizers.Characters()
  tokenizer.save(tmp_path)
  assert isinstance(tokenizers.load(tmp_path), tokenizers.Characters)
  texts = [' Nf3\n', '', 'K\u00e9']
  ids = tokenizer.encode_whole(texts)
  assert as_lists(ids) == [[32, 78, 102, 51, 10], [], [75, 63]]
  assert [row.dtype for row in ids] == [np.int32] * 3
  assert tokenizer.decode(ids) == [' Nf3\n', '', 'K?']


def test_word_hash(tmp_path):
  tokenizer = tokenizers.WordHash(50)
  texts = ['a b  a\nc', '', 'x ' * 9]
  ids, cut = tokenizer.encode(texts, max_length=4)
  assert [len(row) for row in ids] == [4, 1, 4] and sum(cut) == 1
  assert ids[0][0] == ids[0][2] == tokenizer.token_id('a')
  assert ids[1].tolist() == [tokenizer.end_id()] == [0]
  ends, _ = tokenizer.encode(['a b c'], max_length=2, keep='end')
  assert ends[0].tolist() == [tokenizer.token_id('b'), tokenizer.token_id('c')]
  assert all(row.dtype == np.int32 for row in ids)
  many, _ = tokenizer.encode([str(i) for i in range(2000)], max_length=1)
  assert {int(row[0]) for row in many} == set(range(1, tokenizer.vocab_size))
  tokenizer.save(tmp_path)
  copied_ids, _ = tokenizers.load(tmp_path).encode(texts, max_length=4)
  assert as_lists(copied_ids) == as_lists(ids)
  with pytest.raises(ValueError, match='not one word'):
    tokenizer.token_id('a b')


def test_word_hash_is_the_same_in_every_process():
  code = (
    'from w2s_jax.models import tokenizers; '
    "print(tokenizers.WordHash(1024).token_id('film'))"
  )
  printed = {
    subprocess.run(
      [sys.executable, '-c', code],
      env={'PYTHONHASHSEED': seed, 'PYTHONPATH': sys.path[0]},
      capture_output=True,
      check=True,
      text=True,
    ).stdout
    for seed in ('1', '2')
  }
  assert printed == {f'{tokenizers.WordHash(1024).token_id("film")}\n'}


def test_absent_or_damaged_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='tokenizer.json not found'):
    tokenizers.load(tmp_path)
  backend = bert_like().to_str()
  (tmp_path / 'tokenizer.json').write_text(backend[: len(backend) // 2])
  with pytest.raises(ValueError, match='tokenizer.json is damaged'):
    tokenizers.load(tmp_path)
