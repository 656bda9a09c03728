"""Preference pairs: converts rows of a data set to two answers to one prompt.

The question is which answer is better: class 0 the first, class 1 the second.
So the softmax of two rewards is the paper's sigmoid(r2 - r1) (appendix A.3).

Votes: the label of a pair is the share of votes for each side; a tie is half a
vote for each. A pair whose votes are even has no better side and is left out.
Where votes are rows of their own, `registry.load` drops the pairs they disagree
on.

To add a data set: a conversion and an entry of TASKS here, and a row for tests
in `_row` of tests/reward_test.py. This module imports no jax, since
configs/reward_modeling.py reads TASKS.

Sides: a hash decides which answer comes first, so the side tells nothing about
the label, and a pair is the same example whichever way round, and however
often, a source has it.
"""

from collections.abc import Callable
import hashlib
import json
from typing import NamedTuple

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import task


class Pair(NamedTuple):
  """The inputs of a comparison."""

  prompt: str  # ends with a cue, such as 'Assistant:'; '' for none
  first: str
  second: str

  @property
  def texts(self) -> tuple[str, str]:
    """Each answer after the prompt, as a model reads it."""
    first, second = (f'{self.prompt} {answer}' for answer in self[1:])
    return first.strip(), second.strip()


Converted = list[tuple[Pair, str | int, tuple[float, float]]]
_CUE = '\n\nAssistant:'
# Below 0 the first response is better; -100 in HelpSteer2: neither is any good.
_STRENGTHS = {-3: 0, -2: 0, -1: 0, 0: 0.5, 1: 1, 2: 1, 3: 1, -100: 0.5}


def _text(row: dict, *path) -> str:
  """Returns a prompt or an answer, as it is.

  Answers of models were parsed upstream, so that of PandaLM some are True. Such
  rows are left out and do not stop the run.

  Raises:
    task.BadRow: the value is not a text.
  """
  return cells.string(row, *path, not_text=task.BadRow)


def _pair(
  prompt: str, one: str, other: str, share: float, *, group: str | int = ''
) -> Converted:
  """Returns the example of two answers, or nothing if the votes are even.

  Args:
    prompt: of both answers.
    one, other: the answers, in the order of the source.
    share: of the votes that went to `other`.
    group: what related rows share; '' for the prompt.

  Raises:
    task.BadRow: an answer is empty, or both are the same.
  """
  one, other = cells.stripped(one), cells.stripped(other)
  if one == other:
    raise task.BadRow(f'both answers are {cells.short(one)}')
  # Rounded, for 1 - 1/3 is not quite 2/3 but has to be the same label.
  shares = {one: round(1 - share, 6), other: round(share, 6)}
  if shares[one] == shares[other]:
    return []
  first, second = sorted(shares)
  content = json.dumps([prompt, first, second]).encode()
  if hashlib.sha256(content).digest()[0] % 2:
    first, second = second, first
  label = shares[first], shares[second]
  return [(Pair(prompt, first, second), group or prompt, label)]


def _question_prompt(question: str, context: str = '') -> str:
  """Returns the prompt of a question, and of its context if there is one."""
  parts = [cells.stripped(question), context.strip()]
  return 'Human: ' + '\n\n'.join(filter(None, parts)) + _CUE


def _vote(row: dict, *path, shares: dict[int, float]) -> float:
  """Returns the share of the second side, by the value at a path of the row."""
  value = cells.field(row, *path)
  try:
    return shares[cells.label(row, *path)]
  except (KeyError, errors.UserError):
    raise errors.UserError(
      f'{path[-1]} {cells.short(value)} is not one of '
      f'{", ".join(map(str, shares))}'
    ) from None


def _mean(votes: list[float]) -> float:
  if not votes:
    raise task.BadRow('there are no votes')
  return sum(votes) / len(votes)


def dialogues(row: dict) -> tuple[str, str, str]:
  """Splits two dialogues that differ in their last answers only.

  Returns:
    Their common start, the better last answer and the worse one.

  Raises:
    task.BadRow: they differ before their last answers.
  """
  prompt, cue, better = cells.stripped(_text(row, 'chosen')).rpartition(_CUE)
  same, _, worse = cells.stripped(_text(row, 'rejected')).rpartition(_CUE)
  if not cue or prompt != same:
    raise task.BadRow('the dialogues differ before their last answers')
  return prompt, cells.stripped(better), cells.stripped(worse)


def opening(prompt: str) -> str:
  """Returns the first turn: some dialogues have a row for several turns."""
  return prompt.partition(_CUE)[0]


def _hh_rlhf(row: dict) -> Converted:
  prompt, better, worse = dialogues(row)
  return _pair(prompt + _CUE, better, worse, 0, group=opening(prompt))


def _shp(row: dict) -> Converted:
  share = _vote(row, 'labels', shares={1: 0, 0: 1})  # 1: A is better
  answers = _text(row, 'human_ref_A'), _text(row, 'human_ref_B')
  prompt = _question_prompt(_text(row, 'history'))
  return _pair(prompt, *answers, share)


def _paths(row: dict, column: str, key: str) -> list[tuple]:
  """Returns the path of a key in each item of a column.

  A column is a list of dicts, or in TFDS a dict of lists.
  """
  if isinstance(row[column], dict):
    items = cells.items(row, column, key)
    return [(column, key, i) for i, _ in enumerate(items)]
  return [(column, i, key) for i, _ in enumerate(cells.items(row, column))]


def _last_answer(row: dict, column: str) -> str:
  turns = _paths(row, column, 'content')
  if not turns:
    raise errors.UserError(f'{column}: expected turns, found none')
  return _text(row, *turns[-1])


def _strengths(row: dict, column: str, key: str) -> list[float]:
  """Returns the share of the second side in each of several votes."""
  paths = _paths(row, column, key)
  return [_vote(row, *path, shares=_STRENGTHS) for path in paths]


def _ultrafeedback(row: dict) -> Converted:
  """The chosen answer has the best score, which the other may share: a tie."""
  better, worse = _last_answer(row, 'chosen'), _last_answer(row, 'rejected')
  scores = row.get('score_chosen'), row.get('score_rejected')
  tie = scores[0] is not None and scores[0] == scores[1]
  prompt = _question_prompt(_text(row, 'prompt'))
  return _pair(prompt, better, worse, 0.5 if tie else 0)


def _summarize(row: dict) -> Converted:
  """Summaries of posts, or of news articles in part of the validation split."""
  post = cells.optional_text(row, 'info', 'post')
  if post:
    subreddit = cells.string(row, 'info', 'subreddit')
    title = cells.string(row, 'info', 'title')
    head = f'SUBREDDIT: r/{subreddit}\n\nTITLE: {title}'
    prompt = f'{head}\n\nPOST: {post.strip()}\n\nTL;DR:'
  else:
    article = cells.stripped(_text(row, 'info', 'article'))
    prompt = f'ARTICLE: {article}\n\nTL;DR:'
  share = _vote(row, 'choice', shares={0: 0, 1: 1})
  if len(cells.items(row, 'summaries')) != 2:
    raise errors.UserError(
      f'summaries: expected two, found {cells.short(row["summaries"])}'
    )
  one, other = (_text(row, 'summaries', i, 'text') for i in (0, 1))
  return _pair(prompt, one, other, share)


def _helpsteer2(row: dict) -> Converted:
  """Reads the votes that upstream's overall preference is made of."""
  votes = _strengths(row, 'three_most_similar_preferences', 'strength')
  answers = _text(row, 'response_1'), _text(row, 'response_2')
  prompt = _question_prompt(_text(row, 'prompt'))
  return _pair(prompt, *answers, _mean(votes))


def _helpsteer3(row: dict) -> Converted:
  roles = (
    cells.string(row, *path).replace('user', 'human').title()
    for path in _paths(row, 'context', 'role')
  )
  contents = (
    cells.stripped(_text(row, *path))
    for path in _paths(row, 'context', 'content')
  )
  turns = zip(roles, contents, strict=True)
  prompt = '\n\n'.join(f'{role}: {text}' for role, text in turns) + _CUE
  votes = _strengths(row, 'individual_preference', 'score')
  answers = _text(row, 'response1'), _text(row, 'response2')
  return _pair(prompt, *answers, _mean(votes))


def _alpaca_eval(row: dict) -> Converted:
  """Reads a preference of 1, 2, or between them where the judge gives odds.

  A tie is 1.5, or 0 in older files. It is None, empty or NaN where the judge
  failed, which is a bad row.
  """
  if row['preference'] is None or str(row['preference']).lower() in ('', 'nan'):
    raise task.BadRow('there is no preference')
  preference = cells.number(row, 'preference')
  share = preference - 1 if preference else 0.5
  if not 0 <= share <= 1:
    raise errors.UserError(
      f'preference {cells.short(row["preference"])} is not 0, nor in 1..2'
    )
  context = cells.optional_text(row, 'input') if 'input' in row else ''
  answers = _text(row, 'output_1'), _text(row, 'output_2')
  prompt = _question_prompt(_text(row, 'instruction'), context)
  return _pair(prompt, *answers, share)


def _pandalm(row: dict) -> Converted:
  names = (f'annotator{i}' for i in (1, 2, 3))
  votes = [_vote(row, name, shares={1: 0, 2: 1, 0: 0.5}) for name in names]
  answers = _text(row, 'response1'), _text(row, 'response2')
  prompt = _question_prompt(
    _text(row, 'instruction'), cells.optional_text(row, 'input')
  )
  return _pair(prompt, *answers, _mean(votes))


def _rated(row: dict) -> Converted:
  """Snippets without a prompt; the better one is rated more positive."""
  one, other = cells.number(row, 'rating_1'), cells.number(row, 'rating_2')
  share = 0.5 if one == other else float(one < other)
  answers = _text(row, 'text_1'), _text(row, 'text_2')
  return _pair('', *answers, share, group=cells.group_key(row, 'cluster'))


def _task(
  asks: str,
  source: str,
  convert: Callable[[dict], Converted],
  sizes: task.Sizes,
  *,
  train: tuple[str, ...] = ('train',),
  test: tuple[str, ...] = (),
) -> task.Task:
  return task.Task(
    asks=asks,
    sizes=sizes,
    source=source,
    train=train,
    test=test,
    convert=convert,
    inputs='pair',
    balanced=False,
  )


# Long texts are truncated at the start, since the reply that is compared is at
# the end.
_SHORT, _MEDIUM, _LONG = (
  task.Sizes(tokens, test=2000, transfer=2000) for tokens in (48, 128, 256)
)

TASKS = {
  'vader_pairs': _task(
    'which snippet do people rate as more positive?',
    'asset:vader-pairs/pairs.csv.gz',
    _rated,
    _SHORT,
  ),
  'hh_rlhf': _task(
    'which reply of an assistant do people prefer?',
    'hf:Anthropic/hh-rlhf',
    _hh_rlhf,
    _LONG,
    test=('test',),
  ),
  'shp': _task(
    'which comment on a post has the better score?',
    'hf:stanfordnlp/SHP',
    _shp,
    _LONG,
    train=('train', 'validation'),
    test=('test',),
  ),
  'ultrafeedback': _task(
    'which reply does a language model score higher?',
    'hf:HuggingFaceH4/ultrafeedback_binarized',
    _ultrafeedback,
    _LONG,
    train=('train_prefs',),
    test=('test_prefs',),
  ),
  # The main revision is a script, which `datasets` 4 and later do not run.
  'summarize_from_feedback': _task(
    'which summary of a post do people prefer?',
    'hf:openai/summarize_from_feedback@refs/convert/parquet:comparisons/',
    _summarize,
    _LONG,
    test=('validation',),
  ),
  'helpsteer2': _task(
    'which reply do annotators prefer?',
    'hf:nvidia/HelpSteer2:preference/',
    _helpsteer2,
    _LONG,
  ),
  'helpsteer3': _task(
    'which reply in a dialogue do annotators prefer?',
    'hf:nvidia/HelpSteer3:preference',
    _helpsteer3,
    _LONG,
    test=('validation',),
  ),
  # From 1,000 pairs a bag of words learns nearly as much as the student.
  'alpaca_eval': _task(
    'which reply does a judge prefer?',
    'tfds:w2s/alpaca_eval',
    _alpaca_eval,
    task.Sizes(128, test=800, transfer=700, weak=100, validation=100),
    train=('train|eval',),
  ),
  'pandalm': _task(
    'which reply do annotators prefer?',
    'tfds:w2s/pandalm',
    _pandalm,
    _MEDIUM,
    train=('train|test',),
  ),
}
