"""Checks a file of puzzles and counts those that a one-move rule solves.

  python experiments/data_making/check_chess_puzzles.py --file=puzzles.csv.gz

Every move must be legal. In a file by make_chess_puzzles.py the game must lead
to the position, RuleSolves must be right.
"""

import argparse
import csv
import gzip
import json
import math

import chess

VALUES = dict(zip(chess.PIECE_TYPES, (1, 3, 3, 5, 9, 0), strict=True))


def rule_move(board: chess.Board) -> str | None:
  """Returns a beginner's move: mate, or else the capture that gains most.

  A capture gains the piece taken, less the capturing piece if the opponent
  guards that square; the best of bad captures is played too. Promotion counts
  as a capture. The first in alphabetical order wins a tie. None if there is
  nothing to take.
  """
  best, best_gain = None, -math.inf
  for move in sorted(board.legal_moves, key=chess.Move.uci):
    gain = -math.inf
    moved = before = VALUES[board.piece_type_at(move.from_square)]
    if move.promotion:
      moved = VALUES[move.promotion]
      gain = moved - before
    if board.is_capture(move):  # en passant, the target square is empty
      taken = board.piece_type_at(move.to_square) or chess.PAWN
      gain = VALUES[taken] + moved - before
    board.push(move)
    if board.is_checkmate():
      gain = math.inf
    elif board.is_attacked_by(board.turn, move.to_square):
      gain -= moved
    board.pop()
    if gain > best_gain:
      best, best_gain = move.uci(), gain
  return best


def puzzle_board(row: dict) -> chess.Board:
  """Returns the position to solve."""
  board = chess.Board(row['FEN'])
  board.push_uci(row['Moves'].split()[0])
  return board


def read_rows(path: str) -> list[dict]:
  opened = gzip.open if path.endswith('.gz') else open
  with opened(path, 'rt', newline='') as f:
    if '.jsonl' in path:
      return [json.loads(line) for line in f]
    return list(csv.DictReader(f))


def check_row(row: dict):
  """Raises ValueError if a move is illegal or a column wrong."""
  play = row['Moves'].split()[1:]
  board = puzzle_board(row)
  solves = rule_move(board) == play[0]
  for move in play:
    board.push_uci(move)
  if len(play) % 2 == 0:
    raise ValueError('The line of play must end with the answer to a move.')
  if 'GameMoves' not in row:
    return
  board = chess.Board()
  for move in row['GameMoves'].split():
    board.push_uci(move)
  if board.fen() != row['FEN']:
    raise ValueError('GameMoves do not lead to FEN.')
  if solves != bool(int(row['RuleSolves'])):
    raise ValueError(f'RuleSolves must not be {row["RuleSolves"]}.')


def main():
  parser = argparse.ArgumentParser(description='Checks chess puzzles.')
  parser.add_argument('--file', required=True, help='.csv or .jsonl, or .gz')
  args = parser.parse_args()
  rows = read_rows(args.file)
  for row in rows:
    try:
      check_row(row)
    except ValueError as error:
      where = f'Puzzle {row["PuzzleId"]} of {args.file}'
      raise ValueError(f'{where}: {error}') from None
  doubles = len(rows) - len({puzzle_board(row).epd() for row in rows})
  solved = sum(
    rule_move(puzzle_board(row)) == row['Moves'].split()[1] for row in rows
  )
  print(
    f'{len(rows)} puzzles, all legal; {doubles} positions come twice; the rule'
    f' solves {solved / len(rows):.1%}.'
  )


if __name__ == '__main__':
  main()
