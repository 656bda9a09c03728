"""Tests of chess puzzles: conversion, encoding, bad rows and metrics."""

import csv
import gzip
import importlib.util
import io
import itertools
import logging
import pathlib
import random

import chess
import numpy as np
import pytest

from w2s_jax.tasks import chess as chess_task
from w2s_jax.tasks import registry
from w2s_jax.tasks import splits

import tiny_chess

LICHESS = (
  pathlib.Path(__file__).parents[2]
  / 'shared/data/lichess_puzzles/sample_1000.csv'
)

# 1. e4 f6 2. d4 g5 3. Qh5# and 1. f3 e5 2. g4 Qh4#: g5 and g4 are the mistakes.
WHITE = {
  'FEN': 'rnbqkbnr/ppppp1pp/5p2/8/3PP3/8/PPP2PPP/RNBQKBNR b KQkq - 0 2',
  'Moves': 'g7g5 d1h5',
  'GameMoves': 'e2e4 f7f6 d2d4',
}
BLACK = {
  'FEN': 'rnbqkbnr/pppp1ppp/8/4p3/8/5P2/PPPPP1PP/RNBQKBNR w KQkq - 0 2',
  'Moves': 'g2g4 d8h4',
  'GameMoves': 'f2f3 e7e5',
}

CASTLING = 'r3k2r/8/8/8/8/8/8/R3K2R w {} - 0 1'
EN_PASSANT = 'rnbqkb1r/ppp1p1pp/8/4Pp2/6N1/8/PPPP1PPP/RNBQKB1R w KQkq {} 0 3'
PROMOTIONS = '1n2k3/P1P5/8/8/8/8/8/4K3 w - - 0 1'


def boards():
  """Returns boards of random games and of all special moves; both colours."""
  rng, found = random.Random(0), []
  for _ in range(4):
    board = chess.Board()
    while not board.is_game_over() and board.ply() < 150:
      found.append(board.copy(stack=False))
      board.push(rng.choice(list(board.legal_moves)))
  special = CASTLING.format('KQkq'), EN_PASSANT.format('f6'), PROMOTIONS
  for board in map(chess.Board, special):
    assert board.is_valid()
    found += [board, board.mirror()]
  return found


def encode(fen):
  return chess_task.encode(chess.Board(fen))


def write(path, rows):
  with path.open('w', newline='') as f:
    f.write(as_csv(rows))
  return f'file:{path}'


def as_csv(rows):
  text = io.StringIO()
  writer = csv.DictWriter(text, dict.fromkeys(itertools.chain(*rows)))
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def load(source, **select):
  examples, _, counts = registry.load(
    'chess_puzzles', source=source, select=select
  )
  return examples, counts['train']


@pytest.mark.parametrize(
  'row, slip_and_answer, prompt',
  [
    (WHITE, ('g7g5', 'd1h5'), '1. e4 f6 2. d4 g5 3.'),
    (BLACK, ('g2g4', 'd8h4'), '1. f3 e5 2. g4'),
  ],
)
def test_the_first_move_is_played_and_the_second_asked(
  row, slip_and_answer, prompt
):
  ((position, _, label),) = chess_task.convert(row)
  slip, answer = slip_and_answer
  board = chess.Board(row['FEN'])
  board.push_uci(slip)
  assert position.fen == board.fen()
  assert chess_task.legal_moves(board)[label].uci() == answer
  assert position.completions[label] == {'d1h5': 'Qh5#', 'd8h4': 'Qh4#'}[answer]
  assert position.prompt == prompt
  ((unknown_game, _, same),) = chess_task.convert({**row, 'GameMoves': ''})
  assert unknown_game.prompt == board.fen() and same == label


def test_completions_are_the_legal_moves_in_their_order():
  for board in boards()[::7]:
    written = chess_task.Position(board.fen(), '').completions
    moves = [board.parse_san(san) for san in written]
    assert moves == chess_task.legal_moves(board)
    places = [chess_task._class_of(board, move) for move in moves]
    assert places == list(range(len(moves)))
    assert set(moves) == set(board.legal_moves)


def test_a_mirrored_position_is_the_same_to_a_model():
  for board in boards():
    assert chess_task.encode(board) == chess_task.encode(board.mirror())


def test_every_legal_move_can_be_read_off():
  for board in boards():
    flip = 0 if board.turn else 56
    tokens, *columns = chess_task.encode(board)
    assert len(tokens) <= 33 and max(tokens) < chess_task.VOCAB_SIZE
    moves = chess_task.legal_moves(board)
    assert len(moves) == board.legal_moves.count()
    read = []
    for move, mover, arrival, taken in zip(moves, *columns, strict=True):
      start, (kind, end) = tokens[mover] % 64, divmod(arrival, 64)
      before = board.piece_type_at(start ^ flip)
      promotion = None if kind + 1 == before else kind + 1
      read.append(chess.Move(start ^ flip, end ^ flip, promotion))
      assert (taken >= 0) == board.is_capture(move)
      if taken >= 0:
        kind, square = divmod(tokens[taken], 64)
        assert square ^ flip == move.to_square
        assert (kind == 14) == board.is_en_passant(move)
        piece = board.piece_type_at(move.to_square)
        assert piece is None or kind in (piece + 6, 13)
    assert read == moves


def test_rights_to_castle_and_to_take_en_passant_are_told_apart():
  rights = [
    ''.join(some) or '-'
    for n in range(5)
    for some in itertools.combinations('KQkq', n)
  ]
  seen = {tuple(encode(CASTLING.format(r)).tokens) for r in rights}
  assert len(seen) == len(rights) == 16
  allowed, not_allowed = (encode(EN_PASSANT.format(x)) for x in ('f6', '-'))
  assert len(allowed.tokens) == len(not_allowed.tokens) + 1
  assert len(allowed.movers) == len(not_allowed.movers) + 1
  nobody_can_take = (
    'rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq {} 0 1'
  )
  assert encode(nobody_can_take.format('e3')) == encode(
    nobody_can_take.format('-')
  )


BAD = {
  'illegal answer': ({'Moves': 'g7g5 d1h6'}, 'd1h6'),
  'illegal slip': ({'Moves': 'g7g4 d1h5'}, 'g7g4'),
  'illegal later move': ({'Moves': 'g7g5 d1h5 e8f7'}, 'e8f7'),
  'null move': ({'Moves': 'g7g5 0000'}, '0000'),
  'no answer': ({'Moves': 'g7g5'}, 'has no answer'),
  'no moves': ({'Moves': ''}, 'has no answer'),
  'broken FEN': ({'FEN': 'rnbqkbnr/ppppp1pp b'}, 'rnbqkbnr/ppppp1pp'),
  'no FEN': ({'FEN': ''}, 'empty fen'),
  'no kings': ({'FEN': WHITE['FEN'].replace('k', 'q')}, 'not a position'),
  'another game': ({'GameMoves': 'e2e4 f7f6 d2d3'}, 'do not lead'),
  'illegal game': ({'GameMoves': 'e2e4 f7f6 d1d4'}, 'GameMoves: '),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_row_is_counted_and_named_and_the_others_stay(
  tmp_path, caplog, kind
):
  fields, reason = BAD[kind]
  source = write(tmp_path / 'a.csv', [WHITE, WHITE | fields, BLACK])
  with caplog.at_level(logging.WARNING):
    examples, counts = load(source)
  assert len(examples) == counts['examples'] == 2
  assert counts['bad'] == 1 and counts['rows'] == 3
  (message,) = caplog.messages
  assert '1 of 3 rows are bad' in message
  assert f'{tmp_path / "a.csv"}:3: ' in message and reason in message


def test_nothing_but_bad_rows_and_missing_columns_are_errors(tmp_path):
  bad = [WHITE | fields for fields, _ in BAD.values()]
  with pytest.raises(ValueError, match='has no rows'):
    load(write(tmp_path / 'bad.csv', bad))
  row = {k: v for k, v in WHITE.items() if k != 'Moves'}
  with pytest.raises(ValueError, match="b.csv:2: .* the column 'Moves'"):
    load(write(tmp_path / 'b.csv', [row]))
  with pytest.raises(ValueError, match="c.csv:2: .* the column 'Rating'"):
    load(write(tmp_path / 'c.csv', [WHITE]), min_rating=1)
  with pytest.raises(ValueError, match="d.csv:2: Rating '' is not"):
    load(write(tmp_path / 'd.csv', [WHITE | {'Rating': ''}]), max_rating=1)


@pytest.mark.parametrize(
  'select, chosen',
  [
    ({}, [0, 1, 2]),
    (dict(min_rating=1500), [1, 2]),
    (dict(max_rating=1500), [0, 1]),
    (dict(min_rating=1500, max_rating=1500), [1]),
    (dict(themes=('fork',)), [0, 1]),
    (dict(themes=('fork', 'mateIn1')), [0, 1, 2]),
    (dict(themes=('mate',)), []),
    (dict(min_rating=1001, themes=('fork',)), [1]),
  ],
)
def test_rows_are_selected_by_rating_and_theme(select, chosen):
  rows = [
    WHITE | {'Rating': rating, 'Themes': themes}
    for rating, themes in (
      ('1000', 'short fork'),
      ('1500', 'fork pin'),
      ('2000', 'mateIn1'),
    )
  ]
  found = [bool(chess_task.convert(row, **select)) for row in rows]
  assert [i for i, is_in in enumerate(found) if is_in] == chosen


def test_puzzles_of_one_game_share_a_group():
  def group(**fields):
    ((_, key, _),) = chess_task.convert(WHITE | fields)
    return key

  url = 'https://lichess.org/abcdefgh'
  assert group(GameUrl=f'{url}#4') == group(GameUrl=f'{url}/black#9') == url
  assert group(GameUrl=f'{url}#4', GameId='7') == group(GameId='7') == '7'
  assert group() == group(GameUrl='', GameId='') == WHITE['FEN']


def test_every_compression_gives_the_same_examples(tmp_path):
  content = as_csv([WHITE, BLACK, *tiny_chess.puzzle_rows(6)]).encode()
  (tmp_path / 'a.csv').write_bytes(content)
  (tmp_path / 'a.csv.gz').write_bytes(gzip.compress(content))
  names = ['a.csv', 'a.csv.gz']
  if importlib.util.find_spec('pyarrow'):  # optional
    import pyarrow

    compressed = pyarrow.compress(content, 'zstd', asbytes=True)
    (tmp_path / 'a.csv.zst').write_bytes(compressed)
    names.append('a.csv.zst')
  first, *others = (load(f'file:{tmp_path / name}')[0] for name in names)
  assert len(first) == 8 and not first.balanced
  for other in others:
    np.testing.assert_array_equal(other.ids, first.ids)
    np.testing.assert_array_equal(other.groups, first.groups)
    assert other.inputs == first.inputs
    np.testing.assert_array_equal(other.label_probs_NxC, first.label_probs_NxC)


def test_splits_keep_games_together_and_take_any_answers(tmp_path):
  rows = [
    row | {'GameId': f'game-{i // 3}'}
    for i, row in enumerate(tiny_chess.puzzle_rows(24))
  ]
  examples, _ = load(write(tmp_path / 'a.csv', rows))
  cut = splits.split(examples, {'weak': 9, 'rest': -1}, seed=0)
  weak, rest = (examples.take(cut[name]) for name in ('weak', 'rest'))
  assert len(weak) == 9 and len(rest) == len(examples) - 9
  assert not set(weak.groups) & set(rest.groups)


def test_another_mate_is_accepted_and_what_is_no_move_is_not_legal():
  position = chess_task.Position('k7/8/1K6/8/8/8/8/6QR w - - 0 1', '')
  mate, other_mate, quiet = map(
    position.completions.index, ('Qg8#', 'Rh8#', 'Qg2+')
  )
  classes = np.eye(chess_task.NUM_CLASSES, dtype=np.float32)
  measured = chess_task.measure(
    [position] * 4,
    classes[[mate, other_mate, quiet, chess_task.NOT_LEGAL]],
    classes[[mate] * 4],
  )
  assert measured == {'accepted_accuracy': 0.5, 'legal': 0.75}


@pytest.mark.skipif(not LICHESS.exists(), reason=f'needs {LICHESS.name}')
def test_puzzles_of_lichess_are_all_understood():
  examples, counts = load(f'file:{LICHESS}')
  assert counts['rows'] == len(examples) == 1000 and not counts['bad']
  with LICHESS.open(newline='') as f:
    lines = [row['Moves'].split() for row in csv.DictReader(f)]
  labels = examples.label_probs_NxC.argmax(1)
  for position, label, line in zip(examples.inputs, labels, lines, strict=True):
    board = chess.Board(position.fen)
    assert chess_task.legal_moves(board)[label] == board.parse_uci(line[1])
