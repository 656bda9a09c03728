"""Compares attacks computed from tokens with those of python-chess."""

import random

import chess
import chess_test
import numpy as np

from w2s_jax.models import chess_attacks
from w2s_jax.tasks import chess as chess_task

LENGTH = 40  # some padding in every row


def encoded_boards():
  """Returns (encoded, board) with white to move: squares are not mirrored."""
  found = [board for board in chess_test.boards() if board.turn]
  return [(chess_task.encode(board), board) for board in found]


def padded(rows):
  tokens_BxL = np.zeros((len(rows), LENGTH), np.int32)
  for slot, row in enumerate(rows):
    tokens_BxL[slot, : len(row)] = row
  return tokens_BxL, np.array([len(row) for row in rows], np.int32)


def squares(tokens, marks_L):
  """Returns the squares of the marked tokens."""
  return {tokens[place] % 64 for place in np.flatnonzero(marks_L)}


def test_attacks():
  pairs = encoded_boards()
  tokens_BxL, length_B = padded([encoded.tokens for encoded, _ in pairs])
  found_BxLxL = np.asarray(chess_attacks.attacks(tokens_BxL, length_B))
  assert found_BxLxL.dtype == np.float32
  for found_LxL, (encoded, board) in zip(found_BxLxL, pairs, strict=True):
    tokens = encoded.tokens
    everything = {token % 64 for token in tokens}
    for token, found_L in zip(tokens, found_LxL):
      attacked = set(board.attacks(token % 64)) & everything
      assert squares(tokens, found_L) == attacked
    assert not found_LxL[len(tokens) :].any()


def test_attacks_after_a_move():
  rng = random.Random(0)
  pairs = encoded_boards()
  choices = [rng.sample(range(len(x.movers)), k=1)[0] for x, _ in pairs]
  tokens_BxL, length_B = padded([encoded.tokens for encoded, _ in pairs])
  movers_Bx2, arrivals_Bx2 = (
    # The second move is padding.
    np.array([[getattr(x, name)[i], -1] for (x, _), i in zip(pairs, choices)])
    for name in ('movers', 'arrivals')
  )
  by_Bx2xL, of_Bx2xL = map(
    np.asarray,
    chess_attacks.attacks_after(tokens_BxL, length_B, movers_Bx2, arrivals_Bx2),
  )
  for slot, ((encoded, board), choice) in enumerate(zip(pairs, choices)):
    move = chess_task.legal_moves(board)[choice]
    after = board.copy()
    piece = after.remove_piece_at(move.from_square)
    kind = move.promotion or piece.piece_type
    after.set_piece_at(move.to_square, chess.Piece(kind, chess.WHITE))
    everything = {token % 64 for token in encoded.tokens} - {move.from_square}
    attackers = [after.attackers(side, move.to_square) for side in chess.COLORS]
    assert squares(encoded.tokens, by_Bx2xL[slot, 0]) == set().union(*attackers)
    attacked = set(after.attacks(move.to_square)) & everything
    assert squares(encoded.tokens, of_Bx2xL[slot, 0]) == attacked
    assert not by_Bx2xL[slot, 0, len(encoded.tokens) :].any()
    assert not of_Bx2xL[slot, 0, len(encoded.tokens) :].any()
  assert np.isfinite(by_Bx2xL).all() and np.isfinite(of_Bx2xL).all()
