"""Small drawings of chess positions for a page with many of them."""

import re

import chess
import chess.svg

from w2s_jax.tasks import chess as chess_task

_TRUTH, _STUDENT, _WEAK = '#009e73', '#0072b2', '#d55e00'
_SQUARES = re.compile(r'<rect [^>]*class="square [^>]*/>')


def moves(fen) -> list[str]:
  """The move of each class in SAN, see tasks/chess.py."""
  return chess_task.Position(fen, '').completions


def draw(fen, truth, *, weak, student):
  """Returns the SVG of a position with arrows for three classes.

  It refers to the drawings of `pieces`, which must be on the page.
  """
  board = chess.Board(fen)
  legal = chess_task.legal_moves(board)
  arrows = {}  # the first colour of equal moves is kept
  for choice, colour in (truth, _TRUTH), (student, _STUDENT), (weak, _WEAK):
    if choice < len(legal):
      move = legal[choice]
      squares = move.from_square, move.to_square
      arrows.setdefault(squares, chess.svg.Arrow(*squares, color=colour))
  drawing = chess.svg.board(
    board,
    orientation=board.turn,
    arrows=list(arrows.values()),
    coordinates=False,
  )
  drawing = re.sub(
    r'<desc>.*?</desc>|<defs>.*?</defs>', '', drawing, flags=re.S
  )
  drawing = re.sub(r' xmlns(:xlink)?="[^"]*"| xlink:href="[^"]*"', '', drawing)
  squares = '<use href="#squares"/>'
  drawing = _SQUARES.sub('', drawing).replace('>', f'>{squares}', 1)
  return drawing.replace('<svg', '<svg class="board"', 1)


def pieces():
  """Returns an invisible SVG with all pieces, and the squares of a board."""
  drawing = chess.svg.board(chess.Board(), coordinates=False)
  defined = re.search(r'<defs>(.*?)</defs>', drawing, flags=re.S)[1]
  squares = ''.join(_SQUARES.findall(drawing))
  squares = re.sub(r' class="[^"]*"| stroke="none"', '', squares)
  return (
    f'<svg width="0" height="0" style="position: absolute"><defs>{defined}'
    f'<g id="squares">{squares}</g></defs></svg>\n'
  )
