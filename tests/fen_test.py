"""Moves played on the text of a FEN."""

import chess
import chess_test
import pytest

from w2s_jax.tasks import fen


def test_moves_are_those_of_python_chess():
  played, special, left = 0, set(), []
  boards = chess_test.boards()
  boards = boards[:-6:20] + boards[-6:]
  for rights in ('KQkq', 'Kk', 'Qq', 'K', 'q'):
    boards.append(chess.Board(chess_test.CASTLING.format(rights)))
  for board in boards:
    before = board.fen()
    for move in board.legal_moves:
      after = board.copy(stack=False)
      after.push(move)
      found = fen.moved(before, move.uci())
      if found is None:
        left.append((board, move, after))
      else:
        assert found == after.fen(), (before, move)
        played += 1
        if move.promotion or board.is_castling(move):
          special.add(move.uci())
  for board, move, after in left:
    assert (
      board.is_en_passant(move)
      or after.ep_square  # whether it may be taken is a matter of rules
    ), (board.fen(), move)
  assert played > 500
  assert special >= {'e1g1', 'e1c1', 'e8g8', 'e8c8'}
  assert {uci[4:] for uci in special} >= set('nbrq')


def test_counters():
  start = '4k3/8/8/8/8/5n2/4P3/4K3 {} - - {} {}'
  assert fen.moved(start.format('w', 7, 9), 'e1d1').endswith(' b - - 8 9')
  assert fen.moved(start.format('w', 7, 9), 'e2f3').endswith(' b - - 0 9')
  assert fen.moved(start.format('b', 7, 9), 'f3d4').endswith(' w - - 8 10')


@pytest.mark.parametrize(
  'uci',
  [
    *('', 'e2', 'e2e9', '0000', 'g1f4q', 'e2e4=q', 'e1e1', 'e1h1', 'e1c1'),
  ],
)
def test_what_does_more_or_is_spelled_in_another_way_is_left_to_the_rules(uci):
  board = 'rnbqkbnr/ppp1pppp/8/3p4/8/8/PPPPPPPP/RNBQK2R w Kkq - 0 2'
  assert fen.moved(board, uci) is None


@pytest.mark.parametrize(
  'broken',
  [
    '',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq -',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPP/RNBQKBNR w KQkq - 0 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w HAha - 0 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w kqKQ - 0 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - x 1',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 0',
    'rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQ~KBNR w KQkq - 0 1',
  ],
)
def test_an_odd_fen_is_left_to_the_rules(broken):
  assert fen.moved(broken, 'g1f3' if '~' in broken else 'h2h3') is None
