"""Preference pairs: from a row of a data set to two answers to one prompt.

The question is which answer is better: class 0 the first, class 1 the second.
So the softmax of two rewards is the paper's sigmoid(r2 - r1) (appendix A.3).

Votes: the label of a pair is the share of votes for each side; a tie is half a
vote for each. A pair whose votes are even says nothing and is left out. Where
votes are rows of their own, `tasks.load` drops the pairs they disagree on.

Sides: which answer comes first is a matter of hashes and not of the row, so
"the first is better" carries nothing, and a pair is the same example whichever
way round, and however often, a source has it.
"""

from collections.abc import Callable
import hashlib
import json
import math
from typing import NamedTuple

from w2s_jax import errors
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


Converted = list[tuple[Pair, str, tuple[float, float]]]
_CUE = '\n\nAssistant:'


def _pair(
  prompt: str, one, other, share: float, *, group: str = ''
) -> Converted:
  """The example of two answers, or nothing if the votes are even.

  Args:
    prompt: what both answer.
    one, other: the answers, in the order of the source.
    share: of the votes, how many went to `other`.
    group: what related rows share; '' for the prompt.

  Raises:
    task.BadRow: an answer is empty, or both are the same.
  """
  one, other = _text(one), _text(other)
  if one == other:
    raise task.BadRow(f'both answers are {one[:40]!r}')
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


def _text(value) -> str:
  if not isinstance(value, str) or not value.strip():
    raise task.BadRow(f'{value!r} where there should be a text')
  return value.strip()


def _ask(question, extra='') -> str:
  """A prompt of one question, and perhaps of what it is about."""
  parts = [_text(question), (extra or '').strip()]
  return 'Human: ' + '\n\n'.join(filter(None, parts)) + _CUE


def _vote(row: dict, column: str, shares: dict[int, float]) -> float:
  """The share of the second side by the meaning of a column's values."""
  value = row[column]
  try:
    return shares[int(value)]
  except (KeyError, TypeError, ValueError):
    raise errors.UserError(
      f'{column} {value!r} is not one of {", ".join(map(str, shares))}'
    ) from None


def _mean(votes: list[float]) -> float:
  if not votes:
    raise task.BadRow('nobody has voted')
  return sum(votes) / len(votes)


def dialogues(row: dict) -> tuple[str, str, str]:
  """(start, better end, worse end) of two dialogues that part at their ends.

  Raises:
    task.BadRow: they part before their last answers.
  """
  prompt, cue, better = _text(row['chosen']).rpartition(_CUE)
  same, _, worse = _text(row['rejected']).rpartition(_CUE)
  if not cue or prompt != same:
    raise task.BadRow('the dialogues part before their last answers')
  return prompt, _text(better), _text(worse)


def opening(prompt: str) -> str:
  """Some dialogues are there at several of their turns, one row each."""
  return prompt.partition(_CUE)[0]


def _hh_rlhf(row: dict) -> Converted:
  prompt, better, worse = dialogues(row)
  return _pair(prompt + _CUE, better, worse, 0, group=opening(prompt))


def _shp(row: dict) -> Converted:
  share = _vote(row, 'labels', {1: 0, 0: 1})  # 1: A is better
  answers = row['human_ref_A'], row['human_ref_B']
  return _pair(_ask(row['history']), *answers, share)


def _turns(turns) -> list[tuple[str, str]]:
  """(role, content) of each; TFDS has a list of either."""
  if isinstance(turns, dict):
    return list(zip(turns['role'], turns['content'], strict=True))
  return [(turn['role'], turn['content']) for turn in turns]


def _votes(votes, key: str) -> list[dict]:
  """One dict a vote; TFDS has a list of each column instead."""
  if isinstance(votes, dict):
    return [{key: vote} for vote in votes[key]]
  return votes


def _ultrafeedback(row: dict) -> Converted:
  """The chosen answer has the best score, which the other may share: a tie."""
  better, worse = (_turns(row[name])[-1][1] for name in ('chosen', 'rejected'))
  scores = row.get('score_chosen'), row.get('score_rejected')
  tie = scores[0] is not None and scores[0] == scores[1]
  return _pair(_ask(row['prompt']), better, worse, 0.5 if tie else 0)


def _summarize(row: dict) -> Converted:
  """Summaries of posts, or of news articles in part of the validation split."""
  info, (one, other) = row['info'], row['summaries']
  if info['post']:
    head = f'SUBREDDIT: r/{info["subreddit"]}\n\nTITLE: {info["title"]}'
    prompt = f'{head}\n\nPOST: {info["post"].strip()}\n\nTL;DR:'
  else:
    prompt = f'ARTICLE: {_text(info["article"])}\n\nTL;DR:'
  share = _vote(row, 'choice', {0: 0, 1: 1})
  return _pair(prompt, one['text'], other['text'], share)


# Below 0 the first response is better; -100 in HelpSteer2: neither is any good.
_STRENGTHS = {-3: 0, -2: 0, -1: 0, 0: 0.5, 1: 1, 2: 1, 3: 1, -100: 0.5}


def _helpsteer2(row: dict) -> Converted:
  """The votes are those that upstream's overall preference is made of."""
  votes = [
    _vote(vote, 'strength', _STRENGTHS)
    for vote in _votes(row['three_most_similar_preferences'], 'strength')
  ]
  answers = row['response_1'], row['response_2']
  return _pair(_ask(row['prompt']), *answers, _mean(votes))


def _helpsteer3(row: dict) -> Converted:
  turns = (
    f'{role.replace("user", "human").title()}: {_text(content)}'
    for role, content in _turns(row['context'])
  )
  prompt = '\n\n'.join(turns) + _CUE
  votes = [
    _vote(vote, 'score', _STRENGTHS)
    for vote in _votes(row['individual_preference'], 'score')
  ]
  return _pair(prompt, row['response1'], row['response2'], _mean(votes))


def _alpaca_eval(row: dict) -> Converted:
  """A preference is 1, 2, or between them where the judge gives odds.

  A tie is 1.5, or 0 in older files; where the judge has failed there is none.
  """
  preference = row['preference']
  if preference in (None, '') or math.isnan(float(preference)):
    raise task.BadRow('there is no preference')
  share = float(preference) - 1 if float(preference) else 0.5
  if not 0 <= share <= 1:
    raise errors.UserError(f'preference {preference!r} is not 0, nor in 1..2')
  prompt = _ask(row['instruction'], row.get('input'))
  return _pair(prompt, row['output_1'], row['output_2'], share)


def _pandalm(row: dict) -> Converted:
  names = (f'annotator{i}' for i in (1, 2, 3))
  votes = [_vote(row, name, {1: 0, 2: 1, 0: 0.5}) for name in names]
  prompt = _ask(row['instruction'], row['input'])
  return _pair(prompt, row['response1'], row['response2'], _mean(votes))


def _rated(row: dict) -> Converted:
  """Snippets without a prompt; people find the better one more positive."""
  one, other = float(row['rating_1']), float(row['rating_2'])
  share = 0.5 if one == other else float(one < other)
  return _pair('', row['text_1'], row['text_2'], share, group=row['cluster'])


def _task(
  convert: Callable[[dict], Converted],
  source: str = '',
  train: tuple[str, ...] = ('train',),
  test: tuple[str, ...] = (),
) -> task.Task:
  return task.Task(
    source=source,
    train=train,
    test=test,
    convert=convert,
    inputs='pair',
    balanced=False,
  )


TASKS = {
  'vader_pairs': _task(_rated, 'asset:vader-pairs/pairs.csv.gz'),
  'hh_rlhf': _task(_hh_rlhf, 'hf:Anthropic/hh-rlhf', test=('test',)),
  'shp': _task(
    _shp, 'hf:stanfordnlp/SHP', ('train', 'validation'), test=('test',)
  ),
  'ultrafeedback': _task(
    _ultrafeedback,
    'hf:HuggingFaceH4/ultrafeedback_binarized',
    ('train_prefs',),
    ('test_prefs',),
  ),
  # The main revision is a script, which `datasets` 4 and later do not run.
  'summarize_from_feedback': _task(
    _summarize,
    'hf:openai/summarize_from_feedback@refs/convert/parquet:comparisons/',
    test=('validation',),
  ),
  'helpsteer2': _task(_helpsteer2, 'hf:nvidia/HelpSteer2:preference/'),
  'helpsteer3': _task(
    _helpsteer3, 'hf:nvidia/HelpSteer3:preference', test=('validation',)
  ),
  'alpaca_eval': _task(_alpaca_eval, 'tfds:w2s/alpaca_eval', ('train|eval',)),
  'pandalm': _task(_pandalm, 'tfds:w2s/pandalm', ('train|test',)),
}
