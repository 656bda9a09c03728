"""The makers of chess puzzles: the rule for easy ones, and the checks."""

import shutil

import chess
import pytest

from experiments.data_making import check_chess_puzzles
from experiments.data_making import make_chess_puzzles
from experiments.data_making import stockfish

ENGINE = shutil.which('stockfish', path='/usr/games') or shutil.which(
  'stockfish'
)


@pytest.mark.parametrize(
  'fen, move',
  [
    # a loose queen before a loose pawn
    ('4k3/8/8/3q1p2/4P3/8/8/4K3 w - - 0 1', 'e4d5'),
    # a guarded pawn is not worth the rook; the loose knight is
    ('4k3/8/2p5/3p3n/8/8/8/3RK2R w - - 0 1', 'h1h5'),
    # mate before the queen
    ('6k1/5ppp/8/8/8/8/q4PPP/R3R1K1 w - - 0 1', 'e1e8'),
    # nothing to take
    ('4k3/8/8/8/8/8/8/4K3 w - - 0 1', None),
  ],
)
def test_the_rule_mates_or_takes_the_best_loose_piece(fen, move):
  assert check_chess_puzzles.rule_move(chess.Board(fen)) == move


def row(**fields):
  """1. e4 f6 2. d4 g5, and mate by the queen."""
  return {
    'PuzzleId': '0.0.4',
    'FEN': 'rnbqkbnr/ppppp1pp/5p2/8/3PP3/8/PPP2PPP/RNBQKBNR b KQkq - 0 2',
    'Moves': 'g7g5 d1h5',
    'RuleSolves': '1',
    'GameMoves': 'e2e4 f7f6 d2d4',
  } | fields


def test_a_right_row_passes():
  check_chess_puzzles.check_row(row())


@pytest.mark.parametrize(
  'fields',
  [
    {'Moves': 'g7g5 d1h6'},
    {'RuleSolves': '0'},
    {'GameMoves': 'e2e4 f7f6 d2d3'},
    {'Moves': 'g7g5'},
  ],
)
def test_a_wrong_row_is_refused(fields):
  with pytest.raises((ValueError, IndexError)):
    check_chess_puzzles.check_row(row(**fields))


@pytest.mark.skipif(not ENGINE, reason='needs stockfish (Debian: stockfish)')
def test_a_game_is_a_function_of_its_seed_and_number():
  games = []
  for numbers in ((0, 1), (1,)):
    engine = stockfish.Engine(ENGINE)
    games += [make_chess_puzzles.make_game(engine, 0, n) for n in numbers]
    engine.close()
  assert games[1] == games[2] != games[0]
  for game in games:
    for made in game['rows']:
      check_chess_puzzles.check_row(made)
