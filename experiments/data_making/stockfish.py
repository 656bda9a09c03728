"""Runs Stockfish over a pipe; the same search gives the same answer.

The engine client of python-chess checks every move of every line, which takes
longer than the short searches needed here.
"""

import dataclasses
import math
import subprocess

MATE = 10_000
MATES = MATE - 100  # scores above are mates


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of play the engine has found, for the side to move."""

  score: int  # centipawns; MATE - n for mate in n
  nodes: int  # searched so far
  moves: list[str]

  @property
  def win_chance(self) -> float:
    """Expected result from -1 to 1, by the curve Lichess uses."""
    return 2 / (1 + math.exp(-0.00368208 * self.score)) - 1


class Engine:
  """One thread and a small hash; moves are in UCI, from the first position."""

  def __init__(self, path: str):
    self._process = subprocess.Popen(
      [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    self._send('setoption name Threads value 1', 'setoption name Hash value 16')

  def _send(self, *commands: str):
    self._process.stdin.write('\n'.join(commands) + '\n')
    self._process.stdin.flush()

  def close(self):
    self._process.communicate('quit\n')

  def forget(self, num_lines: int):
    """Empties the hash and sets the number of lines to search for."""
    self._send(f'setoption name MultiPV value {num_lines}', 'ucinewgame')

  def search(self, moves: list[str], nodes: int) -> list[list[Line]]:
    """Returns the lines of each depth, best first; [] if the game is over."""
    position = f'position startpos moves {" ".join(moves)}'
    self._send(position, f'go nodes {nodes}')
    depths = []
    for text in self._process.stdout:
      words = text.split()
      if words[0] == 'bestmove':
        return depths
      if 'multipv' in words:
        if words[words.index('multipv') + 1] == '1':
          depths.append([])
        depths[-1].append(_parse_line(words))
    raise RuntimeError('The engine has stopped.')


def _parse_line(words: list[str]) -> Line:
  at = words.index('score')
  score = int(words[at + 2])
  if words[at + 1] == 'mate':
    score = MATE - score if score > 0 else -MATE - score
  return Line(
    score=score,
    nodes=int(words[words.index('nodes') + 1]),
    moves=words[words.index('pv') + 1 :],
  )


def is_clear(lines: list[Line], score: int, gap: float) -> bool:
  """Returns whether the best move reaches `score` and leads by `gap`."""
  return (
    len(lines) > 1
    and lines[0].score >= score
    and lines[0].win_chance - lines[1].win_chance > gap
  )
