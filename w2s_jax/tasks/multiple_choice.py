"""Choosing among candidate answers, made binary: "is this answer right?".

It is asked of as many right as wrong answers of each question (paper, appendix
A.1), and which wrong one that is, is a matter of hashes. What is judged is the
text of an answer: no letter, number or place of it is ever shown. A passage
comes last, because texts are cut at their end.
"""

import hashlib
import re

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks.cells import Converted


def candidates(
  question: str,
  right: str,
  wrong: list[str],
  *,
  passage: str = '',
  group: str = '',
) -> Converted:
  """The right answer and one wrong one, alike in all but what they say.

  Which wrong one is a matter of hashes, so neither the order of the candidates
  nor that of the rows has a say.

  Args:
    question: about the passage, if there is one.
    right: the right answer.
    wrong: the others.
    passage: below the answer.
    group: what related rows share; '' for the passage, else the question.
  """
  question, right = cells.text(question), cells.text(right)
  chosen = min(
    map(cells.text, wrong), key=lambda text: _hash(question, passage, text)
  )
  group = group or passage or question
  return [
    (ask(question, candidate, passage), group, label)
    for candidate, label in ((right, 1), (chosen, 0))
  ]


def ask(question: str, answer: str, passage: str = '') -> str:
  """A line of each, and the passage below."""
  question, answer = ' '.join(question.split()), ' '.join(answer.split())
  return f'Q: {question}\nA: {answer}\n{passage}'.strip()


def without_answer(text: str) -> str:
  """What `ask` made, less the answer."""
  question, _, *passage = text.split('\n')
  return '\n'.join([question, *passage])


def _hash(*texts: str) -> str:
  return hashlib.sha256('\n'.join(filter(None, texts)).encode()).hexdigest()


def _by_key(texts, keys, key, **question) -> Converted:
  """Candidates of which the one with the key is right."""
  texts, keys = list(texts), list(keys)
  right = texts.pop(keys.index(_checked(key, keys)))
  return candidates(right=right, wrong=texts, **question)


def _checked(key, keys):
  if key not in keys:
    hidden = '; -1 is for hidden labels' if key == -1 else ''
    raise errors.UserError(f'answer {key!r} is not one of {list(keys)}{hidden}')
  return key


def _index(label, texts: list[str]) -> int:
  return _checked(cells.label(label), range(len(texts)))


def sciq(row: dict) -> Converted:
  # Without the 'support' passage: it often spells out the right answer.
  wrong = [row['distractor1'], row['distractor2'], row['distractor3']]
  return candidates(row['question'], row['correct_answer'], wrong)


def openbookqa(row: dict) -> Converted:
  if 'question' in row:  # TFDS, which stores the key as an index.
    texts = [row['question'][f'choice_{letter}'] for letter in 'ABCD']
    stem, keys = row['question']['stem'], range(4)
  else:
    stem, keys = row['question_stem'], row['choices']['label']
    texts = row['choices']['text']
  return _by_key(texts, keys, row['answerKey'], question=stem)


def arc(row: dict) -> Converted:
  choices = row['choices']
  return _by_key(
    choices['text'],
    choices['label'],
    row['answerKey'],
    question=row['question'],
  )


def quartz(row: dict) -> Converted:
  choices = row['choices']
  return _by_key(
    choices['text'],
    choices['label'],
    row['answerKey'],
    question=row['question'],
    passage=cells.text(row['para']),
  )


def cosmos_qa(row: dict) -> Converted:
  """'None of the above' is no answer once the others are gone.

  As a wrong answer it would be known by its words, for it is seldom right.
  """
  texts = [row[f'answer{i}'] for i in range(4)]
  right = texts.pop(_index(row['label'], texts))
  wrong = [text for text in texts if not _is_none_of_the_above(text)]
  if _is_none_of_the_above(right):
    return []
  passage = cells.text(row['context'])
  return candidates(row['question'], right, wrong, passage=passage)


def _is_none_of_the_above(text: str) -> bool:
  return text.lower().startswith('none of the above')


def dream(row: dict) -> Converted:
  wrong = [text for text in row['choice'] if text != row['answer']]
  if len(wrong) == len(row['choice']):
    raise errors.UserError(
      f'answer {row["answer"]!r} is not one of the choices'
    )
  passage = '\n'.join(map(cells.text, row['dialogue']))
  return candidates(row['question'], row['answer'], wrong, passage=passage)


def hellaswag(row: dict) -> Converted:
  """What comes next? Beginnings from one video or article share a group."""
  context = cells.text(cells.either(row, 'ctx', 'context'))
  return _by_key(
    row['endings'],
    range(4),
    cells.label(row['label']),
    question=context,
    group=row.get('source_id') or context,
  )


def piqa(row: dict) -> Converted:
  return _by_key(
    (row['sol1'], row['sol2']),
    range(2),
    cells.label(row['label']),
    question=row['goal'],
  )


def quail(row: dict) -> Converted:
  """One question in nine has no answer in its passage.

  'Not enough information', which every question offers, is therefore the wrong
  answer of one other question in eight: else its words would give it away.
  """
  texts = list(row['answers'])
  right = texts.pop(_index(row['correct_answer_id'], texts))
  passage = cells.text(row['context'])
  unknown = [text for text in texts if text == 'not enough information']
  if unknown:
    rare = int(_hash(row['question'], passage), 16) % 8 == 0
    texts = unknown if rare else [t for t in texts if t not in unknown]
  return candidates(row['question'], right, texts, passage=passage)


def social_i_qa(row: dict) -> Converted:
  if 'input' in row:  # TFDS has UnifiedQA's version only.
    return _unified(row)
  return _by_key(
    [row[f'answer{letter}'] for letter in 'ABC'],
    (1, 2, 3),
    cells.label(row['label']),
    question=row['question'],
    passage=cells.text(row['context']),
  )


def _unified(row: dict) -> Converted:
  r"""'question \n (A) one (B) other \n passage', the \n in two characters."""
  parts = re.split(r'\s*(?:\\n|\n)\s*', cells.text(row['input']))
  if len(parts) != 3:
    raise errors.UserError(
      f'{row["input"][:40]!r} is not question, answers, passage'
    )
  texts = re.split(r'\s*\([A-Za-z]\)\s+', parts[1])[1:]
  return _by_key(
    texts,
    texts,
    cells.text(row['output']),
    question=parts[0],
    passage=parts[2],
  )


def winogrande(row: dict) -> Converted:
  """Each option in its place; twin sentences have the same options."""
  options = [cells.text(row['option1']), cells.text(row['option2'])]
  keys = (1, 2) if 'answer' in row else (0, 1)  # TFDS has classes
  label = _checked(cells.label(cells.either(row, 'answer', 'label')), keys)
  sentence, group = cells.text(row['sentence']), ' / '.join(sorted(options))
  return [
    (sentence.replace('_', option, 1), group, int(key == label))
    for key, option in zip(keys, options, strict=True)
  ]


def comve(row: dict) -> Converted:
  """Does it make sense? The label is of the sentence that does not."""
  sentences = [cells.text(row['sent0']), cells.text(row['sent1'])]
  label = _index(row['label'], sentences)
  group = '\n'.join(sorted(sentences))
  return [(text, group, int(i != label)) for i, text in enumerate(sentences)]


def multirc(row: dict) -> Converted:
  """One row a candidate, several of which may be right."""
  passage = cells.text(row['paragraph'])
  text = ask(cells.text(row['question']), cells.text(row['answer']), passage)
  return [(text, passage, cells.label(row['label']))]


def mc_taco(row: dict) -> Converted:
  """As MultiRC, below one sentence."""
  passage = cells.text(row['sentence'])
  text = ask(cells.text(row['question']), cells.text(row['answer']), passage)
  return [(text, passage, cells.label(row['label']))]
