"""Tests that the format of a text does not give its label away.

The public loader of OpenBookQA names right answers by their letter and wrong
ones by their text. To find leaks of this kind, a linear classifier sees only
lengths, punctuation and letter case of a text, and must stay near chance.
"""

import dataclasses
import json
import pathlib
import string

import numpy as np
import pytest

from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import multiple_choice
from w2s_jax.tasks import nlp
from w2s_jax.tasks import registry
from w2s_jax.tasks import splits

import tiny_rows

DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'

# Limit on real rows: chance, a standard error of 1 point and small habits of
# writers.
NEAR_CHANCE = 0.56
# Limits for data sets whose classes differ in format upstream, which are the
# measured accuracy plus two points.
ARTEFACTS = {
  'cosmos_qa': (0.59, 'fewer capitals and digits in right answers'),
  'ethics_justice': (0.58, 'reasonable claims are longer'),
  'ethics_deontology': (0.60, 'reasonable excuses are longer, less commas'),
  'sst2': (0.60, 'longer words of praise, question marks of blame'),
  'mc_taco': (0.60, 'right answers are shorter'),
  'openbookqa': (0.60, 'right answers are longer'),
  'multirc': (0.61, 'right answers are longer'),
  'wic': (0.58, 'longer words have fewer senses'),
  'imdb': (0.64, 'question marks of blame'),
  'anthropic_hh': (0.61, 'better answers are longer'),
  'clickbait': (0.98, 'titles in capitals: the source gives itself away'),
  'customer_reviews': (0.60, 'complaints are longer'),
  'ethics_commonsense': (0.58, 'posts of a forum among single sentences'),
  'subj': (0.71, 'plots have longer words, names and brackets'),
  'tweet_eval_hate': (0.67, 'hashtags and capitals of campaigns'),
  'tweet_eval_irony': (0.66, 'links, names and hashtags'),
  'tweet_eval_offensive': (0.60, 'offensive tweets are longer'),
  'tweet_eval_sentiment': (0.73, 'length; praise has exclamation marks'),
}
SIGNS = '.,!?;:\'"-()@#/\\&%$*_'


def _format(line: str) -> list[float]:
  words = line.split() or ['']
  upper = sum(char.isupper() for char in line)
  return [
    np.log1p(len(line)),
    np.log1p(len(line)) ** 2,
    np.log1p(len(words)),
    np.log1p(len(words)) ** 2,
    np.mean([len(word) for word in words]),
    len(words) == 1,
    max(map(len, words)) == 1,  # such as a letter that names an answer
    line[:1].isupper(),
    line.islower(),
    line.isupper(),
    np.log1p(upper),
    upper / (len(line) + 1),
    np.mean([word[:1].isupper() for word in words]),
    line[-1:] in string.punctuation,
    line[-1:] == '.',
    np.log1p(sum(char.isdigit() for char in line)),
    np.log1p(sum(ord(char) > 127 for char in line)),
    *(np.log1p(line.count(sign)) for sign in SIGNS),
  ]


def _features(text: str) -> list[float]:
  """Returns features of a text and of its first three lines without 'Q: '."""
  lines = [line.partition(': ')[2] or line for line in text.split('\n')]
  lines += [''] * 3
  first, second = len(lines[0]), len(lines[1])
  parts = [_format(part) for part in (text, *lines[:3])]
  return [1, np.sign(first - second), *np.concatenate(parts)]


def leak(pool: examples_lib.Examples, *, limit=800) -> tuple[float, int]:
  """Returns the accuracy on rows held out by group, and their number."""
  sizes = {'fit': -1, 'held_out': -1}
  random = np.random.RandomState(0)
  pool = pool.take(random.permutation(len(pool))[: 5 * limit])
  halves = [
    pool.take(random.permutation(rows)[:limit])
    for rows in splits.split(pool, sizes, seed=0).values()
  ]
  x_fit_NxF, x_NxF = (
    np.array([_features(text) for text in half.inputs], float)
    for half in halves
  )
  y_fit_N, y_N = (2 * half.label_probs_NxC[:, 1] - 1 for half in halves)
  mean_F, scale_F = x_fit_NxF.mean(axis=0), x_fit_NxF.std(axis=0) + 1e-6
  mean_F[0], scale_F[0] = 0, 1  # the bias
  x_fit_NxF, x_NxF = ((x - mean_F) / scale_F for x in (x_fit_NxF, x_NxF))
  x_NxF = np.clip(x_NxF, -5, 5)
  penalty_FxF = 10 * np.eye(x_fit_NxF.shape[1])
  gram_FxF = x_fit_NxF.T @ x_fit_NxF + penalty_FxF
  w_F = np.linalg.solve(gram_FxF, x_fit_NxF.T @ y_fit_N)
  return float(np.mean((x_NxF @ w_F > 0) == (y_N > 0))), len(y_N)


def _place(name) -> pathlib.Path:
  """Returns where the real rows of a task are, if they are available."""
  inner = {'anthropic_hh': 'hh_rlhf/helpful-base/test.jsonl.gz'}
  return DATA / inner.get(name, name)


def _load(folder, name, rows) -> examples_lib.Examples:
  lines = (json.dumps(row) + '\n' for row in rows)
  (folder / 'rows.jsonl').write_text(''.join(lines))
  return registry.load(name, source=f'file:{folder}/rows.jsonl')[0]


@pytest.mark.parametrize('name', sorted(nlp.TASKS.keys() - {'synthetic'}))
def test_a_conversion_gives_nothing_away(tmp_path, name):
  """Synthetic answers have the same format in both classes."""
  pool = _load(tmp_path, name, tiny_rows.rows(name, 400))
  accuracy, rows = leak(pool)
  assert rows > 80
  assert accuracy < 0.5 + 4 * 0.5 / np.sqrt(rows)


def _by_letter(row):
  """Repeats the bug: right answers are letters, wrong ones are texts."""
  wrong = row['choices']['text'][(ord(row['answerKey']) - ord('A') + 1) % 4]
  stem = row['question_stem']
  return [
    (f'Q: {stem}\nA: {answer}', stem, label)
    for answer, label in ((row['answerKey'], 1), (wrong, 0))
  ]


def _with_stop(row):
  """Adds a subtler leak: right answers end with a full stop."""
  return [
    (f'{text.rstrip(".")}.' if label else text.rstrip('.'), group, label)
    for text, group, label in multiple_choice.openbookqa(row)
  ]


@pytest.mark.parametrize('convert', [_by_letter, _with_stop])
def test_a_leak_is_found(tmp_path, monkeypatch, convert):
  leaky = dataclasses.replace(
    nlp.TASKS['openbookqa'], convert=convert, question=None
  )
  monkeypatch.setitem(registry.TASKS, 'openbookqa', leaky)
  pool = _load(tmp_path, 'openbookqa', tiny_rows.rows('openbookqa', 600))
  assert leak(pool)[0] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', [name for name in tiny_rows.ROWS if _place(name).exists()]
)
def test_real_rows_give_little_away(name):
  limit = ARTEFACTS.get(name, (NEAR_CHANCE, ''))[0]
  accuracy, rows = leak(_real(name))
  assert rows > 500
  assert accuracy < limit


def test_real_rows_would_show_a_leak(monkeypatch):
  leaky = dataclasses.replace(
    nlp.TASKS['openbookqa'], convert=_by_letter, question=None
  )
  monkeypatch.setitem(registry.TASKS, 'openbookqa', leaky)
  assert leak(_real('openbookqa'))[0] > 0.99


def _real(name) -> examples_lib.Examples:
  if not _place(name).exists():
    pytest.skip(f'no {_place(name)}')
  return registry.load(name, source=f'file:{_place(name)}')[0]
