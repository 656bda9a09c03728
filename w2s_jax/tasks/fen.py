"""Plays chess moves on the text of a FEN, for reading millions of positions.

It knows no rules, and leaves what needs them to python-chess.
"""

import functools
import itertools
import re

_FILES = {name: i for i, name in enumerate('abcdefgh')}
_RANKS = {name: i for i, name in enumerate('87654321')}  # as in a FEN
_CASTLING = {
  ''.join(itertools.compress('KQkq', kept)) or '-'
  for kept in itertools.product((0, 1), repeat=4)
}
# The rights that end with a move from or to a square.
_RIGHTS = {'a1': 'Q', 'e1': 'KQ', 'h1': 'K', 'a8': 'q', 'e8': 'kq', 'h8': 'k'}
# How a king castles: the right to, and the files of the rook.
_CASTLES = {
  'e1g1': ('K', 7, 5),
  'e1c1': ('Q', 0, 3),
  'e8g8': ('k', 7, 5),
  'e8c8': ('q', 0, 3),
}
_EMPTY = {str(n): '.' * n for n in range(1, 9)}


def moved(fen: str, uci: str) -> str | None:
  """Returns the FEN after a move, as that of a chess.Board.

  Only what a right row needs is done: the FEN and the move are not checked.
  None where the move needs rules, as after a pawn's double step that may be
  taken en passant, or where it is wrong or spelled in another way.
  """
  try:
    placement, turn, castling, en_passant, halfmove, fullmove = fen.split(' ')
    ranks = placement.split('/')
    start, start_rank = _FILES[uci[0]], _RANKS[uci[1]]
    end, end_rank = _FILES[uci[2]], _RANKS[uci[3]]
    squares = _squares(ranks[start_rank])
    piece, taken = squares[start], _squares(ranks[end_rank])[end]
    halfmove, fullmove = int(halfmove), int(fullmove)
  except (IndexError, KeyError, ValueError):
    return None
  white = turn == 'w'
  own = 'PNBRQK' if white else 'pnbrqk'
  if (
    piece not in own
    or taken in own
    or castling not in _CASTLING
    or turn not in ('b', 'w')
    or '~' in placement
    or halfmove < 0
    or fullmove < 1
  ):
    return None
  placed, emptied = piece, (start,)
  if piece in 'Pp':
    if end_rank in (0, 7):
      if uci[4:] not in ('q', 'r', 'b', 'n'):
        return None
      placed = uci[4].upper() if white else uci[4]
    elif abs(start_rank - end_rank) == 2:
      beside = _squares(ranks[end_rank])[max(end - 1, 0) : end + 2]
      if piece.swapcase() in beside:
        return None
    elif start != end and taken == '.':
      if uci[2:] != en_passant:
        return None
      emptied = start, end  # the pawn that is taken is beside the start
  elif piece in 'Kk' and abs(start - end) > 1:
    if uci not in _CASTLES or _CASTLES[uci][0] not in castling:
      return None
    _, corner, rook = _CASTLES[uci]
    squares = f'{squares[:rook]}{squares[corner]}{squares[rook + 1 :]}'
    emptied = start, corner
  if len(uci) != 4 + (placed != piece):
    return None
  for square in emptied:
    squares = f'{squares[:square]}.{squares[square + 1 :]}'
  ranks[start_rank] = _rank(squares)
  squares = _squares(ranks[end_rank])
  ranks[end_rank] = _rank(f'{squares[:end]}{placed}{squares[end + 1 :]}')
  if castling != '-':
    lost = _RIGHTS.get(uci[:2], '') + _RIGHTS.get(uci[2:4], '')
    castling = ''.join(x for x in castling if x not in lost) or '-'
  halfmove = 0 if piece in 'Pp' or taken != '.' else halfmove + 1
  turn, fullmove = ('b', fullmove) if white else ('w', fullmove + 1)
  return f'{"/".join(ranks)} {turn} {castling} - {halfmove} {fullmove}'


@functools.lru_cache(maxsize=100_000)
def _squares(rank: str) -> str:
  """Returns the eight squares of a rank: 'p.......' for 'p7'."""
  squares = ''.join(_EMPTY.get(x, x) for x in rank)
  if len(squares) != 8:
    raise ValueError(rank)
  return squares


@functools.lru_cache(maxsize=100_000)
def _rank(squares: str) -> str:
  """Returns the rank, as in a FEN, of eight squares."""
  return re.sub(r'\.+', lambda empty: str(len(empty[0])), squares)
