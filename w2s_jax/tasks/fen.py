"""Plays chess moves on the text of a FEN, for reading millions of positions.

It knows no rules, and leaves what needs them to python-chess.
"""

# Squares of a FEN's placement whose empty squares are dots; ranks end in '/'.
_SQUARES = {
  f'{file}{rank}': 9 * (8 - int(rank)) + 'abcdefgh'.index(file)
  for file in 'abcdefgh'
  for rank in '12345678'
}
_NUM_SQUARES = 71  # with the seven '/'
_RANK = 9  # from a square to the same one of the next rank
_EMPTY = [(str(n), '.' * n) for n in range(8, 0, -1)]
_CASTLING = frozenset(
  '- K Q k q KQ Kk Kq Qk Qq kq KQk KQq Kkq Qkq KQkq'.split()
)
# The rights to castle that end with a move from or to a square.
_RIGHTS = {
  _SQUARES[name]: rights
  for name, rights in zip(
    ('a1', 'e1', 'h1', 'a8', 'e8', 'h8'), ('Q', 'KQ', 'K', 'q', 'kq', 'k')
  )
}


def moved(fen: str, uci: str) -> str | None:
  """Returns the FEN after a legal move, as that of a chess.Board.

  None where the move does more than to move a piece: castling, promotion, en
  passant, and a double step that may be taken so; and where the FEN is not in
  the form that chess.Board writes. Whether the move is legal is not checked.
  """
  try:
    placement, turn, castling, _, halfmove, fullmove = fen.split(' ')
    start, end = _SQUARES[uci[:2]], _SQUARES[uci[2:]]
    halfmove, fullmove = int(halfmove), int(fullmove)
  except (KeyError, ValueError):
    return None
  for digit, dots in _EMPTY:
    placement = placement.replace(digit, dots)
  squares = list(placement)
  if (
    len(squares) != _NUM_SQUARES
    or turn not in ('w', 'b')
    or castling not in _CASTLING
    or halfmove < 0
    or fullmove < 1
  ):
    return None
  piece, taken = squares[start], squares[end]
  distance = abs(end - start)
  if piece in 'Kk' and distance not in (1, _RANK - 1, _RANK, _RANK + 1):
    return None
  if piece in 'Pp' and taken == '.' and distance != _RANK:
    beside = squares[end - 1 : end + 2]
    if distance != 2 * _RANK or piece.swapcase() in beside:
      return None
  if ended := _RIGHTS.get(start, '') + _RIGHTS.get(end, ''):
    castling = ''.join(x for x in castling if x not in ended) or '-'
  squares[start], squares[end] = '.', piece
  placement = ''.join(squares)
  for digit, dots in _EMPTY:
    placement = placement.replace(dots, digit)
  halfmove = 0 if piece in 'Pp' or taken != '.' else halfmove + 1
  turn, fullmove = ('b', fullmove) if turn == 'w' else ('w', fullmove + 1)
  return f'{placement} {turn} {castling} - {halfmove} {fullmove}'
