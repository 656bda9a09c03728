"""Conversions of rows that are one text, or two, with a label.

What is asked about comes first and a long passage last, because texts are cut
at their end.
"""

import hashlib

from w2s_jax.tasks import cells
from w2s_jax.tasks import reward
from w2s_jax.tasks.cells import Convert
from w2s_jax.tasks.cells import Converted


def single(column: str, label: str = 'label') -> Convert:
  """For data sets of one text and its label; each text is its own group."""

  def convert(row: dict) -> Converted:
    text = cells.text(row[column])
    return [(text, text, cells.label(row[label]))]

  return convert


def movie_review(name: str) -> Convert:
  """One text and its label, in a file that may hold several data sets."""

  def convert(row: dict) -> Converted:
    if row.get('source', name) != name:
      return []
    text = cells.text(row['text']).replace('<br />', ' ')  # IMDb's own HTML
    return [(text, text, cells.label(row['label']))]

  return convert


def amazon_polarity(row: dict) -> Converted:
  """A review below its title, which may be missing."""
  content = cells.text(row['content'])
  text = f'{row["title"] or ""}\n{content}'.strip()
  return [(text, content, cells.label(row['label']))]


def boolq(row: dict) -> Converted:
  passage = cells.text(row['passage'])
  return [(f'{_question(row)}\n{passage}', passage, _boolq_label(row))]


def boolq_question_only(row: dict) -> Converted:
  question = _question(row)
  return [(question, question, _boolq_label(row))]


def _question(row: dict) -> str:
  """Some versions of BoolQ end each question with '?', and some do not."""
  return f'Q: {cells.text(row["question"]).rstrip("?")}?'


def _boolq_label(row: dict) -> int:
  return cells.label(cells.either(row, 'answer', 'label'))  # label: SuperGLUE


def wic(row: dict) -> Converted:
  word = cells.text(row['word'])
  first, second = cells.text(row['sentence1']), cells.text(row['sentence2'])
  question = f'Does "{word}" mean the same in both sentences?'
  text = f'{first}\n{second}\n{question}'
  return [(text, word.lower(), cells.label(row['label']))]


def paws(row: dict) -> Converted:
  """Pairs were made by swapping words, so a group is what shares its words."""
  first, second = cells.text(row['sentence1']), cells.text(row['sentence2'])
  group = ' '.join(sorted(first.lower().split()))
  text = f'{first}\n{second}\nDo both say the same?'
  return [(text, group, cells.label(row['label']))]


def entailment(row: dict) -> Converted:
  """Class 0 follows from the premise; neutral and contradiction are one.

  That a label is hidden (-1) is left to be seen.
  """
  premise = cells.text(cells.either(row, 'premise', 'context'))
  label = cells.label(row['label'])
  text = f'Claim: {cells.text(row["hypothesis"])}\n{premise}'
  return [(text, premise, {0: 1, 1: 0, 2: 0}.get(label, label))]


def creak(row: dict) -> Converted:
  """A claim about an entity, of which there are several."""
  group = cells.text(row['entity']).lower()
  return [(cells.text(row['sentence']), group, cells.label(row['label']))]


def two_sided(**columns: dict[int, int]) -> Convert:
  """Tweets by the meaning of their label's column; other values are neutral."""

  def convert(row: dict) -> Converted:
    column = next((name for name in columns if name in row), None)
    label = cells.label(cells.either(row, *columns))
    if label not in columns[column] and label >= 0:
      return []
    text = cells.text(row['text'])
    return [(text, text, columns[column].get(label, label))]

  return convert


def anthropic_hh(row: dict) -> Converted:
  """Is this the better answer? Both answers of a pair, each on its own.

  The answer comes first and the dialogue before it last.
  """
  prompt, better, worse = reward.dialogues(row)
  group = reward.opening(prompt)
  return [
    (f'Assistant: {answer}\n\n{prompt}', group, label)
    for answer, label in ((better, 1), (worse, 0))
  ]


def ethics_justice(row: dict) -> Converted:
  """Reasons for one and the same claim share a group."""
  scenario = cells.text(row['scenario'])
  claim = scenario.partition(' because ')[0].lower()
  return [(scenario, claim, cells.label(row['label']))]


def ethics_deontology(row: dict) -> Converted:
  scenario = cells.text(row['scenario'])
  text = f'{scenario}\n{cells.text(row["excuse"])}'
  return [(text, scenario, cells.label(row['label']))]


def ethics_virtue(row: dict) -> Converted:
  """One of about ten traits is shown; see task.Task.question."""
  scenario, trait = map(cells.text, row['scenario'].rsplit(' [SEP] ', 1))
  # In lower case: upstream capitalizes more of the right ones.
  text = f'{scenario}\nTrait: {trait.lower()}'
  return [(text, scenario, cells.label(row['label']))]


def without_trait(text: str) -> str:
  return text.rpartition('\nTrait: ')[0]


def ethics_utilitarianism(row: dict) -> Converted:
  """Is the first more pleasant? Which comes first is a matter of hashes.

  Upstream ranked several endings of one beginning, so that is the group.
  """
  better, worse = cells.text(row['baseline']), cells.text(row['less_pleasant'])
  pair = sorted((better, worse))
  if hashlib.sha256('\n'.join(pair).encode()).digest()[0] % 2:
    pair = pair[::-1]
  text = f'1) {pair[0]}\n2) {pair[1]}\nIs 1) more pleasant than 2)?'
  group = ' '.join(min(pair).lower().split()[:4])
  return [(text, group, int(pair[0] == better))]
