"""Chess puzzles of random play for the tests."""

import csv
import functools
import random

import chess
import numpy as np

from w2s_jax.tasks import chess as chess_task
from w2s_jax.tasks import examples as examples_lib


@functools.cache
def puzzle_rows(count, *, seed=0):
  """Rows of a puzzle file; every second one without its game.

  The answer mates where a move does, else it is any.
  """
  rng = random.Random(seed)
  rows = []
  while len(rows) < count:
    board, moves = chess.Board(), []
    for _ in range(rng.randrange(4, 12)):
      moves.append(rng.choice(list(board.legal_moves)))
      board.push(moves[-1])
    if board.is_game_over():
      continue
    answers = list(board.legal_moves)
    answer = next(filter(functools.partial(mates, board), answers), None)
    slip = board.pop()
    rows.append(
      {
        'FEN': board.fen(),
        'Moves': f'{slip} {answer or rng.choice(answers)}',
        'GameMoves': ' '.join(map(str, moves[:-1])) if len(rows) % 2 else '',
        'GameId': f'game-{len(rows)}',
      }
    )
  return rows


def mates(board, move):
  after = board.copy(stack=False)
  after.push(move)
  return after.is_checkmate()


def write(path, count):
  """A puzzle file."""
  rows = puzzle_rows(count)
  with path.open('w', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)


def examples(count, *, seed=0):
  """The same as examples of the task."""
  triples = [
    triple
    for row in puzzle_rows(count, seed=seed)
    for triple in chess_task.convert(row)
  ]
  positions, groups, labels = zip(*triples)
  return examples_lib.Examples(
    ids=np.array(groups),
    groups=np.array(groups),
    inputs=list(positions),
    label_probs_NxC=np.eye(chess_task.NUM_CLASSES, dtype=np.float32)[
      list(labels)
    ],
  )
