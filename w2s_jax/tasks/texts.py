"""Converts rows that are one or two texts with a label.

The text that the question is about comes first and a long passage last, because
texts are truncated at their end.
"""

import hashlib

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import reward
from w2s_jax.tasks.cells import Convert
from w2s_jax.tasks.cells import Converted


def single(column: str, label: str = 'label') -> Convert:
  """Converts rows of one text and its label; each text is its own group."""

  def convert(row: dict) -> Converted:
    text = cells.text(row, column)
    return [(text, text, cells.label(row, label))]

  return convert


def movie_review(name: str) -> Convert:
  """Converts rows of one data set in a file that may hold several."""

  def convert(row: dict) -> Converted:
    if row.get('source', name) != name:
      return []
    text = cells.text(row, 'text').replace('<br />', ' ')  # IMDb's own HTML
    return [(text, text, cells.label(row, 'label'))]

  return convert


def amazon_polarity(row: dict) -> Converted:
  """Puts a review below its title, which may be missing."""
  content = cells.text(row, 'content')
  text = f'{cells.optional_text(row, "title")}\n{content}'.strip()
  return [(text, content, cells.label(row, 'label'))]


def boolq(row: dict) -> Converted:
  passage = cells.text(row, 'passage')
  return [(f'{_question(row)}\n{passage}', passage, _boolq_label(row))]


def boolq_question_only(row: dict) -> Converted:
  question = _question(row)
  return [(question, question, _boolq_label(row))]


def _question(row: dict) -> str:
  """Ends the question with '?', as only some versions of BoolQ do."""
  return f'Q: {cells.text(row, "question").rstrip("?")}?'


def _boolq_label(row: dict) -> int:
  column = cells.column(row, 'answer', 'label')  # label: SuperGLUE
  return cells.label(row, column)


def wic(row: dict) -> Converted:
  word = cells.text(row, 'word')
  first, second = cells.text(row, 'sentence1'), cells.text(row, 'sentence2')
  question = f'Does "{word}" mean the same in both sentences?'
  text = f'{first}\n{second}\n{question}'
  return [(text, word.lower(), cells.label(row, 'label'))]


def paws(row: dict) -> Converted:
  """Groups pairs by their words, as upstream made pairs by swapping words."""
  first, second = cells.text(row, 'sentence1'), cells.text(row, 'sentence2')
  group = ' '.join(sorted(first.lower().split()))
  text = f'{first}\n{second}\nDo both say the same?'
  return [(text, group, cells.label(row, 'label'))]


def entailment(row: dict) -> Converted:
  """Maps entailment (class 0) to 1, neutral and contradiction to 0.

  A hidden label (-1) is passed on, for the registry to refuse.
  """
  premise = cells.text(row, cells.column(row, 'premise', 'context'))
  label = cells.label(row, 'label')
  text = f'Claim: {cells.text(row, "hypothesis")}\n{premise}'
  return [(text, premise, {0: 1, 1: 0, 2: 0}.get(label, label))]


def creak(row: dict) -> Converted:
  """Groups claims by their entity, which several share."""
  group = cells.text(row, 'entity').lower()
  return [(cells.text(row, 'sentence'), group, cells.label(row, 'label'))]


def two_sided(**columns: dict[int, int]) -> Convert:
  """Converts tweets whose label has neutral values, which are left out.

  Args:
    **columns: for each spelling of the label's column, the class of its values
      that are not neutral.
  """

  def convert(row: dict) -> Converted:
    column = cells.column(row, *columns)
    label = cells.label(row, column)
    if label not in columns[column] and label >= 0:
      return []
    text = cells.text(row, 'text')
    return [(text, text, columns[column].get(label, label))]

  return convert


def anthropic_hh(row: dict) -> Converted:
  """Makes two examples of a pair: each answer, and whether it is the better.

  The answer comes first and the dialogue before it last.
  """
  prompt, better, worse = reward.dialogues(row)
  group = reward.opening(prompt)
  return [
    (f'Assistant: {answer}\n\n{prompt}', group, label)
    for answer, label in ((better, 1), (worse, 0))
  ]


def ethics_justice(row: dict) -> Converted:
  """Groups the reasons that are given for the same claim."""
  scenario = cells.text(row, 'scenario')
  claim = scenario.partition(' because ')[0].lower()
  return [(scenario, claim, cells.label(row, 'label'))]


def ethics_deontology(row: dict) -> Converted:
  scenario = cells.text(row, 'scenario')
  text = f'{scenario}\n{cells.text(row, "excuse")}'
  return [(text, scenario, cells.label(row, 'label'))]


def ethics_virtue(row: dict) -> Converted:
  """Shows one of about ten traits of a scenario; see task.Task.question."""
  parts = cells.string(row, 'scenario').rsplit(' [SEP] ', 1)
  if len(parts) != 2:
    raise errors.UserError(
      f"scenario {cells.short(parts[0])} has no ' [SEP] ' before a trait"
    )
  scenario, trait = map(cells.stripped, parts)
  # In lower case: upstream capitalizes more of the right ones.
  text = f'{scenario}\nTrait: {trait.lower()}'
  return [(text, scenario, cells.label(row, 'label'))]


def without_trait(text: str) -> str:
  return text.rpartition('\nTrait: ')[0]


def ethics_utilitarianism(row: dict) -> Converted:
  """Asks whether the first of two scenarios is the more pleasant one.

  A hash decides which comes first. Upstream ranked several endings of one
  beginning, so the beginning is the group.
  """
  better = cells.text(row, 'baseline')
  worse = cells.text(row, 'less_pleasant')
  pair = sorted((better, worse))
  if hashlib.sha256('\n'.join(pair).encode()).digest()[0] % 2:
    pair = pair[::-1]
  text = f'1) {pair[0]}\n2) {pair[1]}\nIs 1) more pleasant than 2)?'
  group = ' '.join(min(pair).lower().split()[:4])
  return [(text, group, int(pair[0] == better))]
