import numpy as np
import pytest

from w2s_jax.tasks import nlp
from w2s_jax.tasks import texts

import tiny_rows

BOOLQ = {'question': 'is it so', 'passage': 'It is so.', 'answer': True}
WIC = {'word': 'Bank', 'sentence1': 'A bank.', 'sentence2': 'To bank.'}


def _converted(name, row):
  return nlp.TASKS[name].convert(row)


def test_texts_are_what_a_reader_would_ask():
  assert _converted('sst2', {'sentence': ' fine ', 'label': 1}) == [
    ('fine', 'fine', 1)
  ]
  assert texts.boolq(BOOLQ) == [('Q: is it so?\nIt is so.', 'It is so.', 1)]
  assert texts.boolq_question_only(BOOLQ) == [
    ('Q: is it so?', 'Q: is it so?', 1)
  ]
  question = 'Does "Bank" mean the same in both sentences?'
  assert texts.wic({**WIC, 'label': 0}) == [
    (f'A bank.\nTo bank.\n{question}', 'bank', 0)
  ]
  row = {'title': 'Good', 'content': 'Very.', 'label': 1}
  assert texts.amazon_polarity(row) == [('Good\nVery.', 'Very.', 1)]
  assert texts.amazon_polarity({**row, 'title': ''})[0][0] == 'Very.'
  row = {'scenario': 'Should you?', 'excuse': 'No.', 'label': 1}
  assert texts.ethics_deontology(row) == [
    ('Should you?\nNo.', 'Should you?', 1)
  ]
  row = {'scenario': 'Kim ran. [SEP] Bold', 'label': 0}
  assert texts.ethics_virtue(row) == [('Kim ran.\nTrait: bold', 'Kim ran.', 0)]
  assert texts.without_trait('Kim ran.\nTrait: bold') == 'Kim ran.'


def test_spellings_of_other_versions_give_the_same():
  other = {**BOOLQ, 'question': 'is it so?', 'label': 1}
  del other['answer']
  assert texts.boolq(BOOLQ) == texts.boolq(other)
  for label in (1, '1', True, 'True', 'true', np.int64(1), np.True_):
    assert _converted('cola', {'sentence': 'a', 'label': label})[0][2] == 1
  mixed = {'text': 'a<br />b', 'label': '0', 'source': 'imdb'}
  assert _converted('imdb', mixed) == [('a b', 'a b', 0)]
  assert _converted('rotten_tomatoes', mixed) == []
  hf = {'premise': 'a', 'hypothesis': 'b', 'label': 0}
  tfds = {'context': 'a', 'hypothesis': 'b', 'label': 0}
  assert _converted('anli_r2', hf) == _converted('anli_r2', tfds)
  tfds, hf = ({'text': 'a', 'polarity': 4}, {'text': 'a', 'label': 1})
  assert _converted('twitter_sentiment', tfds) == _converted(
    'twitter_sentiment', hf
  )


@pytest.mark.parametrize('name, classes', [('anli_r2', 3), ('rte', 2)])
def test_class_0_is_what_follows(name, classes):
  for label in range(classes):
    row = {'premise': 'a', 'hypothesis': 'b', 'label': label}
    assert _converted(name, row) == [('Claim: b\na', 'a', int(label == 0))]
  assert _converted(name, {**row, 'label': -1})[0][2] == -1  # stays hidden


def test_neutral_tweets_are_left_out():
  for name, column, values in (
    ('tweet_eval_sentiment', 'label', {0: 0, 1: None, 2: 1}),
    ('twitter_sentiment', 'polarity', {0: 0, 2: None, 4: 1}),
  ):
    for value, label in values.items():
      converted = _converted(name, {'text': 'a', column: value})
      assert converted == ([] if label is None else [('a', 'a', label)])
    assert _converted(name, {'text': 'a', column: -1})[0][2] == -1


def test_both_answers_of_a_dialogue_and_what_they_answer():
  start = 'Human: Hi\n\nAssistant: Yes?\n\nHuman: Why?'
  row = {
    'chosen': f'\n\n{start}\n\nAssistant: So.',
    'rejected': f'\n\n{start}\n\nAssistant: No.',
  }
  assert texts.anthropic_hh(row) == [
    (f'Assistant: So.\n\n{start}', 'Human: Hi', 1),
    (f'Assistant: No.\n\n{start}', 'Human: Hi', 0),
  ]


def test_the_more_pleasant_side_does_not_depend_on_the_row():
  labels = []
  for row in tiny_rows.rows('ethics_utilitarianism', 400):
    [(text, group, label)] = texts.ethics_utilitarianism(row)
    first = text.split('\n')[0].removeprefix('1) ')
    assert first == row['baseline' if label else 'less_pleasant']
    turned = dict(zip(row, list(row.values())[::-1], strict=True))
    assert texts.ethics_utilitarianism(turned) == [(text, group, 1 - label)]
    labels.append(label)
  assert abs(np.mean(labels) - 0.5) < 0.1


def test_what_was_made_from_one_thing_is_one_group():
  def group(convert, **row):
    return convert({'label': 0, **row})[0][1]

  swapped = [
    group(texts.paws, sentence1=first, sentence2='a')
    for first in ('Kim saw Sam .', 'Sam saw Kim .')
  ]
  assert swapped[0] == swapped[1]
  claims = [
    group(texts.ethics_justice, scenario=f'I rest because {why}')
    for why in ('I am tired.', 'it rains.')
  ]
  assert claims == ['i rest'] * 2
  pairs = [
    ('I ate an apple.', 'I ate an apple pie.'),
    ('I ate an apple.', 'I.'),
  ]
  groups = [
    group(texts.ethics_utilitarianism, baseline=one, less_pleasant=other)
    for one, other in pairs[:1] + [pairs[0][::-1]]
  ]
  assert groups[0] == groups[1]
  entity = group(texts.creak, sentence='Kim ran.', entity='Kim')
  assert entity == 'kim'
