"""Moves played on the text of a FEN."""

import chess
import chess_test
import pytest

from w2s_jax.tasks import fen


def test_all_moves_are_those_of_python_chess():
  left, boards = [], chess_test.boards()
  for board in boards[:-6:20] + boards[-6:]:
    before = board.fen()
    for move in board.legal_moves:
      after = board.copy(stack=False)
      after.push(move)
      found = fen.moved(before, move.uci())
      if found is None:
        left.append((board, move))
      else:
        assert found == after.fen(), (before, move)
  # Whether it may be taken en passant is a matter of rules.
  for board, move in left:
    assert board.piece_type_at(move.from_square) == chess.PAWN
    assert abs(move.from_square - move.to_square) == 16
  assert len(left) < 20


@pytest.mark.parametrize('fields', ['KQkq', 'Kk', 'Qq', 'K', 'q'])
def test_what_ends_the_right_to_castle(fields):
  board = chess.Board(chess_test.CASTLING.format(fields))
  for move in board.legal_moves:
    after = board.copy(stack=False)
    after.push(move)
    assert fen.moved(board.fen(), move.uci()) == after.fen()


def test_counters():
  start = '4k3/8/8/8/8/5n2/4P3/4K3 {} - - {} {}'
  assert fen.moved(start.format('w', 7, 9), 'e1d1').endswith(' b - - 8 9')
  assert fen.moved(start.format('w', 7, 9), 'e2f3').endswith(' b - - 0 9')
  assert fen.moved(start.format('b', 7, 9), 'f3d4').endswith(' w - - 8 10')


@pytest.mark.parametrize(
  'uci',
  [
    *('', 'e2', 'e2e9', '0000', 'e7e5', 'e4e5', 'e1d1', 'g1f4q', 'e2e4=q'),
    *('d4d8', 'e1g1', 'e1h1', 'e5d6'),
  ],
)
def test_what_is_wrong_or_spelled_in_another_way_is_left_to_the_rules(uci):
  wrong = 'rnbqkbnr/ppp1pppp/8/3p4/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 2'
  assert fen.moved(wrong, uci) is None


@pytest.mark.parametrize(
  'broken',
  [
    '',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq -',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPP/RNBQKBNR w KQkq - 0 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w HAha - 0 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - x 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 0',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQ~KBNR w KQkq - 0 1',
  ],
)
def test_an_odd_fen_is_left_to_the_rules(broken):
  assert fen.moved(broken, 'g1f3' if '~' in broken else 'h2h3') is None
