"""Positions of whole chess games, to pretrain board models on."""

from collections.abc import Callable
from collections.abc import Container

import chess

from w2s_jax.tasks import cells
from w2s_jax.tasks import chess as chess_task


def positions_of_game(
  row: dict,
  *,
  min_elo: int = 0,
  keep: Callable[[int], bool] = lambda gap: True,
  excluded: Container[str] = (),
) -> list[tuple[chess_task.Encoded, int]]:
  """Returns the positions of a game and the class of the move to make in each.

  Args:
    row: with `moves`, and either an engine's `choices` before each of them or
      the players' `WhiteElo` and `BlackElo`. `gaps`, if there are any, are how
      much better the first choice in each position is than the second.
    min_elo: of the player to move; 0 takes all players.
    keep: whether to take a position with such a gap.
    excluded: EPDs of positions to leave out.

  Raises:
    KeyError: a column that is needed is missing.
    ValueError: a move is not legal, or a gap is not a whole number.
  """
  moves = cells.string(row, 'moves').split()
  targets, elo = moves, [min_elo, min_elo]
  if 'choices' in row:
    targets = cells.string(row, 'choices').split()
  elif min_elo:
    elo = [_elo(row['WhiteElo']), _elo(row['BlackElo'])]
  taken = [elo[ply % 2] >= min_elo for ply in range(len(moves))]
  if 'gaps' in row:
    gaps = map(int, cells.string(row, 'gaps').split())
    taken = [keep(gap) and x for gap, x in zip(gaps, taken, strict=True)]
  board, positions = chess.Board(), []
  for move, target, take in zip(moves, targets, taken, strict=True):
    if take and not (excluded and board.epd() in excluded):
      legal = chess_task.legal_moves(board)
      label = legal.index(board.parse_uci(target))
      positions.append((chess_task.encode(board, legal), label))
    board.push_uci(move)
  return positions


def _elo(value) -> int:
  """Returns 0 where it is not known: '?' or '-' in PGN, or nothing."""
  return int(value) if str(value).isdecimal() else 0
