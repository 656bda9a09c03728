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
    piece, ranks[start_rank] = _put('.', ranks[start_rank], start)
    before = ranks[end_rank]
    taken, ranks[end_rank] = _put(piece, before, end)
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
  promotion = ''
  if piece in 'Pp':
    if end_rank in (0, 7):
      promotion = uci[4:]
      if promotion not in ('q', 'r', 'b', 'n'):
        return None
      promoted = promotion.upper() if white else promotion
      _, ranks[end_rank] = _put(promoted, before, end)
    elif abs(start_rank - end_rank) == 2:
      if piece.swapcase() in _squares(before)[max(end - 1, 0) : end + 2]:
        return None
    elif start != end and taken == '.':
      if uci[2:] != en_passant:
        return None
      # The pawn that is taken is beside the start.
      _, ranks[start_rank] = _put('.', ranks[start_rank], end)
  elif piece in 'Kk' and abs(start - end) > 1:
    if uci not in _CASTLES or _CASTLES[uci][0] not in castling:
      return None
    _, corner, beside = _CASTLES[uci]
    rook, rank = _put('.', ranks[start_rank], corner)
    _, ranks[start_rank] = _put(rook, rank, beside)
  if uci[4:] != promotion:
    return None
  if castling != '-':
    lost = _RIGHTS.get(uci[:2], '') + _RIGHTS.get(uci[2:4], '')
    if lost:
      castling = ''.join(x for x in castling if x not in lost) or '-'
  halfmove = 0 if piece in 'Pp' or taken != '.' else halfmove + 1
  turn, fullmove = ('b', fullmove) if white else ('w', fullmove + 1)
  return f'{"/".join(ranks)} {turn} {castling} - {halfmove} {fullmove}'


@functools.lru_cache(maxsize=200_000)
def _put(piece: str, rank: str, file: int) -> tuple[str, str]:
  """Returns what was on a file of a rank, and the rank with `piece` there."""
  squares = _squares(rank)
  placed = f'{squares[:file]}{piece}{squares[file + 1 :]}'
  empty_as_digit = re.sub(r'\.+', lambda run: str(len(run[0])), placed)
  return squares[file], empty_as_digit


def _squares(rank: str) -> str:
  """Returns the eight squares of a rank: 'p.......' for 'p7'."""
  squares = ''.join(_EMPTY.get(x, x) for x in rank)
  if len(squares) != 8:
    raise ValueError(rank)
  return squares
