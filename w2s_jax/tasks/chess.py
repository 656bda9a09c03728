"""Chess puzzles: the best move in a position, from rows of a puzzle file.

Rows are those of the Lichess puzzle database: FEN is the position before the
opponent's mistake, Moves[0] the mistake and Moves[1] the answer; the rest of
the line is only checked. The classes of a row are its legal moves, in the order
of `legal_moves`, and a last one for an answer that is not a legal move.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import chess
import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import fen as fen_lib
from w2s_jax.tasks import task

MAX_LEGAL = 218  # in any position that a game can reach
NUM_CLASSES = MAX_LEGAL + 1
NOT_LEGAL = MAX_LEGAL  # the class of an answer that is not a legal move
MAX_COMPLETION = 9  # tokens of one or more characters each: ' Qa1xb2#\n'

# A token is a kind of piece on a square, 64 * kind + square, seen from the side
# to move. Kinds are the piece types of python-chess minus one, and these.
_ROOK_THAT_MAY_CASTLE = 6
_THEIRS = 7  # added to the kinds of the side not to move
EN_PASSANT = 14
NUM_KINDS = EN_PASSANT + 1
VOCAB_SIZE = 64 * NUM_KINDS


class Position(NamedTuple):
  """The inputs of a puzzle: the solver is to move."""

  fen: str
  moves: str  # of the game up to here, UCI; '' where they are not known

  @property
  def prompt(self) -> str:
    """The game in PGN up to here, such as '1. e4 e5 2.', else the FEN."""
    return _pgn(self.moves) if self.moves else self.fen

  @property
  def completions(self) -> list[str]:
    """The move of each class in SAN, any of which may follow the prompt."""
    board = chess.Board(self.fen)
    return [board.san(move) for move in legal_moves(board)]


@functools.lru_cache(maxsize=100_000)
def _pgn(moves: str) -> str:
  board, words = chess.Board(), []
  for uci in moves.split():
    if board.turn:
      words.append(f'{board.fullmove_number}.')
    words.append(board.san_and_push(chess.Move.from_uci(uci)))
  if board.turn:
    words.append(f'{board.fullmove_number}.')
  return ' '.join(words)


def legal_moves(board: chess.Board) -> list[chess.Move]:
  """Returns the legal moves in an order that is the same for both colours."""
  return sorted(board.legal_moves, key=_order(board))


def _order(board: chess.Board) -> Callable[[chess.Move], tuple]:
  """Returns the key that moves are sorted by."""
  flip = _flip(board)
  return lambda m: (m.from_square ^ flip, m.to_square ^ flip, m.promotion or 0)


def _flip(board: chess.Board) -> int:
  """Returns what to XOR squares with, so that the side to move plays up."""
  return 0 if board.turn else 56


class Encoded(NamedTuple):
  """A position as numbers; the moves are its legal ones, in order."""

  tokens: list[int]  # one per piece, at most 33
  movers: list[int]  # for each move: index in tokens of the moving piece,
  arrivals: list[int]  # the token that it becomes,
  captures: list[int]  # and index of the captured piece, -1 for none


def encode(
  board: chess.Board, moves: list[chess.Move] | None = None
) -> Encoded:
  """Encodes a position; `moves` are its legal ones, where already known."""
  flip = _flip(board)
  tokens = []
  for square, piece in board.piece_map().items():
    kind = piece.piece_type - 1
    if board.castling_rights >> square & 1:
      kind = _ROOK_THAT_MAY_CASTLE
    if piece.color != board.turn:
      kind += _THEIRS
    tokens.append(64 * kind + (square ^ flip))
  if board.has_legal_en_passant():
    tokens.append(64 * EN_PASSANT + (board.ep_square ^ flip))
  tokens.sort()
  index = {token % 64: i for i, token in enumerate(tokens)}
  movers, arrivals, captures = [], [], []
  for move in legal_moves(board) if moves is None else moves:
    end = move.to_square ^ flip
    piece = move.promotion or board.piece_type_at(move.from_square)
    movers.append(index[move.from_square ^ flip])
    arrivals.append(64 * (piece - 1) + end)
    captures.append(index[end] if board.is_capture(move) else -1)
  return Encoded(tokens, movers, arrivals, captures)


@functools.cache
def reaches() -> np.ndarray:
  """Returns bool [VOCAB_SIZE, 64]: a token's attacks on an empty board."""
  reaches_VxS = np.zeros((VOCAB_SIZE, 64), bool)
  for token, reaches_S in enumerate(reaches_VxS[: 64 * EN_PASSANT]):
    kind, square = divmod(token, 64)
    theirs, kind = divmod(kind, _THEIRS)
    piece = chess.ROOK if kind == _ROOK_THAT_MAY_CASTLE else kind + 1
    board = chess.BaseBoard.empty()
    board.set_piece_at(square, chess.Piece(piece, color=not theirs))
    reaches_S[list(board.attacks(square))] = True
  return reaches_VxS


@functools.cache
def between() -> np.ndarray:
  """Returns bool [64, 64, 64]: is the third square between the first two?"""
  between_SxSxS = np.zeros((64, 64, 64), bool)
  for start, end in np.ndindex(64, 64):
    squares = chess.SquareSet.between(start, end)
    between_SxSxS[start, end, list(squares)] = True
  return between_SxSxS


def check_select(
  *, min_rating: int = 0, max_rating: int = 0, themes: tuple[str, ...] = ()
) -> None:
  """Raises UserError for arguments of `convert` that select no puzzle."""
  bounds = {
    'data.select.min_rating': min_rating,
    'data.select.max_rating': max_rating,
  }
  for name, bound in bounds.items():
    if cells.number(bounds, name) < 0:
      raise errors.UserError(f'{name} = {bound} is negative: 0 is no limit.')
  if 0 < max_rating < min_rating:
    raise errors.UserError(
      f'data.select.max_rating = {max_rating} is below '
      f'data.select.min_rating = {min_rating}, so no puzzle is selected: raise '
      'it, or set it to 0 for no limit.'
    )
  if isinstance(themes, str):
    raise errors.UserError(
      f'data.select.themes = {cells.short(themes)} is a text: give a list.'
    )


def screen(row: dict, **select) -> tuple[Position, str | int] | None:
  """Returns the example of a row before it is checked; see task.Task.screen.

  Args:
    **select: as `convert`.

  Raises:
    task.BadRow: there is no answer, or the first move cannot be played.
    KeyError, UserError: as `convert`.
  """
  if not _is_selected(row, **select):
    return None
  fen, line, game_moves = _puzzle(row)
  slip = line[0]
  after = fen_lib.moved(fen, slip) or _board(fen, slip).fen()
  return _position(after, game_moves, slip), _game(row)


def convert(
  row: dict,
  *,
  min_rating: int = 0,
  max_rating: int = 0,
  themes: tuple[str, ...] = (),
) -> list[tuple[Position, str | int, int]]:
  """Returns (inputs, group, label) of a row, or nothing if it is not selected.

  Args:
    min_rating, max_rating: of the puzzle, both included; 0 for no limit.
    themes: the puzzle has at least one of these; () for any.

  Raises:
    task.BadRow: a move is not legal, or the position or the line is broken.
    KeyError: a column that is needed is missing.
    UserError: a rating that is needed is not a number, or a text is not one.
  """
  if not _is_selected(
    row, min_rating=min_rating, max_rating=max_rating, themes=themes
  ):
    return []
  fen, line, game_moves = _puzzle(row)
  slip, *solution = line
  board = _board(fen, slip)
  after = fen_lib.moved(fen, slip) or board.fen()
  try:
    answer = _parse(board, solution[0])
    label = _class_of(board, answer)
    for uci in solution[1:]:
      board.push(answer)
      answer = _parse(board, uci)
  except ValueError as error:
    raise task.BadRow(cells.cut(str(error))) from error
  if game_moves:
    _check_game(game_moves, fen)
  return [(_position(after, game_moves, slip), _game(row), label)]


def _is_selected(
  row: dict,
  *,
  min_rating: int = 0,
  max_rating: int = 0,
  themes: tuple[str, ...] = (),
) -> bool:
  if min_rating or max_rating:
    rating = cells.number(row, 'Rating')
    if rating < min_rating or (max_rating and rating > max_rating):
      return False
  if not themes:
    return True
  found = cells.optional_text(row, 'Themes').split()
  return not set(themes).isdisjoint(found)


def _puzzle(row: dict) -> tuple[str, list[str], str]:
  """Returns the FEN, the line and the moves of the game, if they are known."""
  fen = cells.optional_text(row, 'FEN')
  moves = cells.optional_text(row, 'Moves')
  line = moves.split()
  if len(line) < 2:
    raise task.BadRow(f'Moves {cells.short(moves)} has no answer')
  return fen, line, _known(row, 'GameMoves')


def _board(fen: str, slip: str) -> chess.Board:
  """Returns the position after a move; BadRow if that cannot be."""
  try:
    board = chess.Board(fen)
    if not board.is_valid():
      raise errors.UserError(f'not a position of a game: FEN {fen!r}')
    board.push(_parse(board, slip))
  except ValueError as error:
    raise task.BadRow(cells.cut(str(error))) from error
  return board


def _position(fen: str, game_moves: str, slip: str) -> Position:
  return Position(fen, f'{game_moves} {slip}' if game_moves else '')


def _parse(board: chess.Board, uci: str) -> chess.Move:
  """Returns a legal move; ValueError if it is not one."""
  move = board.parse_uci(uci)
  if not move:  # python-chess takes 0000 anywhere
    raise errors.UserError(f'{uci} is not a move')
  return move


def _class_of(board: chess.Board, move: chess.Move) -> int:
  """Returns the place of a legal move among `legal_moves`, without all."""
  key = _order(board)
  first_squares = chess.BB_ALL >> (63 - (move.from_square ^ _flip(board)))
  if not board.turn:
    first_squares = chess.flip_vertical(first_squares)
  before = board.generate_legal_moves(from_mask=first_squares)
  place = key(move)
  return sum(key(other) < place for other in before)


def _known(row: dict, column: str) -> str:
  """Returns the text of a column that a row may lack."""
  return cells.optional_text(row, column) if column in row else ''


def _check_game(moves: str, fen: str) -> None:
  board = chess.Board()
  try:
    for uci in moves.split():
      board.push(_parse(board, uci))
  except ValueError as error:
    raise task.BadRow(cells.cut(f'GameMoves: {error}')) from error
  if board.epd() != chess.Board(fen).epd():
    raise task.BadRow(
      f'GameMoves do not lead to the position {cells.short(fen)}'
    )


def _game(row: dict) -> str | int:
  """Returns the game, as its puzzles share a group, or else the position."""
  # A link is https://lichess.org/abcdefgh/black#42.
  link = _known(row, 'GameUrl').partition('#')[0].removesuffix('/black')
  game = cells.group_key(row, 'GameId') if 'GameId' in row else ''
  return game or link or row['FEN']


def measure(positions, probs_NxC, label_probs_NxC) -> dict:
  """Returns further metrics of predictions.

  accepted_accuracy: as accuracy, but any move that mates at once is right, as
    it is on Lichess. legal: share of answers that are legal moves.
  """
  choice_N = np.argmax(probs_NxC, -1)
  right_N = choice_N == np.argmax(label_probs_NxC, -1)
  accepted_N = [
    right or _mates(position.fen, choice)
    for right, position, choice in zip(right_N, positions, choice_N)
  ]
  return {
    'accepted_accuracy': float(np.mean(accepted_N)),
    'legal': float(np.mean(choice_N != NOT_LEGAL)),
  }


@functools.cache
def _mates(fen: str, choice: int) -> bool:
  board = chess.Board(fen)
  moves = legal_moves(board)
  if choice >= len(moves):
    return False
  board.push(moves[choice])
  return board.is_checkmate()


TASKS = {
  'chess_puzzles': task.Task(
    source='asset:chess-puzzles/puzzles.csv.gz',
    train=('train',),
    test=(),
    convert=convert,
    screen=screen,
    check_select=check_select,
    num_classes=NUM_CLASSES,
    inputs='position',
    balanced=False,
    measure=measure,
    asks='which legal move solves the puzzle?',
  ),
}
