import json
import pathlib
import re

import numpy as np
import pytest

from w2s_jax.tasks import registry
from w2s_jax.tasks import reward
from w2s_jax.tasks import splits
from w2s_jax.tasks import task as task_lib

DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'
ASK = 'Human: Why?\n\nAssistant:'
ANSWERS = {'Because.', 'No idea.'}


def _messages(*texts):
  roles = ('user', 'assistant', 'user')
  return [{'role': r, 'content': t} for r, t in zip(roles, texts)]


def _row(better, worse, *, second):
  """Returns a row for each task, with the columns that the task reads.

  Args:
    better, worse: the two answers.
    second: whether the source has the better one second.
  """
  one, two = (worse, better) if second else (better, worse)
  strength = 2 if second else -2
  post = {'subreddit': 'ask', 'title': 'Me', 'post': 'Why?', 'article': None}
  return {
    'vader_pairs': {
      'cluster': '7',
      'source': 'tweet',
      'text_1': one,
      'rating_1': '-1.20' if second else '0.10',
      'text_2': two,
      'rating_2': '-0.90',
    },
    'hh_rlhf': {
      'chosen': f'\n\nHuman: Why?\n\nAssistant: {better}',
      'rejected': f'\n\nHuman: Why?\n\nAssistant: {worse}',
    },
    'shp': {
      'post_id': 'qt3nxl',
      'history': 'Why?',
      'human_ref_A': one,
      'human_ref_B': two,
      'labels': int(not second),
      'score_ratio': 2.0,
    },
    'ultrafeedback': {
      'prompt': 'Why?',
      'chosen': _messages('Why?', better),
      'rejected': _messages('Why?', worse),
      'score_chosen': 8.5,
      'score_rejected': 6.0,
    },
    'summarize_from_feedback': {
      'info': post,
      'summaries': [
        {'text': f' {one}', 'policy': 'sup2', 'note': None},
        {'text': f' {two}', 'policy': 'ref', 'note': None},
      ],
      'choice': int(second),
    },
    'helpsteer2': {
      'split': 'train',
      'prompt': 'Why?',
      'response_1': one,
      'response_2': two,
      'preference_strength': strength,
      'three_most_similar_preferences': [{'strength': strength}] * 3,
      'all_preferences_unprocessed': [{'strength': -strength}] * 4,
    },
    'helpsteer3': {
      'domain': 'general',
      'context': _messages('Why?'),
      'response1': one,
      'response2': two,
      'overall_preference': strength,
      'individual_preference': [{'score': strength, 'reasoning': 'So.'}] * 2,
    },
    'alpaca_eval': {
      'instruction': 'Why?',
      'output_1': one,
      'output_2': two,
      'preference': 1 + second,
    },
    'pandalm': {
      'instruction': 'Why?',
      'input': '',
      'response1': one,
      'response2': two,
      'annotator1': 1 + second,
      'annotator2': 1 + second,
      'annotator3': 1 + second,
    },
  }


def _convert(name, row):
  return reward.TASKS[name].convert(row)


def _write(folder, rows) -> str:
  lines = (json.dumps(row) + '\n' for row in rows)
  (folder / 'rows.jsonl').write_text(''.join(lines))
  return f'file:{folder}/rows.jsonl'


@pytest.mark.parametrize('name', reward.TASKS)
def test_the_better_answer_is_known_wherever_it_stands(name):
  seen = set()
  for better, worse in (sorted(ANSWERS), sorted(ANSWERS, reverse=True)):
    first, swapped = (
      _convert(name, _row(better, worse, second=second)[name])
      for second in (False, True)
    )
    assert first == swapped
    [(pair, group, label)] = first
    assert set(pair[1:]) == {better, worse}
    assert pair[1 + label.index(1)] == better
    assert sum(label) == 1
    assert group == {'vader_pairs': '7', 'hh_rlhf': 'Human: Why?'}.get(
      name, pair.prompt
    )
    seen.add(pair)
  assert len(seen) == 1  # Sides do not depend on which answer is better.


def test_prompts_and_texts():
  rows = _row('Because.', 'No idea.', second=False)
  prompts = {
    name: _convert(name, row)[0][0].prompt for name, row in rows.items()
  }
  assert prompts.pop('vader_pairs') == ''
  post = 'SUBREDDIT: r/ask\n\nTITLE: Me\n\nPOST: Why?\n\nTL;DR:'
  assert prompts.pop('summarize_from_feedback') == post
  assert set(prompts.values()) == {ASK}
  pair = reward.Pair(ASK, 'Because.', 'No idea.')
  assert pair.texts == (f'{ASK} Because.', f'{ASK} No idea.')
  assert reward.Pair('', 'good', 'bad').texts == ('good', 'bad')

  row = {**rows['pandalm'], 'input': 'The sky is blue.'}
  prompt = 'Human: Why?\n\nThe sky is blue.\n\nAssistant:'
  assert _convert('pandalm', row)[0][0].prompt == prompt
  row = {**rows['helpsteer3'], 'context': _messages('Hi', 'Hello', 'Why?')}
  prompt = f'Human: Hi\n\nAssistant: Hello\n\n{ASK}'
  assert _convert('helpsteer3', row)[0][0].prompt == prompt
  news = {'post': None, 'article': 'News.', 'subreddit': None, 'title': None}
  row = {**rows['summarize_from_feedback'], 'info': news}
  prompt = 'ARTICLE: News.\n\nTL;DR:'
  assert _convert('summarize_from_feedback', row)[0][0].prompt == prompt


def test_a_dialogue_is_split_at_its_last_answer():
  start = '\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:'
  row = {'chosen': f'{start} So.', 'rejected': f'{start} Say:\n\nHuman: x'}
  [(pair, group, label)] = _convert('hh_rlhf', row)
  assert pair.prompt == start.strip()
  assert group == 'Human: Hi'
  assert pair[1 + label.index(1)] == 'So.'
  assert pair[1 + label.index(0)] == 'Say:\n\nHuman: x'
  for chosen in (
    f'{start} So.\n\nHuman: And?\n\nAssistant: Yes.',
    '\n\nHuman: Hi\n\nAssistant: Hello',
    'So.',
  ):
    with pytest.raises(task_lib.BadRow, match='differ before their last'):
      _convert('hh_rlhf', {**row, 'chosen': chosen})


def _votes(name, votes):
  """Returns the share of votes for 'Because.'; None if they are even."""
  row = _row('Because.', 'No idea.', second=True)[name]
  column = {'helpsteer2': 'three_most_similar_preferences'}.get(
    name, 'individual_preference'
  )
  if name == 'pandalm':
    row |= {f'annotator{i + 1}': vote for i, vote in enumerate(votes)}
  elif name == 'alpaca_eval':
    [row['preference']] = votes
  else:
    key = {'helpsteer2': 'strength', 'helpsteer3': 'score'}[name]
    row[column] = [{key: vote} for vote in votes]
  for pair, _, label in _convert(name, row):
    return label[pair[1:].index('Because.')]


@pytest.mark.parametrize(
  'name, votes, share',
  [
    ('pandalm', (2, 2, 1), 2 / 3),
    ('pandalm', (1, 0, 1), 1 / 6),
    ('pandalm', ('2', '0', '0'), 2 / 3),
    ('pandalm', (1, 0, 2), None),
    ('pandalm', (0, 0, 0), None),
    ('helpsteer2', (3, 1, -1), 2 / 3),
    ('helpsteer2', (-1, -100, -2), 1 / 6),
    ('helpsteer3', (3, -1), None),
    ('helpsteer3', (-3, 1, 1), 2 / 3),
    ('helpsteer3', (0, 1), 3 / 4),
    ('alpaca_eval', (1.37,), 0.37),
    ('alpaca_eval', ('2.0',), 1),
    ('alpaca_eval', (1.5,), None),
    ('alpaca_eval', (0,), None),
  ],
)
def test_labels_are_shares_of_votes_and_even_votes_are_left_out(
  name, votes, share
):
  found = _votes(name, votes)
  assert found == (share if share is None else pytest.approx(share, abs=1e-6))


def test_equal_scores_are_a_tie():
  row = _row('Because.', 'No idea.', second=False)['ultrafeedback']
  assert _convert('ultrafeedback', {**row, 'score_rejected': 8.5}) == []
  del row['score_chosen'], row['score_rejected']
  assert len(_convert('ultrafeedback', row)) == 1


@pytest.mark.parametrize('name', reward.TASKS)
@pytest.mark.parametrize(
  'better, worse, message',
  [
    ('So.', ' ', "expected a text, found '"),
    ('So. ', ' So.', "both answers are 'So.'"),
  ],
)
def test_bad_rows_are_counted_and_named(
  tmp_path, caplog, name, better, worse, message
):
  good = _row('Because.', 'No idea.', second=False)[name]
  bad = _row(better, worse, second=False)[name]
  source = _write(tmp_path, [good, bad])
  pool, _, counts = registry.load(name, source=source)
  assert len(pool) == 1
  assert (counts['train']['rows'], counts['train']['bad']) == (2, 1)
  assert message in caplog.text
  assert f'{tmp_path}/rows.jsonl:2: ' in caplog.text


@pytest.mark.parametrize(
  'name, change, message',
  [
    ('shp', {'labels': 2}, 'labels 2 is not one of 1, 0'),
    ('shp', {'labels': 'A'}, "labels 'A' is not one of"),
    ('summarize_from_feedback', {'choice': None}, 'choice None is not one of'),
    ('pandalm', {'annotator2': 3}, 'annotator2 3 is not one of 1, 2, 0'),
    ('alpaca_eval', {'preference': 3}, 'preference 3 is not 0, nor in 1..2'),
    ('vader_pairs', {'rating_1': 'high'}, "rating_1 'high' is not a finite"),
  ],
)
def test_unknown_values_stop_the_run(tmp_path, name, change, message):
  row = _row('Because.', 'No idea.', second=False)[name]
  source = _write(tmp_path, [row, {**row, **change}])
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    registry.load(name, source=source)
  assert str(error.value).startswith(f'{tmp_path}/rows.jsonl:2: ')
  [column] = change
  del row[column]
  with pytest.raises(ValueError, match=f'needs the column {column!r}'):
    registry.load(name, source=_write(tmp_path, [row]))


def test_no_verdict_is_a_bad_row():
  row = _row('Because.', 'No idea.', second=False)
  for preference in (None, '', float('nan')):
    with pytest.raises(task_lib.BadRow, match='there is no preference'):
      _convert('alpaca_eval', {**row['alpaca_eval'], 'preference': preference})
  with pytest.raises(task_lib.BadRow, match='there are no votes'):
    _convert('helpsteer3', {**row['helpsteer3'], 'individual_preference': []})


def test_what_is_not_prepared_says_how_to_get_it(tmp_path, monkeypatch):
  pytest.importorskip('tensorflow_datasets')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(ValueError, match='testset-v1.json.*prepare pandalm'):
    registry.load('pandalm')


def test_turns_and_votes_in_columns_are_the_same():
  """TFDS stores a list of dicts as a dict of lists."""
  rows = _row('Because.', 'No idea.', second=True)

  def in_columns(cells):
    return {name: [cell[name] for cell in cells] for name in cells[0]}

  for name, columns in {
    'ultrafeedback': ('chosen', 'rejected'),
    'helpsteer2': ('three_most_similar_preferences',),
    'helpsteer3': ('context', 'individual_preference'),
  }.items():
    other = {c: in_columns(rows[name][c]) for c in columns}
    assert _convert(name, rows[name] | other) == _convert(name, rows[name])


def test_soft_labels_duplicates_and_contradictions(tmp_path):
  def row(question, answers, votes):
    row = {'instruction': question, 'input': None}
    row |= {f'response{i + 1}': answer for i, answer in enumerate(answers)}
    return row | {f'annotator{i + 1}': vote for i, vote in enumerate(votes)}

  rows = [
    row('Who?', 'ab', (1, 1, 2)),
    row('Who?', 'ba', (2, 1, 2)),  # The same from the other side.
    row('Why?', 'ab', (1, 1, 2)),
    row('Why?', 'ba', (1, 1, 2)),  # The opposite.
    row('When?', 'ab', (0, 0, 0)),
  ]
  pool, _, counts = registry.load('pandalm', source=_write(tmp_path, rows))
  assert counts['train'] == {
    'rows': 5,
    'bad': 0,
    'examples': 4,
    'duplicates': 2,
    'conflicting': 1,
  }
  [pair] = pool.inputs
  share = {pair.first: 0, pair.second: 1}
  np.testing.assert_allclose(
    pool.label_probs_NxC[0, [share['a'], share['b']]], [2 / 3, 1 / 3], atol=1e-6
  )
  assert pool.label_probs_NxC.dtype == np.float32
  assert not pool.balanced


@pytest.mark.parametrize(
  'label', [[0.5], [0.5, 0.6], [1.5, -0.5], [0.2, 0.3, 0.5], [float('nan'), 1]]
)
def test_what_is_no_distribution_is_refused(tmp_path, monkeypatch, label):
  def convert(row):
    return [(row['text'], row['text'], tuple(row['label']))]

  task = task_lib.Task(source='', train=('train',), test=(), convert=convert)
  monkeypatch.setitem(registry.TASKS, 'soft', task)
  rows = [{'text': 'a', 'label': [0.3, 0.7]}, {'text': 'b', 'label': label}]
  with pytest.raises(ValueError, match='is not 2 probabilities that sum to 1'):
    registry.load('soft', source=_write(tmp_path, rows))
  pool, *_ = registry.load('soft', source=_write(tmp_path, rows[:1]))
  np.testing.assert_allclose(pool.label_probs_NxC, [[0.3, 0.7]], rtol=1e-6)


def _check_position_is_at_chance(pool):
  """Checks that each side is the better one equally often."""
  second_N = pool.label_probs_NxC[:, 1] > 0.5
  assert abs(second_N.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(pool))


def test_position_is_at_chance_where_all_else_gives_the_better_one(tmp_path):
  """In this source the better answer is always first, also by alphabet."""
  rows = [
    _row(f'A {i}', f'B {i}', second=False)['helpsteer2'] for i in range(2000)
  ]
  _check_position_is_at_chance(
    registry.load('helpsteer2', source=_write(tmp_path, rows))[0]
  )


def _real(path) -> str:
  if not (DATA / path).is_file():
    pytest.skip(f'no {DATA / path}')
  return f'file:{DATA / path}'


@pytest.mark.parametrize(
  'name, path, size',
  [
    ('hh_rlhf', 'hh_rlhf/helpful-base/test.jsonl.gz', 2339),
    ('hh_rlhf', 'hh_rlhf/helpful-online/test.jsonl.gz', 1132),
    ('hh_rlhf', 'hh_rlhf/helpful-rejection-sampled/test.jsonl.gz', 2714),
    ('hh_rlhf', 'hh_rlhf/harmless-base/test.jsonl.gz', 2303),
    ('alpaca_eval', 'alpaca_eval_gpt4/eval.jsonl.gz', 23601),
    ('pandalm', 'pandalm_human/test.jsonl.gz', 773),
  ],
)
def test_real_files_load_and_position_is_at_chance(name, path, size):
  pool, test, counts = registry.load(name, source=_real(path))
  assert test is None
  assert len(pool) == size
  _check_position_is_at_chance(pool)
  named = {
    name: pool.take(rows)
    for name, rows in splits.split(
      pool, {'test': 100, 'weak': -1, 'transfer': -1}, seed=0
    ).items()
  }
  splits.check_disjoint(named)
  prompts = [{pair.prompt for pair in x.inputs} for x in named.values()]
  assert sum(map(len, prompts)) == len(set().union(*prompts))
