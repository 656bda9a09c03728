import json
import pathlib
import re
import string

import numpy as np
import pytest

from w2s_jax import tasks
from w2s_jax.tasks import nlp, sources

DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


def _write(folder, rows, *, split='train') -> str:
  """Writes rows to a file; returns the source string for the folder."""
  lines = (json.dumps(row) + '\n' for row in rows)
  (folder / f'{split}.jsonl').write_text(''.join(lines))
  return f'file:{folder}/{{split}}.jsonl'


def _pool(folder, rows, name) -> tasks.Examples:
  _write(folder, rows)
  return tasks.load(name, source=f'file:{folder}/train.jsonl')[0]


BOOLQ = {'question': 'is it so', 'passage': 'It is so.', 'answer': True}
WIC = {'word': 'Bank', 'sentence1': 'A bank.', 'sentence2': 'To bank.'}
CHOICES = ['snow', 'sand', 'salt', 'soot']
SCIQ = {
  'question': 'what melts?',
  'correct_answer': 'snow',
  'distractor1': 'sand',
  'distractor2': 'salt',
  'distractor3': 'soot',
}
OPENBOOKQA = {
  'question_stem': 'what melts?',
  'choices': {'text': CHOICES, 'label': list('ABCD')},
  'answerKey': 'A',
}
OPENBOOKQA_TFDS = {
  'question': {
    'stem': 'what melts?',
    'choice_A': 'snow',
    'choice_B': 'sand',
    'choice_C': 'salt',
    'choice_D': 'soot',
  },
  'answerKey': 0,
}


def _converted(name, row):
  return nlp.TASKS[name].convert(row)


def test_texts_are_what_a_reader_would_ask():
  assert _converted('sst2', {'sentence': ' fine ', 'label': 1}) == [
    ('fine', 'fine', 1)
  ]
  assert _converted('boolq', BOOLQ) == [
    ('Q: is it so?\nIt is so.', 'It is so.', 1)
  ]
  assert _converted('boolq_question_only', BOOLQ) == [
    ('Q: is it so?', 'Q: is it so?', 1)
  ]
  question = 'Does "Bank" mean the same in both sentences?'
  assert _converted('wic', {**WIC, 'label': 0}) == [
    (f'A bank.\nTo bank.\n{question}', 'bank', 0)
  ]
  (right, group, one), (wrong, _, zero) = _converted('sciq', SCIQ)
  assert (right, one, zero) == ('Q: what melts?\nA: snow', 1, 0)
  assert group == 'what melts?'
  assert wrong.split('A: ')[1] in CHOICES[1:]


def test_spellings_of_other_versions_give_the_same():
  assert _converted('openbookqa', OPENBOOKQA) == _converted(
    'openbookqa', OPENBOOKQA_TFDS
  )
  other = {**BOOLQ, 'question': 'is it so?', 'label': 1}
  del other['answer']
  assert _converted('boolq', BOOLQ) == _converted('boolq', other)
  for label in (1, '1', True, 'True', 'true', np.int64(1), np.True_):
    assert _converted('cola', {'sentence': 'a', 'label': label})[0][2] == 1
  mixed = {'text': 'a<br />b', 'label': '0', 'source': 'imdb'}
  assert _converted('imdb', mixed) == [('a b', 'a b', 0)]
  assert _converted('rotten_tomatoes', mixed) == []


def test_wrong_candidate_does_not_depend_on_the_order():
  swapped = {**SCIQ, 'distractor1': 'soot', 'distractor3': 'sand'}
  assert _converted('sciq', SCIQ) == _converted('sciq', swapped)
  chosen = set()
  for i in range(40):
    chosen.add(_converted('sciq', {**SCIQ, 'question': f'q {i}'})[1][0][-4:])
  assert chosen == set(CHOICES[1:])


def _format_features(text: str) -> list[float]:
  """What an answer looks like, and nothing of what it says."""
  answer = text.rsplit('\nA: ', 1)[1]
  return [
    1,
    len(answer) / 50,
    len(answer.split()) / 8,
    len(answer) == 1,
    answer[0].isupper(),
    answer.islower(),
    answer.isupper(),
    answer[-1] in string.punctuation,
    any(char.isdigit() for char in answer),
    sum(char in string.punctuation for char in answer) / 5,
  ]


def _format_accuracy(texts, labels) -> float:
  """Held-out accuracy of a linear classifier that sees formats only."""
  x_NxF = np.array([_format_features(text) for text in texts], float)
  y_N = 2 * np.array(labels) - 1
  half = len(texts) // 4 * 2  # Cuts no question.
  gram_FxF = x_NxF[:half].T @ x_NxF[:half] + 1e-3 * np.eye(x_NxF.shape[1])
  w_F = np.linalg.solve(gram_FxF, x_NxF[:half].T @ y_N[:half])
  return float(np.mean((x_NxF[half:] @ w_F > 0) == (y_N[half:] > 0)))


def _leaky(row):
  """The well-known bug: the key's letter against the text of another answer."""
  stem, key = row['question_stem'], row['answerKey']
  wrong = row['choices']['text'][(ord(key) - ord('A') + 1) % 4]
  return [
    (f'Q: {stem}\nA: {key}', stem, 1),
    (f'Q: {stem}\nA: {wrong}', stem, 0),
  ]


def _leak(convert, rows) -> float:
  converted = [example for row in rows for example in convert(row)]
  texts, _, labels = zip(*converted, strict=True)
  assert np.mean(labels) == 0.5
  return _format_accuracy(texts, labels)


def _multiple_choice_rows(n):
  """Questions whose answers, of any length and case, are all alike."""
  random = np.random.RandomState(0)
  for i in range(n):
    texts = []
    for _ in range(4):
      words = random.choice(['oak', 'Fish', 'a', 'rock,', '7', 'IT.'], 4)
      texts.append(' '.join(words[: random.randint(1, 5)]))
    key = 'ABCD'[random.randint(4)]
    choices = {'text': texts, 'label': list('ABCD')}
    yield {'question_stem': f'q {i}', 'choices': choices, 'answerKey': key}


def test_the_format_of_an_answer_does_not_give_it_away():
  rows = list(_multiple_choice_rows(3000))
  limit = 0.5 + 4 * 0.5 / np.sqrt(3000)
  assert _leak(nlp.TASKS['openbookqa'].convert, rows) < limit
  assert _leak(_leaky, rows) > 0.8

  def sciq(row):
    key = ord(row['answerKey']) - ord('A')
    texts = list(row['choices']['text'])
    named = {'correct_answer': texts.pop(key), 'question': row['question_stem']}
    named |= {f'distractor{i + 1}': text for i, text in enumerate(texts)}
    return nlp.TASKS['sciq'].convert(named)

  assert _leak(sciq, rows) < limit


def _real(name) -> pathlib.Path:
  if not (DATA / name).is_dir():
    pytest.skip(f'no {DATA / name}')
  return DATA / name


def test_the_format_of_real_answers_hardly_gives_them_away():
  file = _real('openbookqa') / 'train.jsonl.gz'
  rows = [row for _, row in sources.read(f'file:{file}', '')]
  # Not quite at chance: right answers of this data set are somewhat longer.
  assert _leak(nlp.TASKS['openbookqa'].convert, rows) < 0.62
  assert _leak(_leaky, rows) > 0.99


@pytest.mark.parametrize(
  'name, file, train, test',
  [
    ('sst2', 'sst2', 6911, 872),
    ('cola', 'cola', 8521, 1036),
    ('wic', 'wic', 5428, 638),
    ('openbookqa', 'openbookqa', 10784, 1000),
    ('boolq_question_only', 'boolq_question_only', 9427, 3270),
  ],
)
def test_real_files_load(name, file, train, test):
  source = f'file:{_real(file)}/{{split}}.jsonl.gz'
  pool, held_out, counts = tasks.load(name, source=source)
  assert (len(pool), len(held_out)) == (train, test)
  for examples, count in ((pool, counts['train']), (held_out, counts['test'])):
    dropped = count['duplicates'] + count['conflicting']
    assert count['examples'] == len(examples) + dropped
    np.testing.assert_allclose(examples.label_probs_NxC.sum(axis=1), 1)
    assert examples.label_probs_NxC.dtype == np.float32


def test_ids_depend_on_the_inputs_alone(tmp_path):
  rows = [{'sentence': f'é {i}', 'label': i % 2, 'idx': i} for i in range(9)]
  first = _pool(tmp_path, rows, 'sst2')
  second = _pool(tmp_path, rows[::-1], 'cola')
  assert first.ids.tolist() == second.ids.tolist()[::-1]
  reviews = [{'text': f'é {i} ', 'label': 1 - i % 2} for i in range(9)]
  assert _pool(tmp_path, reviews, 'imdb').ids.tolist() == first.ids.tolist()
  assert first.ids[0] == '4d69747f30444aaa'


def test_duplicates_once_and_contradictions_never(tmp_path):
  texts = ['a', 'a', 'b', 'b ', 'b', 'c']
  labels = [1, 1, 0, 1, 0, 1]
  pairs = zip(texts, labels, strict=True)
  source = _write(tmp_path, [{'sentence': t, 'label': y} for t, y in pairs])
  pool, _, counts = tasks.load('sst2', source=source.format(split='train'))
  assert pool.inputs == ['a', 'c']
  assert pool.label_probs_NxC.tolist() == [[0, 1], [0, 1]]
  assert counts['train'] == {
    'rows': 6,
    'bad': 0,
    'examples': 6,
    'duplicates': 3,
    'conflicting': 1,
  }


def test_a_single_file_is_one_pool(tmp_path):
  rows = [{'sentence': f'{i}', 'label': i % 2} for i in range(4)]
  source = _write(tmp_path, rows)
  _write(tmp_path, rows[:2], split='validation')
  pool, test, _ = tasks.load('sst2', source=source)
  assert (len(pool), len(test)) == (4, 2)
  pool, test, _ = tasks.load('sst2', source=f'file:{tmp_path}/train.jsonl')
  assert (len(pool), test) == (4, None)


@pytest.mark.parametrize(
  'name, row, message',
  [
    ('sst2', {'text': 'a', 'label': 1}, "column 'sentence'; there are 'text'"),
    (
      'sst2',
      {'sentence': '  ', 'label': 1},
      "'  ' where there should be a text",
    ),
    ('sst2', {'sentence': None, 'label': 1}, 'None where there should be a'),
    ('sst2', {'sentence': 'a', 'label': 2}, 'label 2 is not in 0..1'),
    ('sst2', {'sentence': 'a', 'label': 0.5}, 'label 0.5 is not a whole'),
    ('sst2', {'sentence': 'a', 'label': None}, 'label None is not a whole'),
    ('sst2', {'sentence': 'a', 'label': -1}, 'hidden labels'),
    ('openbookqa', {**OPENBOOKQA, 'answerKey': 'E'}, "answerKey 'E' is not"),
    ('openbookqa', {**OPENBOOKQA_TFDS, 'answerKey': -1}, 'answerKey -1 is not'),
    ('openbookqa', {**OPENBOOKQA, 'choices': 'text'}, 'must be integers'),
    ('boolq', {**BOOLQ, 'answer': 'maybe'}, "label 'maybe' is not a whole"),
    ('wic', WIC, "column 'label'; there are 'word', 'sentence1'"),
  ],
)
def test_bad_row_is_named(tmp_path, name, row, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    _pool(tmp_path, [row], name)
  assert str(error.value).startswith(f'{tmp_path}/train.jsonl:1: ')


def test_no_rows_and_no_such_task(tmp_path):
  with pytest.raises(ValueError, match="no rows for task 'imdb'"):
    _pool(tmp_path, [{'text': 'a', 'label': 1, 'source': 'else'}], 'imdb')
  with pytest.raises(ValueError, match="did you mean 'openbookqa'"):
    tasks.load('openbook_qa')


def test_synthetic_labels_follow_the_cues():
  pool, test, _ = tasks.load('synthetic')
  assert test is None
  assert len(pool) > 9900
  praise = np.array(['good' in text.split() for text in pool.inputs])
  negated = np.array(['not good' in text for text in pool.inputs])
  labels = pool.label_probs_NxC[:, 1]
  assert labels[praise & ~negated].mean() > 0.6 > 0.5 > labels[negated].mean()


def test_take_keeps_columns_together():
  pool, *_ = tasks.load('synthetic')
  few = pool.take([5, 2])
  assert few.ids.tolist() == [pool.ids[5], pool.ids[2]]
  assert few.inputs == [pool.inputs[5], pool.inputs[2]]
  mask = np.arange(len(pool)) < 3
  assert pool.take(mask).groups.tolist() == pool.groups[:3].tolist()
