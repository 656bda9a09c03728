"""Converts multiple-choice questions into binary ones: is this answer right?

As many right as wrong answers of each question are kept (paper, appendix A.1),
and a hash chooses the wrong one. Only the text of an answer is shown, never its
letter, number or position. A passage comes last, because texts are truncated at
their end.
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
  group: str | int = '',
) -> Converted:
  """Returns the right answer and one wrong one, in the same format.

  A hash chooses the wrong one, so the choice depends neither on the order of
  the candidates nor on that of the rows.

  Args:
    question: about the passage, if there is one.
    right: the right answer.
    wrong: the others.
    passage: below the answer.
    group: what related rows share; '' for the passage, else the question.

  Raises:
    UserError: there is no wrong answer, or a text is empty (task.BadRow).
  """
  question, right = cells.stripped(question), cells.stripped(right)
  if not wrong:
    raise errors.UserError(f'no wrong answer to {cells.short(question)}')
  chosen = min(
    map(cells.stripped, wrong), key=lambda text: _hash(question, passage, text)
  )
  group = group or passage or question
  return [
    (ask(question, candidate, passage), group, label)
    for candidate, label in ((right, 1), (chosen, 0))
  ]


def ask(question: str, answer: str, passage: str = '') -> str:
  """Returns question and answer on a line each, and the passage below."""
  question, answer = ' '.join(question.split()), ' '.join(answer.split())
  return f'Q: {question}\nA: {answer}\n{passage}'.strip()


def without_answer(text: str) -> str:
  """Removes the answer from a text made by `ask`."""
  question, _, *passage = text.split('\n')
  return '\n'.join([question, *passage])


def _hash(*texts: str) -> str:
  return hashlib.sha256('\n'.join(filter(None, texts)).encode()).hexdigest()


def _by_key(texts: list[str], keys, key, **question) -> Converted:
  """Returns candidates of which the one with the key is right."""
  texts, keys = list(texts), list(keys)
  if len(texts) != len(keys):
    raise errors.UserError(
      f'{len(texts)} answers, but {len(keys)} keys {cells.short(keys)}'
    )
  right = texts.pop(keys.index(_checked(key, keys)))
  return candidates(right=right, wrong=texts, **question)


def _checked(key, keys):
  """Returns a key that is one of `keys`; 1.0 is not 1."""
  if isinstance(key, float) or key not in keys:
    hidden = '; -1 is for hidden labels' if key == -1 else ''
    raise errors.UserError(
      f'answer {cells.short(key)} is not one of '
      f'{cells.short(list(keys))}{hidden}'
    )
  return key


def _index(row: dict, column: str, texts: list[str]) -> int:
  return _checked(cells.label(row, column), range(len(texts)))


def sciq(row: dict) -> Converted:
  # Without the 'support' passage: it often spells out the right answer.
  wrong = [cells.string(row, f'distractor{i}') for i in (1, 2, 3)]
  question = cells.string(row, 'question')
  return candidates(question, cells.string(row, 'correct_answer'), wrong)


def openbookqa(row: dict) -> Converted:
  if 'question' in row:  # TFDS, which stores the key as an index.
    texts = [cells.string(row, 'question', f'choice_{c}') for c in 'ABCD']
    stem, keys = cells.string(row, 'question', 'stem'), range(4)
  else:
    stem = cells.string(row, 'question_stem')
    keys = cells.items(row, 'choices', 'label')
    texts = cells.texts(row, 'choices', 'text')
  return _by_key(texts, keys, row['answerKey'], question=stem)


def arc(row: dict) -> Converted:
  return _by_key(
    cells.texts(row, 'choices', 'text'),
    cells.items(row, 'choices', 'label'),
    row['answerKey'],
    question=cells.string(row, 'question'),
  )


def quartz(row: dict) -> Converted:
  return _by_key(
    cells.texts(row, 'choices', 'text'),
    cells.items(row, 'choices', 'label'),
    row['answerKey'],
    question=cells.string(row, 'question'),
    passage=cells.text(row, 'para'),
  )


def cosmos_qa(row: dict) -> Converted:
  """Leaves out 'None of the above', which needs the others to be an answer.

  As a wrong answer its words would give it away, as it is rarely right.
  """
  texts = [cells.string(row, f'answer{i}') for i in range(4)]
  right = texts.pop(_index(row, 'label', texts))
  wrong = [text for text in texts if not _is_none_of_the_above(text)]
  if _is_none_of_the_above(right):
    return []
  passage = cells.text(row, 'context')
  return candidates(
    cells.string(row, 'question'), right, wrong, passage=passage
  )


def _is_none_of_the_above(text: str) -> bool:
  return text.lower().startswith('none of the above')


def dream(row: dict) -> Converted:
  texts, right = cells.texts(row, 'choice'), cells.string(row, 'answer')
  wrong = [text for text in texts if text != right]
  if len(wrong) == len(texts):
    raise errors.UserError(
      f'answer {cells.short(right)} is not one of the choices'
    )
  turns = map(cells.stripped, cells.texts(row, 'dialogue'))
  return candidates(
    cells.string(row, 'question'), right, wrong, passage='\n'.join(turns)
  )


def hellaswag(row: dict) -> Converted:
  """Asks what comes next; contexts of one video or article share a group."""
  context = cells.text(row, cells.column(row, 'ctx', 'context'))
  source = cells.group_key(row, 'source_id') if 'source_id' in row else ''
  return _by_key(
    cells.texts(row, 'endings'),
    range(4),
    cells.label(row, 'label'),
    question=context,
    group=source or context,
  )


def piqa(row: dict) -> Converted:
  return _by_key(
    [cells.string(row, 'sol1'), cells.string(row, 'sol2')],
    range(2),
    cells.label(row, 'label'),
    question=cells.string(row, 'goal'),
  )


def quail(row: dict) -> Converted:
  """Balances 'not enough information', which every question offers.

  One question in nine has no answer in its passage. So this is the wrong answer
  of one other question in eight, else its words would give it away.
  """
  texts = cells.texts(row, 'answers')
  right = texts.pop(_index(row, 'correct_answer_id', texts))
  question = cells.string(row, 'question')
  passage = cells.text(row, 'context')
  unknown = [text for text in texts if text == 'not enough information']
  if unknown:
    rare = int(_hash(question, passage), 16) % 8 == 0
    texts = unknown if rare else [t for t in texts if t not in unknown]
  return candidates(question, right, texts, passage=passage)


def social_i_qa(row: dict) -> Converted:
  if 'input' in row:  # TFDS has UnifiedQA's version only.
    return _unified(row)
  return _by_key(
    [cells.string(row, f'answer{letter}') for letter in 'ABC'],
    (1, 2, 3),
    cells.label(row, 'label'),
    question=cells.string(row, 'question'),
    passage=cells.text(row, 'context'),
  )


def _unified(row: dict) -> Converted:
  r"""Splits 'question \n (A) one (B) other \n passage' (\n: two characters)."""
  text = cells.text(row, 'input')
  parts = re.split(r'\s*(?:\\n|\n)\s*', text)
  if len(parts) != 3:
    raise errors.UserError(
      f'{cells.short(text)} is not question, answers, passage'
    )
  texts = re.split(r'\s*\([A-Za-z]\)\s+', parts[1])[1:]
  return _by_key(
    texts,
    texts,
    cells.text(row, 'output'),
    question=parts[0],
    passage=parts[2],
  )


def winogrande(row: dict) -> Converted:
  """Puts each option in its place; twin sentences have the same options."""
  options = [cells.text(row, 'option1'), cells.text(row, 'option2')]
  keys = (1, 2) if 'answer' in row else (0, 1)  # TFDS has classes
  column = cells.column(row, 'answer', 'label')
  label = _checked(cells.label(row, column), keys)
  sentence, group = cells.text(row, 'sentence'), ' / '.join(sorted(options))
  return [
    (sentence.replace('_', option, 1), group, int(key == label))
    for key, option in zip(keys, options, strict=True)
  ]


def comve(row: dict) -> Converted:
  """Asks whether a sentence makes sense; upstream labels the one that does not.

  The class is 1 for the sentence that does.
  """
  sentences = [cells.text(row, 'sent0'), cells.text(row, 'sent1')]
  label = _index(row, 'label', sentences)
  group = '\n'.join(sorted(sentences))
  return [(text, group, int(i != label)) for i, text in enumerate(sentences)]


def multirc(row: dict) -> Converted:
  """Converts one candidate; several of a question may be right."""
  return _answered(row, passage=cells.text(row, 'paragraph'))


def mc_taco(row: dict) -> Converted:
  """Converts rows like those of MultiRC, about one sentence."""
  return _answered(row, passage=cells.text(row, 'sentence'))


def _answered(row: dict, passage: str) -> Converted:
  question, answer = cells.text(row, 'question'), cells.text(row, 'answer')
  return [(ask(question, answer, passage), passage, cells.label(row, 'label'))]
