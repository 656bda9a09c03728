"""Tests that bad rows of files give one line with file, line and value."""

import json
import math
import re

import chess_test
import pytest
import reward_test

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import nlp
from w2s_jax.tasks import registry
from w2s_jax.tasks import reward
from w2s_jax.tasks import task as task_lib

import tiny_rows

PAIRS = reward_test._row('Because.', 'No idea.', second=False)
CHESS = {**chess_test.WHITE, 'Rating': 1500, 'Themes': '', 'GameUrl': ''}
HUGE = 'x' * 10_000_000


def _rows(name, count):
  if name in PAIRS:
    return [PAIRS[name]] * count
  if name == 'chess_puzzles':
    return [CHESS] * count
  return tiny_rows.rows(name, count)


def _load(folder, name, rows, **select):
  file = folder / 'rows.jsonl'
  file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return registry.load(name, source=f'file:{file}', select=select)


def _error(folder, name, rows, **select) -> str:
  """Returns the one-line error of a file, from the name of the file on."""
  with pytest.raises(errors.UserError) as error:
    _load(folder, name, rows, **select)
  assert not isinstance(error.value, task_lib.BadRow)
  [line] = str(error.value).splitlines()
  assert len(line) < 400
  return line.removeprefix(f'{folder}/')


@pytest.mark.parametrize(
  'value, shown',
  [
    (math.nan, 'nan'),
    (math.inf, 'inf'),
    ('nan', "'nan'"),
    ('-Infinity', "'-Infinity'"),
    ('1_0', "'1_0'"),
    ('high', "'high'"),
    ('', "''"),
    (None, 'None'),
    (True, 'True'),
    ([1], '[1]'),
    (10**400, '10000'),
    (HUGE, "'xxxx"),
  ],
)
@pytest.mark.parametrize(
  'name, column, select',
  [
    ('vader_pairs', 'rating_1', {}),
    ('vader_pairs', 'rating_2', {}),
    ('alpaca_eval', 'preference', {}),
    ('chess_puzzles', 'Rating', {'min_rating': 1}),
    ('chess_puzzles', 'Rating', {'max_rating': 3000}),
  ],
)
def test_ratings_are_finite_numbers(
  tmp_path, name, column, select, value, shown
):
  row, bad = _rows(name, 1)[0], {**_rows(name, 1)[0], column: value}
  if column == 'preference' and str(value) in ('nan', 'None', ''):
    # The judge failed: the row is counted and left out.
    _, _, counts = _load(tmp_path, name, [row, bad])
    assert counts['train']['bad'] == 1
    return
  message = _error(tmp_path, name, [row, bad], **select)
  assert message.startswith(f'rows.jsonl:2: {column} {shown}')
  assert message.endswith(' is not a finite number.')


@pytest.mark.parametrize('value', [1500, 1500.0, '1500', ' 1500 ', '1.5e3'])
def test_ratings_in_all_spellings(tmp_path, value):
  row = {**CHESS, 'Rating': value}
  select = {'min_rating': 1500, 'max_rating': 1500}
  assert len(_load(tmp_path, 'chess_puzzles', [row], **select)[0]) == 1


@pytest.mark.parametrize(
  'select, message',
  [
    ({'min_rating': 2000, 'max_rating': 1500}, 'max_rating = 1500 is below'),
    ({'max_rating': -1}, 'max_rating = -1 is negative'),
    ({'min_rating': -3, 'max_rating': -1}, 'min_rating = -3 is negative'),
    ({'min_rating': math.nan}, 'min_rating nan is not a finite number'),
    ({'max_rating': 'low'}, "max_rating 'low' is not a finite number"),
    ({'themes': 'fork'}, "themes = 'fork' is a text: give a list"),
    ({'min_ratng': 1}, 'min_ratng is unknown: the fields of task'),
  ],
)
def test_select_is_checked_before_anything_is_read(select, message):
  with pytest.raises(errors.UserError, match=f'^data.select.{message}'):
    registry.load('chess_puzzles', source='file:no-such.csv', select=select)


def test_select_that_takes_no_row(tmp_path):
  with pytest.raises(errors.UserError, match="'themes': .* none of 3 rows"):
    _load(tmp_path, 'chess_puzzles', [CHESS] * 3, themes=('fork',))
  with pytest.raises(errors.UserError, match='of task .sst2. are \\(none\\)'):
    registry.load('sst2', source='file:no-such.csv', select={'themes': ()})


@pytest.mark.parametrize('name', ['sst2', 'piqa', 'shp'])
@pytest.mark.parametrize(
  'value, label',
  [
    (1, 1),
    (True, 1),
    (False, 0),
    ('1', 1),
    (' 1 ', 1),
    ('0\n', 0),
    ('TRUE', 1),
    ('false', 0),
  ],
)
def test_labels_in_all_spellings(tmp_path, name, value, label):
  row, column = _rows(name, 1)[0], 'labels' if name == 'shp' else 'label'

  def labels(value):
    pool, _, _ = _load(tmp_path, name, [{**row, column: value}])
    classes = pool.label_probs_NxC.argmax(1).tolist()
    return dict(zip(pool.inputs, classes, strict=True))

  assert labels(value) == labels(label) != labels(1 - label)


@pytest.mark.parametrize('name', ['sst2', 'piqa', 'shp'])
@pytest.mark.parametrize(
  'value',
  [
    *('0_1', '+1', '1.0', '１', 'yes', 'T', '', '9' * 5000, 'nan'),
    *(10**4000, -1, 7, 0.5, 1.0, math.nan, math.inf, None, [1], {'a': 1}),
  ],
  ids=lambda value: repr(value)[:12],
)
def test_what_is_not_a_label(tmp_path, name, value):
  row, column = _rows(name, 1)[0], 'labels' if name == 'shp' else 'label'
  message = _error(tmp_path, name, [row, {**row, column: value}])
  assert message.startswith('rows.jsonl:2: ')
  assert cells.short(value)[:70] in message


def test_a_whole_float_is_not_a_label(tmp_path):
  for name, column in (('sst2', 'label'), ('pandalm', 'annotator1')):
    row = {**_rows(name, 1)[0], column: 1.0}
    assert f'{column} 1.0 is not' in _error(tmp_path, name, [row])
  row = {**tiny_rows.rows('openbookqa', 1)[0], 'answerKey': 1.0}
  assert 'answer 1.0 is not one of' in _error(tmp_path, 'openbookqa', [row])


# Texts that may be None.
OPTIONAL = {'title', 'input', 'post', 'cluster', 'FEN', 'Moves', 'Themes'}
OPTIONAL |= {'GameMoves', 'GameUrl'}
# Columns that are not texts, or that a task does not read.
OTHER = re.compile(
  'label|polarity|answerKey|rating_|source|policy|note|preference|choice$|'
  'annotator|score|split|strength|clickbait|id$|key|reasoning|domain|role'
)


def _text_paths(value, path=()):
  """Returns the paths of the texts of a row, at any depth."""
  if isinstance(value, dict):
    parts = value.items()
  elif isinstance(value, list):
    parts = enumerate(value)
  else:
    return [path] if isinstance(value, str) else []
  return [p for key, part in parts for p in _text_paths(part, (*path, key))]


def _with(value, path, new):
  """Returns a copy with a new value at a path."""
  if not path:
    return new
  key, *rest = path
  copy = value.copy()
  copy[key] = _with(value[key], rest, new)
  return copy


def _text_fields():
  for name in [*nlp.TASKS, *reward.TASKS, 'chess_puzzles']:
    if name == 'synthetic':
      continue
    row = _rows(name, 1)[0]
    for path in _text_paths(row):
      label = name in ('boolq_question_only', 'winogrande')
      if OTHER.search(str(path[-1])) or (label and path[-1] == 'answer'):
        continue
      if path[:2] == ('choices', 'label') or path[1:] == (0, 'content'):
        if name != 'helpsteer3':
          continue  # keys, and turns before the last
      yield name, path


FIELDS = list(_text_fields())
# Preference pairs with other values than texts in these stop the run; in the
# rest, such as answers of models, they are bad rows.
STOPS = {'cluster', 'input', 'post', 'subreddit', 'title', 'role'}


@pytest.mark.parametrize(
  'name, path',
  FIELDS,
  ids=['-'.join(map(str, (n, *p))) for n, p in FIELDS],
)
def test_texts_are_texts(tmp_path, caplog, name, path):
  row = _rows(name, 1)[0]
  if name == 'tweet_eval_sentiment':
    row = {**row, 'label': 0}  # The texts of neutral rows are not read.
  select = {'themes': ('fork',)} if path == ('Themes',) else {}
  dotted = '.'.join(map(str, path))
  not_texts = [5, 0.5, True, ['a'], {'a': 'b'}]
  if path[-1] not in OPTIONAL or path == ('info', 'title'):
    not_texts.append(None)
  if path == ('cluster',):
    not_texts = not_texts[3:]  # Numbers are valid group keys.
  left_out = name in (*reward.TASKS, 'anthropic_hh') and path[-1] not in STOPS
  for value in not_texts:
    rows = [row, _with(row, path, value)]
    message = f'rows.jsonl:2: {dotted}: expected a text, found {value!r}.'
    if left_out:
      caplog.clear()
      _load(tmp_path, name, rows, **select)
      [warning] = caplog.messages
      assert '1 of 2 rows are bad and left out, the first at ' in warning
      assert warning.endswith(f'{tmp_path}/{message}')
    else:
      assert _error(tmp_path, name, rows, **select) == message
  for value, found in (
    ('a \ud800 b', "lone surrogate '\\ud800' at character 3 of 'a "),
    ('x' * (cells.MAX_CHARACTERS + 1), 'a text of 1,000,001 characters, at'),
  ):
    rows = [row, _with(row, path, value)]
    message = _error(tmp_path, name, rows, **select)
    assert message.startswith(f'rows.jsonl:2: {dotted}: {found}')


@pytest.mark.parametrize('value', [None, 5, 'text', {}])
@pytest.mark.parametrize(
  'name, path',
  [
    ('dream', ('choice',)),
    ('dream', ('dialogue',)),
    ('hellaswag', ('endings',)),
    ('quail', ('answers',)),
    ('openbookqa', ('choices', 'text')),
    ('quartz', ('choices', 'label')),
    ('ai2_arc_easy', ('choices', 'text')),
    ('ultrafeedback', ('chosen',)),
    ('helpsteer2', ('three_most_similar_preferences',)),
    ('helpsteer3', ('context',)),
    ('helpsteer3', ('individual_preference',)),
    ('summarize_from_feedback', ('summaries',)),
  ],
)
def test_lists_are_lists(tmp_path, name, path, value):
  row = _rows(name, 1)[0]
  message = _error(tmp_path, name, [row, _with(row, path, value)])
  assert message.startswith('rows.jsonl:2: ' + '.'.join(path))
  assert f'found {value!r}' in message


def _without(value, path):
  *parent, key = path
  inner = value
  for name in parent:
    inner = inner[name]
  return _with(value, parent, {k: inner[k] for k in inner if k != key})


@pytest.mark.parametrize(
  'name, path',
  [
    ('openbookqa', ('choices', 'text')),
    ('quartz', ('choices', 'label')),
    ('ultrafeedback', ('chosen', 1, 'content')),
    ('summarize_from_feedback', ('info', 'post')),
    ('summarize_from_feedback', ('summaries', 1, 'text')),
    ('helpsteer2', ('three_most_similar_preferences', 2, 'strength')),
  ],
)
def test_a_missing_nested_field_is_not_a_missing_column(tmp_path, name, path):
  row = _rows(name, 1)[0]
  message = _error(tmp_path, name, [row, _without(row, path)])
  *parent, key = path
  dotted = '.'.join(map(str, parent))
  assert message.startswith(f'rows.jsonl:2: {dotted}: expected {key!r} in it')
  assert 'column' not in message


def test_a_missing_key_inside_any_conversion(tmp_path, monkeypatch):
  def convert(row):
    return [(row['inner']['text'], row['group'], 0)]

  task = task_lib.Task(source='', train=('train',), test=(), convert=convert)
  monkeypatch.setitem(registry.TASKS, 'mine', task)
  # There is a column of the same name.
  message = _error(tmp_path, 'mine', [{'inner': {}, 'text': 'a', 'group': 'b'}])
  assert message == (
    "rows.jsonl:1: task 'mine' finds no 'text' in a nested field."
  )
  message = _error(tmp_path, 'mine', [{'inner': {'text': 'a'}}])
  assert "needs the column 'group'; there are 'inner'" in message


@pytest.mark.parametrize(
  'row, message',
  [
    ({'endings': ['a', 'b', 'c']}, '3 answers, but 4 keys'),
    ({'label': 4}, 'answer 4 is not one of [0, 1, 2, 3]'),
  ],
)
def test_answers_and_keys_match(tmp_path, row, message):
  row = {**tiny_rows.rows('hellaswag', 1)[0], **row}
  assert message in _error(tmp_path, 'hellaswag', [row])


def test_what_a_row_must_hold(tmp_path):
  for name, row, message in (
    ('ethics_virtue', {'scenario': 'x' * 99}, "has no ' [SEP] ' before"),
    ('dream', {'choice': ['a', 'a'], 'answer': 'a'}, 'no wrong answer to '),
    ('ultrafeedback', {'chosen': []}, 'chosen: expected turns, found none'),
    ('summarize_from_feedback', {'summaries': []}, 'expected two, found []'),
  ):
    row = {**_rows(name, 1)[0], **row}
    assert message in _error(tmp_path, name, [row])


@pytest.mark.parametrize('column', ['FEN', 'Moves', 'GameMoves'])
def test_long_chess_fields_are_cut_in_messages(tmp_path, caplog, column):
  row = {**CHESS, column: ' '.join(['e2e4'] * 100_000)}
  _load(tmp_path, 'chess_puzzles', [CHESS, row])
  [message] = caplog.messages
  assert 'rows.jsonl:2: ' in message and len(message) < 400
