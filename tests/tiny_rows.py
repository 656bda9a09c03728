"""Synthetic rows of every text classification task, in their real columns.

A new task of w2s_jax/tasks/nlp.py needs a line in ROWS and no other test.

Texts are random, so right and wrong answers cannot be told apart.
"""

import numpy as np

WORDS = ['oak', 'Fish', 'a', 'rock,', '7', 'IT.', 'no!', 'x-ray', "it's", 'é']


class Source:
  """Random texts, choices and labels."""

  def __init__(self, seed=0):
    self._random = np.random.RandomState(seed)

  def text(self, longest=6):
    words = self._random.choice(WORDS, self._random.randint(1, longest + 1))
    return ' '.join(words)

  def index(self, n):
    return int(self._random.randint(n))

  def choices(self, n=4):
    """Returns n different texts, and the index of the right one."""
    texts = []
    while len(texts) < n:
      text = self.text()
      texts += [] if text in texts else [text]
    return texts, self.index(n)


def _labelled(column, label='label'):
  return lambda i, s: {column: f'{s.text()} {i}', label: s.index(2)}


def _lettered(i, s):
  texts, right = s.choices()
  choices = {'text': texts, 'label': list('ABCD')}
  return {'question': f'q {i}', 'choices': choices, 'answerKey': 'ABCD'[right]}


def _openbookqa(i, s):
  row = _lettered(i, s)
  stem = row.pop('question')
  return {**row, 'question_stem': stem}


def _cosmos_qa(i, s):
  texts, right = s.choices()
  answers = {f'answer{j}': text for j, text in enumerate(texts)}
  return {'context': f'c {i}', 'question': 'q', 'label': right, **answers}


def _dream(i, s):
  texts, right = s.choices(3)
  turns = [f'M: {s.text()}', f'W: {i}']
  named = {'choice': texts, 'answer': texts[right]}
  return {'dialogue': turns, 'question': 'q', **named}


def _hellaswag(i, s):
  texts, right = s.choices()
  return {'ctx': f'{s.text()} {i}', 'endings': texts, 'label': str(right)}


def _piqa(i, s):
  (one, other), right = s.choices(2)
  return {'goal': f'g {i}', 'sol1': one, 'sol2': other, 'label': right}


def _quail(i, s):
  texts, right = s.choices(3)
  unknown = s.index(9)
  texts.insert(s.index(4), 'not enough information')
  right = 'not enough information' if unknown == 0 else texts[0]
  if unknown and right == 'not enough information':
    right = texts[1]
  key = texts.index(right)
  return {
    'context': f'{s.text()} {i}',
    'question': f'q {i}',
    'answers': texts,
    'correct_answer_id': key,
  }


def _sciq(i, s):
  (right, *wrong), _ = s.choices()
  named = {f'distractor{j}': text for j, text in enumerate(wrong, 1)}
  return {'question': f'q {i}', 'correct_answer': right, **named}


def _social_i_qa(i, s):
  texts, right = s.choices(3)
  answers = {f'answer{letter}': text for letter, text in zip('ABC', texts)}
  label = f'{right + 1}\n'  # upstream's own line break
  return {'context': f'c {i}', 'question': 'q', 'label': label, **answers}


def _answered(question, passage):
  """Returns a maker of rows of one candidate each, four per question."""

  def row(i, s):
    named = {question: f'q {i // 4}', passage: f'p {i // 8}'}
    return {**named, 'answer': s.text(), 'label': s.index(2)}

  return row


def _hh(i, s):
  start = f'\n\nHuman: {s.text()} {i}\n\nAssistant:'
  (better, worse), _ = s.choices(2)
  return {'chosen': f'{start} {better}', 'rejected': f'{start} {worse}'}


def _winogrande(i, s):
  (one, other), right = s.choices(2)
  named = {'option1': one, 'option2': other, 'answer': str(right + 1)}
  return {'sentence': f'{s.text()} _ {s.text()} {i}', **named}


def _pair(first, second, **more):
  """Returns a maker of rows of two texts and a label."""

  def row(i, s):
    texts = {first: f'{s.text()} {i}', second: s.text()}
    return {**texts, 'label': s.index(more.get('classes', 2))}

  return row


def _utilitarianism(i, s):
  (better, worse), _ = s.choices(2)
  return {'baseline': f'{i} {better}', 'less_pleasant': f'{i} {worse}'}


ROWS = {
  'boolq': lambda i, s: {
    'question': s.text(),
    'passage': f'{s.text(30)} {i}',
    'answer': s.index(2) == 1,
  },
  'cosmos_qa': _cosmos_qa,
  'dream': _dream,
  'ethics_justice': _labelled('scenario'),
  'ethics_deontology': _pair('scenario', 'excuse'),
  'ethics_virtue': lambda i, s: {
    'scenario': f'p {i // 5} [SEP] {s.text(2)}',
    'label': s.index(2),
  },
  'ethics_utilitarianism': _utilitarianism,
  'anli_r2': _pair('premise', 'hypothesis', classes=3),
  'cola': _labelled('sentence'),
  'sst2': _labelled('sentence'),
  'hellaswag': _hellaswag,
  'mc_taco': _answered('question', 'sentence'),
  'openbookqa': _openbookqa,
  'paws': _pair('sentence1', 'sentence2'),
  'quail': _quail,
  'piqa': _piqa,
  'quartz': lambda i, s: {**_lettered(i, s), 'para': s.text(30)},
  'sciq': _sciq,
  'social_i_qa': _social_i_qa,
  'multirc': _answered('question', 'paragraph'),
  'wic': lambda i, s: {**_pair('sentence1', 'sentence2')(i, s), 'word': f'{i}'},
  'twitter_sentiment': lambda i, s: {
    'text': f'{s.text()} {i}',
    'polarity': 4 * s.index(2),
  },
  'rotten_tomatoes': _labelled('text'),
  'imdb': _labelled('text'),
  'amazon_polarity': _pair('content', 'title'),
  'anthropic_hh': _hh,
  'boolq_question_only': _labelled('question', 'answer'),
  'ai2_arc_easy': _lettered,
  'ai2_arc_challenge': _lettered,
  'clickbait': _labelled('headline', 'clickbait'),
  'comve': lambda i, s: {
    'sent0': f'{s.text()} {i}',
    'sent1': f'{s.text()} {i}',
    'label': s.index(2),
  },
  'creak': lambda i, s: {
    'sentence': f'{s.text()} {i}',
    'entity': f'e {i // 3}',
    'label': ['false', 'true'][s.index(2)],
  },
  'customer_reviews': _labelled('text'),
  'ethics_commonsense': _labelled('input'),
  'rte': _pair('premise', 'hypothesis'),
  'subj': _labelled('text'),
  'tweet_eval_hate': _labelled('text'),
  'tweet_eval_irony': _labelled('text'),
  'tweet_eval_offensive': _labelled('text'),
  'tweet_eval_sentiment': lambda i, s: {
    'text': f'{s.text()} {i}',
    'label': s.index(3),
  },
  'winogrande': _winogrande,
}


def rows(name, n):
  assert name in ROWS, (
    f'task {name!r} has no test row: add one to ROWS of tests/tiny_rows.py'
  )
  source = Source()
  return [ROWS[name](i, source) for i in range(n)]
