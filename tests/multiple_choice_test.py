import re

import pytest

from w2s_jax.tasks import multiple_choice

import tiny_rows

SCIQ = {
  'question': 'what melts?',
  'correct_answer': 'snow',
  'distractor1': 'sand',
  'distractor2': 'salt',
  'distractor3': 'soot',
}
WRONG = ['sand', 'salt', 'soot']
OPENBOOKQA = {
  'question_stem': 'what melts?',
  'choices': {'text': ['snow', *WRONG], 'label': list('ABCD')},
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
COSMOS_QA = {
  'context': 'It rained .',
  'question': 'Why ?',
  'answer0': 'None of the above choices .',
  'answer1': 'No',
  'answer2': 'None of the above choices .',
  'answer3': 'Yes',
  'label': 3,
}
SOCIAL_I_QA = {
  'context': 'Kim fell.',
  'question': 'Why?',
  'answerA': 'to rest',
  'answerB': 'by bad luck',
  'answerC': 'for fun',
  'label': '2\n',
}
WINOGRANDE = {
  'sentence': 'Sam saw Kim as _ ran.',
  'option1': 'Sam',
  'option2': 'Kim',
}


def _answers(converted):
  """Returns {label: answer} of the two examples of a question."""
  return {label: text.split('\n')[1] for text, _, label in converted}


def test_texts_are_what_a_reader_would_ask():
  (right, group, one), (wrong, _, zero) = multiple_choice.sciq(SCIQ)
  assert (right, one, zero) == ('Q: what melts?\nA: snow', 1, 0)
  assert group == 'what melts?'
  assert wrong.split('A: ')[1] in WRONG
  assert multiple_choice.openbookqa(OPENBOOKQA) == multiple_choice.sciq(SCIQ)

  [(text, group, label), _] = multiple_choice.social_i_qa(SOCIAL_I_QA)
  assert (text, label) == ('Q: Why?\nA: by bad luck\nKim fell.', 1)
  assert group == 'Kim fell.'
  [row] = multiple_choice.multirc(
    {'paragraph': 'One.\nTwo.', 'question': 'How?', 'answer': 'so', 'label': 0}
  )
  assert row == ('Q: How?\nA: so\nOne.\nTwo.', 'One.\nTwo.', 0)
  assert multiple_choice.without_answer(row[0]) == 'Q: How?\nOne.\nTwo.'


def _choices(name, row):
  """Returns the candidates of a row, and the right one."""
  if name == 'dream':
    return row['choice'], row['answer']
  if name == 'quartz':
    texts = row['choices']['text']
    return texts, texts['ABCD'.index(row['answerKey'])]
  if name == 'quail':
    return row['answers'], row['answers'][row['correct_answer_id']]
  texts = {
    'hellaswag': lambda: row['endings'],
    'piqa': lambda: [row['sol1'], row['sol2']],
    'cosmos_qa': lambda: [row[f'answer{i}'] for i in range(4)],
  }[name]()
  return texts, texts[int(row['label'])]


@pytest.mark.parametrize(
  'name', ['dream', 'quartz', 'quail', 'hellaswag', 'piqa', 'cosmos_qa']
)
def test_the_right_answer_is_the_one_that_upstream_names(name):
  convert = getattr(multiple_choice, name)
  for row in tiny_rows.rows(name, 30):
    texts, right = _choices(name, row)
    answers = _answers(convert(row))
    assert answers[1] == f'A: {right}'
    assert answers[0].removeprefix('A: ') in set(texts) - {right}


def test_wrong_candidate_does_not_depend_on_the_order():
  swapped = {**SCIQ, 'distractor1': 'soot', 'distractor3': 'sand'}
  assert multiple_choice.sciq(SCIQ) == multiple_choice.sciq(swapped)
  chosen = set()
  for i in range(40):
    row = {**SCIQ, 'question': f'q {i}'}
    chosen.add(multiple_choice.sciq(row)[1][0][-4:])
  assert chosen == set(WRONG)


def test_spellings_of_tfds_give_the_same():
  assert multiple_choice.openbookqa(OPENBOOKQA) == multiple_choice.openbookqa(
    OPENBOOKQA_TFDS
  )
  unified = {
    'input': r'Why? \n (A) to rest (B) by bad luck (C) for fun \n Kim fell.',
    'output': 'by bad luck',
  }
  assert multiple_choice.social_i_qa(unified) == multiple_choice.social_i_qa(
    SOCIAL_I_QA
  )
  hf = {'ctx': 'He', 'endings': ['a', 'b', 'c', 'd'], 'label': '2'}
  tfds = {'context': 'He', 'endings': ['a', 'b', 'c', 'd'], 'label': 2}
  assert multiple_choice.hellaswag(hf) == multiple_choice.hellaswag(tfds)
  tfds = {**WINOGRANDE, 'label': 1}
  assert multiple_choice.winogrande(tfds) == multiple_choice.winogrande(
    {**WINOGRANDE, 'answer': '2'}
  )
  choices = {'text': ['a', 'b'], 'label': [0, 1]}
  tfds = {'question': 'q', 'choices': choices, 'answerKey': 1}
  hf = {**tfds, 'choices': {**choices, 'label': ['A', 'B']}, 'answerKey': 'B'}
  assert multiple_choice.arc(tfds) == multiple_choice.arc(hf)


def test_none_of_the_above_is_neither_right_nor_wrong():
  answers = _answers(multiple_choice.cosmos_qa(COSMOS_QA))
  assert answers == {1: 'A: Yes', 0: 'A: No'}
  assert multiple_choice.cosmos_qa({**COSMOS_QA, 'label': 0}) == []


def test_not_enough_information_is_as_often_right_as_wrong():
  count = {0: 0, 1: 0}
  for row in tiny_rows.rows('quail', 4000):
    for label, answer in _answers(multiple_choice.quail(row)).items():
      count[label] += answer == 'A: not enough information'
  assert abs(count[0] - count[1]) < 4 * sum(count.values()) ** 0.5
  assert 300 < count[1] < 600


def test_options_and_sentences_stand_in_their_places():
  right = 'Sam saw Kim as Kim ran.'
  converted = multiple_choice.winogrande({**WINOGRANDE, 'answer': '2'})
  assert [(t, y) for t, _, y in converted if y] == [(right, 1)]
  twin = {**WINOGRANDE, 'option1': 'Kim', 'option2': 'Sam', 'answer': '1'}
  assert converted[0][1] == multiple_choice.winogrande(twin)[0][1]
  row = {'sent0': 'Ice is hot.', 'sent1': 'Ice is cold.', 'label': 0}
  assert {t: y for t, _, y in multiple_choice.comve(row)} == {
    'Ice is hot.': 0,
    'Ice is cold.': 1,
  }


@pytest.mark.parametrize(
  'name, row, message',
  [
    ('openbookqa', {**OPENBOOKQA_TFDS, 'answerKey': -1}, 'hidden labels'),
    ('cosmos_qa', {**COSMOS_QA, 'label': -1}, 'hidden labels'),
    ('winogrande', {**WINOGRANDE, 'label': -1}, 'hidden labels'),
    ('winogrande', {**WINOGRANDE, 'answer': ''}, "answer '' is not a whole"),
    ('social_i_qa', {**SOCIAL_I_QA, 'label': '4'}, 'answer 4 is not one of'),
    (
      'social_i_qa',
      {'input': 'Why? (A) so', 'output': 'so'},
      'is not question, answers, passage',
    ),
    (
      'dream',
      {'dialogue': ['a'], 'question': 'b', 'choice': ['c'], 'answer': 'd'},
      "answer 'd' is not one of the choices",
    ),
  ],
)
def test_bad_rows_say_what_is_wrong(name, row, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    getattr(multiple_choice, name)(row)
