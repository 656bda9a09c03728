"""Attack matrices of a chess board, before and after a move.

Computed inside the network from the tokens of tasks/chess.py, so that rows stay
small. A piece attacks every square on which it could capture, also those of its
own side's pieces, which it defends.

Shapes: B batch, L tokens, M candidate moves, S = 64 squares.
"""

import jax
import jax.numpy as jnp

from w2s_jax.tasks import chess


def attacks(tokens_BxL, length_B):
  """Returns float32 [B, L, L]: 1 where the first piece attacks the second."""
  real_BxL = _real(tokens_BxL, length_B)
  piece_BxLx1, other_Bx1xL = tokens_BxL[:, :, None], tokens_BxL[:, None]
  between = _between(tokens_BxL, real_BxL, piece_BxLx1, other_Bx1xL)
  attacks_BxLxL = _reaches(piece_BxLx1, other_Bx1xL) & (between == 0)
  real_BxLxL = real_BxL[:, :, None] & real_BxL[:, None]
  return (attacks_BxLxL & real_BxLxL).astype(jnp.float32)


def attacks_after(tokens_BxL, length_B, movers_BxM, arrivals_BxM):
  """Returns the attackers and the targets of each moved piece.

  Args:
    tokens_BxL: the board before the move.
    length_B: its number of tokens.
    movers_BxM: position of the moving piece among the tokens.
    arrivals_BxM: its token after the move.

  Returns:
    Two float32 [B, M, L]: 1 where a piece attacks the moved one, and where the
    moved one attacks a piece. Lines that it blocked are open; a captured piece
    still counts.
  """
  real_BxL = _real(tokens_BxL, length_B)
  piece_BxMx1, other_Bx1xL = arrivals_BxM[:, :, None], tokens_BxL[:, None]
  start_BxM = jnp.take_along_axis(tokens_BxL, movers_BxM, axis=1) % 64
  between = _between(tokens_BxL, real_BxL, piece_BxMx1, other_Bx1xL)
  between -= jnp.asarray(chess.between())[
    piece_BxMx1 % 64, other_Bx1xL % 64, start_BxM[:, :, None]
  ]
  place_L = jnp.arange(tokens_BxL.shape[1])
  stays_BxMxL = movers_BxM[:, :, None] != place_L[None, None]
  open_BxMxL = (between == 0) & stays_BxMxL & real_BxL[:, None]
  attacked_BxMxL = open_BxMxL & _reaches(other_Bx1xL, piece_BxMx1)
  attacks_BxMxL = open_BxMxL & _reaches(piece_BxMx1, other_Bx1xL)
  return attacked_BxMxL.astype(jnp.float32), attacks_BxMxL.astype(jnp.float32)


def _real(tokens_BxL, length_B):
  return jnp.arange(tokens_BxL.shape[1])[None] < length_B[:, None]


def _reaches(token, other):
  """Whether a piece could capture on another's square on an empty board."""
  return jnp.asarray(chess.reaches())[token, other % 64]


def _between(tokens_BxL, real_BxL, token_BxXx1, token_Bx1xL):
  """Counts the pieces between the squares of two tokens: int [B, X, L]."""
  piece_BxL = real_BxL & (tokens_BxL // 64 != chess.EN_PASSANT)
  occupied_BxS = jnp.sum(
    jax.nn.one_hot(tokens_BxL % 64, 64) * piece_BxL[:, :, None], axis=1
  )
  between_SSxS = chess.between().reshape(64 * 64, 64)
  count_BxSS = occupied_BxS @ between_SSxS.T.astype(jnp.float32)
  pair_BxXxL = token_BxXx1 % 64 * 64 + token_Bx1xL % 64
  count_BxXL = jnp.take_along_axis(
    count_BxSS, pair_BxXxL.reshape(len(tokens_BxL), -1), axis=1
  )
  return count_BxXL.reshape(pair_BxXxL.shape).astype(jnp.int32)
