"""Plays chess moves on the text of a FEN, for reading millions of positions.

It knows no rules, and leaves what needs them to python-chess.
"""

import functools

# Whether a move ends rights to castle: those of a move from or to a square.
_RIGHTS = dict(a1='Q', e1='KQ', h1='K', a8='q', e8='kq', h8='k')
_SQUARES = {
  f'{file}{rank}': (8 - rank, 'abcdefgh'.index(file))
  for file in 'abcdefgh'
  for rank in range(1, 9)
}
# From a castling move to the right that it needs, and the rank after it.
_CASTLED = {
  'e1g1': ('K', slice(0, 4), '{}.RK.'),
  'e1c1': ('Q', slice(4, 8), '..KR{}'),
  'e8g8': ('k', slice(0, 4), '{}.rk.'),
  'e8c8': ('q', slice(4, 8), '..kr{}'),
}
_CASTLING = frozenset(
  '- K Q k q KQ Kk Kq Qk Qq kq KQk KQq Kkq Qkq KQkq'.split()
)
# Ranks of a FEN whose empty squares are dots, by characters.
_EMPTY = [(str(n), '.' * n) for n in range(8, 0, -1)]
_WIDE = dict(_EMPTY) | {piece: piece for piece in 'pnbrqkPNBRQK'}


@functools.cache
def _moves():
  """Returns a table of 20,160 moves, not made where no position is read.

  From a move to the rank, from the top, and the file of both squares, how many
  steps of a king they are apart, the rights to castle that end, and the piece
  that a pawn becomes.
  """
  return {
    start + end + becomes: (
      rank,
      file,
      to_rank,
      to_file,
      max(abs(rank - to_rank), abs(file - to_file)),
      _RIGHTS.get(start, '') + _RIGHTS.get(end, ''),
      becomes,
    )
    for start, (rank, file) in _SQUARES.items()
    for end, (to_rank, to_file) in _SQUARES.items()
    for becomes in ('', *'nbrq')
    if start != end
  }


def moved(fen: str, uci: str) -> str | None:
  """Returns the FEN after a legal move, as that of a chess.Board.

  None where that takes rules: en passant, and a double step that may be taken
  so; and where the FEN is not in the form that chess.Board writes. Whether the
  move is legal is not checked.
  """
  try:
    placement, state = fen.split(' ', 1)
    rank, file, to_rank, to_file, distance, ended, becomes = _moves()[uci]
    ranks = placement.split('/')
    squares = _expanded(ranks[rank])
    piece = squares[file]
    ranks[rank] = _compressed(f'{squares[:file]}.{squares[file + 1 :]}')
    squares = _expanded(ranks[to_rank])
    taken = squares[to_file]
  except (LookupError, ValueError):
    return None
  if len(ranks) != 8 or '~' in placement:
    return None
  is_pawn = piece in 'Pp'
  if is_pawn and taken == '.' and (distance > 1 or file != to_file):
    beside = squares[max(to_file - 1, 0) : to_file + 2]
    if distance > 2 or file != to_file or piece.swapcase() in beside:
      return None
  if becomes:
    if not is_pawn:
      return None
    piece = becomes.upper() if piece == 'P' else becomes
  if piece in 'Kk' and distance > 1:
    right, stay, form = _CASTLED.get(uci, ('none', '', ''))
    if right not in state:
      return None
    squares = form.format(squares[stay])
  else:
    squares = f'{squares[:to_file]}{piece}{squares[to_file + 1 :]}'
  ranks[to_rank] = _compressed(squares)
  state = _next_state(state, ended, is_pawn or taken != '.')
  return state and f'{"/".join(ranks)} {state}'


@functools.lru_cache(maxsize=100_000)
def _next_state(state: str, ended: str, is_zeroing: bool) -> str | None:
  """Returns what follows the placement after a move; None for odd forms."""
  try:
    turn, castling, _, halfmove, fullmove = state.split(' ')
    halfmove, fullmove = int(halfmove), int(fullmove)
  except ValueError:
    return None
  if (
    turn not in ('w', 'b')
    or castling not in _CASTLING
    or halfmove < 0
    or fullmove < 1
  ):
    return None
  castling = ''.join(x for x in castling if x not in ended) or '-'
  halfmove = 0 if is_zeroing else halfmove + 1
  turn, fullmove = ('b', fullmove) if turn == 'w' else ('w', fullmove + 1)
  return f'{turn} {castling} - {halfmove} {fullmove}'


@functools.lru_cache(maxsize=100_000)  # Most are those of many positions.
def _expanded(rank: str) -> str:
  """Returns a rank with dots for its empty squares; LookupError if broken."""
  squares = ''.join(map(_WIDE.__getitem__, rank))
  if len(squares) != 8:
    raise LookupError(rank)
  return squares


@functools.lru_cache(maxsize=100_000)
def _compressed(squares: str) -> str:
  """Returns a rank with digits for its empty squares."""
  for digit, dots in _EMPTY:
    squares = squares.replace(dots, digit)
  return squares
