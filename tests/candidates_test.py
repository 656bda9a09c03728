"""Rows that are checked once they are drawn, against those checked before."""

import dataclasses
import logging

import chess_test
import ml_collections
import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax.tasks import candidates
from w2s_jax.tasks import chess as chess_task
from w2s_jax.tasks import registry
from w2s_jax.tasks import study_splits
from w2s_jax.tasks import workers

import tiny_chess

SIZES = {'weak': 14, 'transfer': 11, 'validation': 6, 'test': 8}
CHESS = registry.TASKS['chess_puzzles']


def data(folder, rows, *, select=None, **sizes):
  path = folder / 'puzzles.csv'
  chess_test.write(path, rows)
  return ml_collections.ConfigDict(
    {
      'source': f'file:{path}',
      'select': select or {},
      'seed': 0,
      'splits': SIZES | sizes,
    }
  )


def puzzles(count=90):
  """Rows of games of two, of which some are bad, repeat or contradict."""
  rows = [
    row | {'GameId': f'game-{i // 2}', 'GameMoves': ''}
    for i, row in enumerate(tiny_chess.puzzle_rows(count))
  ]
  for i in range(0, count, 9):
    slip, answer = rows[i]['Moves'].split()
    rows[i] |= {'Moves': f'{slip} {answer[2:4]}{answer[:2]}'}  # played backward
    rows.append(rows[i + 1] | {'GameId': f'game-{i // 2 + 5}'})
    slip, answer = rows[i + 2]['Moves'].split()
    position, _, label = chess_task.convert(rows[i + 2])[0]
    moves = chess_task.legal_moves(chess_task.chess.Board(position.fen))
    other = moves[label - 1].uci()
    rows.append(rows[i + 2] | {'Moves': f'{slip} {other}'})
  rows.append(rows[3] | {'Moves': 'e2e4'})
  return rows


def load(fields, **kwargs):
  return study_splits.load(
    'chess_puzzles', fields, seeds=(0, 1), num_transfer=2, **kwargs
  )


def flat(loaded):
  evaluated, slices = loaded
  parts = [x for each in slices.values() for x in (each.weak, *each.transfer)]
  return [*evaluated.values(), *parts]


@pytest.mark.parametrize(
  'sizes', [{}, {'weak': -1, 'transfer': -1}, {'test': 1, 'validation': 30}]
)
def test_splits_are_those_of_rows_that_were_checked_first(
  tmp_path, monkeypatch, caplog, sizes
):
  fields = data(tmp_path, puzzles(), **sizes)
  with caplog.at_level(logging.WARNING):
    found = flat(load(fields))
  assert 'that were drawn or repeat these' in caplog.text
  assert '1 of 111 rows are bad and left out' in caplog.text
  assert "Moves 'e2e4' has no answer" in caplog.text
  first_check = dataclasses.replace(CHESS, screen=None)
  monkeypatch.setitem(registry.TASKS, 'chess_puzzles', first_check)
  expected = flat(load(fields))
  for part, other in zip(found, expected, strict=True):
    assert part.ids.tolist() == other.ids.tolist()
    assert part.groups.tolist() == other.groups.tolist()
    assert part.inputs == other.inputs and part.fields == other.fields
    assert part.fingerprint == other.fingerprint
    assert part.balanced == other.balanced


def test_only_rows_that_a_split_holds_are_checked(tmp_path, monkeypatch):
  checked = []

  def convert(row, **select):
    checked.append(row['FEN'])
    return chess_task.convert(row, **select)

  counted = dataclasses.replace(CHESS, convert=convert)
  monkeypatch.setitem(registry.TASKS, 'chess_puzzles', counted)
  fields = data(tmp_path, tiny_chess.puzzle_rows(90))
  pools = {}
  parts = flat(load(fields, pools=pools))
  drawn = {id_ for part in parts for id_ in part.ids.tolist()}
  assert len(checked) == len(drawn) < 85
  load(fields, pools=pools)
  assert len(checked) == len(drawn)  # what was checked before is kept


def test_a_source_is_screened_once_for_all_splits(tmp_path, monkeypatch):
  opened, open_pool = [], registry.open_pool

  def counted(*args, **kwargs):
    opened.append(kwargs)
    return open_pool(*args, **kwargs)

  monkeypatch.setattr(registry, 'open_pool', counted)
  fields, pools = data(tmp_path, tiny_chess.puzzle_rows(90)), {}
  first = flat(load(fields, pools=pools))
  fields.splits.weak = 9
  fields.seed = 1
  other = flat(load(fields, pools=pools))
  assert other[0].ids.tolist() != first[0].ids.tolist()
  assert len(opened) == 1
  fields.select = {'themes': ()}
  load(fields, pools=pools)
  assert len(opened) == 2 and len(pools) == 1


def test_the_pool_is_the_same_for_any_seeds_and_order_of_rows(tmp_path):
  rows = tiny_chess.puzzle_rows(90)
  bad = rows[5] | {'Moves': 'a1a1 a1a1'}
  pools = []
  for order, seeds in (([bad, *rows], (0,)), ([*rows[::-1], bad], (0, 1, 2))):
    _, slices = study_splits.load(
      'chess_puzzles', data(tmp_path, order), seeds=seeds, num_transfer=1
    )
    pools.append(slices[0].weak.origin)
  assert pools[0] == pools[1]
  other = tiny_chess.puzzle_rows(91)[1:]
  # Validation rows are held out of the pool.
  for changed, sizes in ((other, {}), (rows, {'validation': 7})):
    fields = data(tmp_path, changed, **sizes)
    _, slices = study_splits.load(
      'chess_puzzles', fields, seeds=(0,), num_transfer=1
    )
    assert slices[0].weak.origin['pool'] != pools[0]['pool']


def draw_all(fields):
  pool, test = registry.open_pool(
    'chess_puzzles', source=fields.source, select=fields.select.to_dict()
  )
  assert test is None
  return pool, lambda: candidates.examples(
    candidates.draw(pool, lambda rows: {'all': rows})['all']
  )


def test_a_file_that_changes_between_the_readings(tmp_path):
  rows = tiny_chess.puzzle_rows(20)
  _, draw = draw_all(data(tmp_path, rows))
  data(tmp_path, rows[:-1])
  with pytest.raises(errors.UserError, match='changed .* 1 rows are gone'):
    draw()
  _, draw = draw_all(data(tmp_path, rows))
  data(tmp_path, [*rows[:7], rows[8], rows[7], *rows[9:]])
  with pytest.raises(errors.UserError, match='changed .* row 8 is another one'):
    draw()


def test_nothing_is_left(tmp_path):
  slip = chess_test.WHITE | {'Moves': 'g7g5 d1h6'}
  _, draw = draw_all(data(tmp_path, [slip]))
  with pytest.raises(errors.UserError, match='all are bad.*csv:2: .*d1h6'):
    draw()
  with pytest.raises(errors.UserError, match='all are bad.*has no answer'):
    draw_all(data(tmp_path, [chess_test.WHITE | {'Moves': ''}]))
  theme = chess_test.WHITE | {'Themes': 'fork'}
  with pytest.raises(errors.UserError, match='takes none of 1 rows'):
    draw_all(data(tmp_path, [theme], select={'themes': ('pin',)}))
  with pytest.raises(errors.UserError, match="csv:2: .* the column 'Themes'"):
    draw_all(data(tmp_path, [chess_test.WHITE], select={'themes': ('pin',)}))


def test_labels_of_many_rows_stay_classes(tmp_path):
  _, draw = draw_all(data(tmp_path, tiny_chess.puzzle_rows(30)))
  found = draw()
  expected = [
    chess_task.convert(row)[0][2] for row in tiny_chess.puzzle_rows(30)
  ]
  assert found.label_probs_NxC.argmax(1).tolist() == expected
  assert not isinstance(found.label_probs_NxC, np.ndarray)


def screened(fields, monkeypatch, *, processes):
  """Returns all that a first reading finds, and the calls of its processes."""
  calls, run = [], workers.run

  def counted(function, arguments):
    calls.extend(arguments)
    found = run(function, arguments)
    assert found and len(found) == processes
    return found

  with monkeypatch.context() as patch:
    patch.setattr(candidates, '_LARGE', 0)
    patch.setattr(candidates, '_BLOCK', 4)
    patch.setattr(workers, 'count', lambda: processes)
    patch.setattr(workers, 'run', counted)
    pool, _ = registry.open_pool(
      'chess_puzzles', source=fields.source, select=fields.select.to_dict()
    )
  found = [x.tolist() for x in (pool.ids, pool.groups, pool.numbers)]
  return found, calls


def test_processes_find_what_one_finds(tmp_path, monkeypatch, caplog):
  rows = puzzles()
  rows[40]['Moves'] = rows[29]['Moves'] = 'e2e4'
  fields = data(tmp_path, rows)
  one, calls = screened(fields, monkeypatch, processes=1)
  [message] = caplog.messages
  assert '3 of 111 rows are bad' in message and ':31: ' in message
  assert not calls
  caplog.clear()
  several, calls = screened(fields, monkeypatch, processes=3)
  assert len(calls) == 3
  assert several == one and len(one[0]) == 108
  assert caplog.messages == [message]


def test_the_first_error_of_all_processes(tmp_path, monkeypatch):
  rows = [row | {'Rating': 900} for row in tiny_chess.puzzle_rows(30)]
  fields = data(tmp_path, rows, select={'min_rating': 1})
  path = tmp_path / 'puzzles.csv'
  good = path.read_text().splitlines()
  rating = good[0].split(',').index('Rating')

  def message(broken):
    path.write_text('\n'.join(broken.get(i, x) for i, x in enumerate(good)))
    found = []
    for processes in (1, 3):
      with pytest.raises(errors.UserError) as caught:
        screened(fields, monkeypatch, processes=processes)
      found.append(str(caught.value))
    assert found[0] == found[1]
    return found[0]

  cells = good[14].split(',')
  cells[rating] = 'high'
  high, short, torn = ','.join(cells), 'too,short', '"torn'
  assert 'puzzles.csv:15: ' in message({14: high, 18: short, 28: torn})
  assert 'puzzles.csv:12: ' in message({11: torn, 14: high})


def test_processes_convert_what_one_converts(tmp_path, monkeypatch):
  fields = data(tmp_path, puzzles())
  pool, _ = draw_all(fields)

  def converted(*, processes):
    pool.source.converted.clear()
    monkeypatch.setattr(workers, 'count', lambda: processes)
    candidates._convert(pool.source, pool.numbers[::2])
    return list(sorted(pool.source.converted.items()))

  one = converted(processes=1)
  monkeypatch.setattr(candidates, '_MANY', 5)
  run, shares = workers.run, []
  monkeypatch.setattr(
    workers, 'run', lambda *call: shares.append(run(*call)) or shares[-1]
  )
  assert converted(processes=3) == one and len(one) == 55
  assert [len(rows) for rows, _ in shares[0]] == [19, 18, 18]
  data(tmp_path, puzzles()[:-20])
  with pytest.raises(errors.UserError, match='changed .* rows are gone'):
    converted(processes=3)
