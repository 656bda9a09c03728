r"""Makes hard chess puzzles from Stockfish's games against itself.

  python experiments/data_making/make_chess_puzzles.py play \
      --out=runs/puzzles --games=30000
  python experiments/data_making/make_chess_puzzles.py merge \
      --out=runs/puzzles --file=puzzles.csv.gz --rows=10000
  python experiments/data_making/check_chess_puzzles.py --file=puzzles.csv.gz
  python experiments/data_making/make_chess_puzzles.py play --no-puzzles \
      --seed=1 --out=runs/games --games=20000
  python experiments/data_making/make_chess_puzzles.py games --seed=1 \
      --out=runs/games --file=games.jsonl.gz

Two players of limited sight and steadiness meet. Where one of them slips and
the other has a single good answer, a longer search confirms it. A puzzle is
easy if a rule that looks one move ahead, "mate, or take the best loose piece",
solves it; easy ones are kept only up to the share they have at Lichess.

A game depends on its seed, its number and the constants below alone: node
counts, one thread and an emptied hash make the engine repeat itself. So `play`
may be killed, restarted and given any number of workers. The columns are those
of the Lichess puzzle file (FEN is the position before the slip, Moves[0] the
slip, Moves[1] the answer), and
  Nodes: search nodes from which on the engine's first choice is the answer;
  RuleSolves: 1 if the rule finds the answer;
  GameId, GameMoves: the game, and its moves up to FEN.

`games` writes whole games to pretrain on: moves, and before each the engine's
own choice, and by how much it is better than its second one.

Needs `apt-get install stockfish` (made with 15.1) and `pip install chess`.
"""

import argparse
import contextlib
import csv
import gzip
import io
import itertools
import json
import math
import multiprocessing
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import chess

from experiments.data_making import check_chess_puzzles
from experiments.data_making import stockfish

PLAY_NODES = 600  # for a move in a game
PLAY_LINES = 5  # moves to choose among in a game
SCREEN_NODES = 2_000
CONFIRM_NODES = 20_000
MAX_PLIES = 140
RESIGN = 700  # centipawns
SLIP_DROP = 0.4  # in win chance, by a slip that a player may choose
FOUND_DROP = 0.3  # in win chance, by a slip that may make a puzzle
LOOSE = {'score': 80, 'gap': 0.3}  # stockfish.is_clear() in short searches
STRICT = {
  'score': 150,
  'gap': 0.5,
}  # stockfish.is_clear() in the longest search
MIN_CHOICES = 6  # legal moves of the solver
MAX_ANSWERS = 4  # moves of the solver in a line
MAX_PER_GAME = 3
EASY_TRIED = 0.3  # share of the positions the rule solves that are looked at
MAX_EASY = 0.33  # share of the puzzles the rule solves
BLOCK = 100  # games in a file
COLUMNS = 'PuzzleId FEN Moves Themes Nodes RuleSolves GameId GameMoves'.split()


def choose(
  rng: random.Random,
  depths: list[list[stockfish.Line]],
  sight: int,
  temperature: float,
  slip_rate: float,
) -> str:
  """Draws among the moves that look good at depth `sight`.

  If some of these turn out to be slips at the last depth, then at `slip_rate`
  only among those.
  """
  lines, last = depths[min(sight, len(depths)) - 1], depths[-1]
  known = {line.moves[0]: line.win_chance for line in last}
  limit = last[0].win_chance - SLIP_DROP
  slips = [
    line
    for line in lines
    if known.get(line.moves[0], last[-1].win_chance) < limit
  ]
  if slips and rng.random() < slip_rate:
    lines = slips
  best = max(line.score for line in lines)
  weights = [math.exp((line.score - best) / temperature) for line in lines]
  return rng.choices(lines, weights)[0].moves[0]


def play_game(
  engine: stockfish.Engine, rng: random.Random
) -> tuple[list[str], list[str], list[tuple[int, str]]]:
  """Returns (moves, choices, found) of a game.

  choices: the engine's own before each move, the best first, with win chances
    in percent, as 'e2e4:52 d2d4:51'.
  found: (ply, likely answer) where there may be a puzzle.
  """
  players = [
    {
      'sight': rng.choice((1, 1, 2, 3)),
      'temperature': rng.choice((20, 40, 80, 120)),  # centipawns
      'slip_rate': rng.choice((0.3, 1, 1)),
    }
    for _ in chess.COLORS
  ]
  engine.forget(PLAY_LINES)
  board, moves, choices, found, before = chess.Board(), [], [], [], 0.0
  while len(moves) < MAX_PLIES and not board.is_game_over():
    depths = engine.search(moves, PLAY_NODES)
    best = depths[-1][0]
    if (
      stockfish.is_clear(depths[-1], **LOOSE)
      and best.win_chance + before > FOUND_DROP
      and board.legal_moves.count() >= MIN_CHOICES
    ):
      found.append((len(moves), best.moves[0]))
    if best.score < -RESIGN:
      break
    before = best.win_chance
    choices.append(
      ' '.join(f'{x.moves[0]}:{100 * x.win_chance:.0f}' for x in depths[-1])
    )
    moves.append(choose(rng, depths, **players[board.ply() % 2]))
    board.push_uci(moves[-1])
  return moves, choices, found


def solve(
  engine: stockfish.Engine, moves: list[str]
) -> tuple[list[str], int] | None:
  """Returns the play after `moves` as far as it is clear, or None.

  With it, the search nodes after which the answer stays the first choice.
  """
  for nodes, limits in ((SCREEN_NODES, LOOSE), (CONFIRM_NODES, STRICT)):
    engine.forget(2)
    depths = engine.search(moves, nodes)
    if not stockfish.is_clear(depths[-1], **limits):
      return None
  best = settled = depths[-1][0]
  for lines in reversed(depths):
    if lines[0].moves[0] != best.moves[0]:
      break
    settled = lines[0]
  play, answer, mating = best.moves[:1], best, best.score > stockfish.MATES
  while len(play) < 2 * MAX_ANSWERS - 1 and len(answer.moves) > 1:
    reply = answer.moves[1]
    depths = engine.search([*moves, *play, reply], CONFIRM_NODES)
    if not depths:  # the reply has ended the game
      break
    answer = depths[-1][0]
    if not stockfish.is_clear(depths[-1], **STRICT) and not (
      mating and answer.score > stockfish.MATES
    ):
      break
    play += [reply, answer.moves[0]]
  return play, settled.nodes


def themes(board: chess.Board, play: list[str]) -> str:
  """Returns Lichess themes: phase by material, answer, length and end."""
  pieces = chess.popcount(board.occupied & ~board.pawns & ~board.kings)
  phase = ('endgame', 'middlegame', 'opening')[(pieces > 6) + (pieces > 12)]
  move = chess.Move.from_uci(play[0])
  marks = {
    'capture': board.is_capture(move),
    'check': board.gives_check(move),
    'promotion': move.promotion,
  }
  words = [mark for mark, holds in marks.items() if holds] or ['quiet']
  length = ('oneMove', 'short', 'long', 'veryLong')[len(play) // 2]
  end = board.copy()
  for move in play:
    end.push_uci(move)
  mate = [f'mate mateIn{len(play) // 2 + 1}'] if end.is_checkmate() else []
  return ' '.join([phase, *words, length, *mate])


def make_game(
  engine: stockfish.Engine, seed: int, number: int, puzzles: bool = True
) -> dict:
  """Returns a game, its puzzles and the counts of likely and easy ones."""
  rng = random.Random(f'{seed}.{number}')
  moves, choices, found = play_game(engine, rng)
  rows, num_easy = [], 0
  for ply, likely in found if puzzles else ():
    board = chess.Board()
    for move in moves[: ply - 1]:
      board.push_uci(move)
    fen = board.fen()
    board.push_uci(moves[ply - 1])
    rule = check_chess_puzzles.rule_move(board)
    num_easy += rule == likely
    if rule == likely and rng.random() > EASY_TRIED:
      continue
    if len(rows) < MAX_PER_GAME and (solved := solve(engine, moves[:ply])):
      play, nodes = solved
      rows.append(
        {
          'PuzzleId': f'{seed}.{number}.{ply}',
          'FEN': fen,
          'Moves': ' '.join(moves[ply - 1 : ply] + play),
          'Themes': themes(board, play),
          'Nodes': nodes,
          'RuleSolves': int(rule == play[0]),
          'GameId': f'{seed}.{number}',
          'GameMoves': ' '.join(moves[: ply - 1]),
        }
      )
  return {
    'game': number,
    'moves': ' '.join(moves),
    'choices': choices,
    'found': len(found),
    'easy': num_easy,
    'rows': rows,
  }


def read_block(path: pathlib.Path) -> list[dict]:
  """Returns the games of a file without a truncated last line."""
  text = path.read_text() if path.exists() else ''
  return [json.loads(x) for x in text.splitlines(True) if x.endswith('\n')]


def block_path(args, block: int) -> pathlib.Path:
  return pathlib.Path(args.out) / f'seed{args.seed}_{block:05d}.jsonl'


def make_block(job) -> list[dict]:
  """Makes the games that a file lacks, and returns all of them."""
  args, block = job
  path = block_path(args, block)
  games = read_block(path)
  path.write_text(''.join(json.dumps(game) + '\n' for game in games))
  with (
    contextlib.closing(stockfish.Engine(args.engine)) as engine,
    path.open('a') as f,
  ):
    for number in range(block * BLOCK + len(games), (block + 1) * BLOCK):
      if not multiprocessing.parent_process().is_alive():
        break  # else a killed run would write beside its restart
      games.append(make_game(engine, args.seed, number, args.puzzles))
      f.write(json.dumps(games[-1]) + '\n')
      f.flush()
  return games


def make_blocks(args):
  """Makes games 0 to --games, less those made before."""
  pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
  jobs = [
    (args, block)
    for block in range(math.ceil(args.games / BLOCK))
    if len(read_block(block_path(args, block))) < BLOCK
  ]
  start, rows = time.time(), []
  with multiprocessing.Pool(args.workers) as pool:
    for done, games in enumerate(pool.imap_unordered(make_block, jobs), 1):
      rows += [row for game in games for row in game['rows']]
      hard = sum(not row['RuleSolves'] for row in rows)
      seconds = time.time() - start
      left = seconds / done * (len(jobs) - done)
      print(
        f'{done}/{len(jobs)} blocks of {BLOCK} games: {len(rows)} puzzles,'
        f' {hard} of them hard ({hard / seconds:.2f}/s), {left / 60:.0f} min'
        ' to go',
        flush=True,
      )


def seen_positions(paths: list[str], wanted: set[str]):
  """Yields the wanted positions that occur in files of games."""
  occupied = {chess.Board(f'{epd} 0 1').occupied for epd in wanted}
  for path in paths:
    with gzip.open(path, 'rt') as lines:
      for line in lines:
        board = chess.Board()
        for move in json.loads(line)['moves'].split():
          if board.occupied in occupied and board.epd() in wanted:
            yield board.epd()
          board.push(chess.Move.from_uci(move))


def merge(args):
  """Writes the puzzles of games 0, 1, ... up to the first that is missing."""
  games, block = [], 0
  while made := read_block(block_path(args, block)):
    games += made
    block += 1
    if len(made) < BLOCK:
      break
  rows = [row for game in games for row in game['rows']]
  unique = {}  # by position, without the move counters
  for row in rows:
    unique.setdefault(check_chess_puzzles.puzzle_board(row).epd(), row)
  for position in seen_positions(args.without, set(unique)):
    unique.pop(position, None)
  unique = unique.values()
  easy = [row['PuzzleId'] for row in unique if row['RuleSolves']]
  hard = [row['PuzzleId'] for row in unique if not row['RuleSolves']]
  hard = hard[: math.ceil((1 - MAX_EASY) * args.rows)]
  easy = easy[: int(len(hard) * MAX_EASY / (1 - MAX_EASY))]
  kept = set(hard + easy)
  text = io.StringIO()
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writeheader()
  writer.writerows(row for row in unique if row['PuzzleId'] in kept)
  data = gzip.compress(text.getvalue().encode(), 9, mtime=0)
  pathlib.Path(args.file).write_bytes(data)
  found = sum(game['found'] for game in games)
  found_easy = sum(game['easy'] for game in games) / found
  print(
    f'{len(games)} games, {found} positions found ({found_easy:.1%} by rule),'
    f' {len(rows)} confirmed, {len(rows) - len(unique)} double or seen;'
    f' {len(kept)} kept ({len(easy) / len(kept):.1%} by rule),'
    f' {len(data):,} bytes'
  )


def write_games(args):
  """Writes the games of all files of a seed, one a line.

  Before each of the moves, `choices` has the engine's own and `gaps` what it is
  better than its second one, as win chance in percent.
  """
  paths = sorted(pathlib.Path(args.out).glob(f'seed{args.seed}_*.jsonl'))
  num_games = 0
  text = io.StringIO()
  for game in itertools.chain.from_iterable(map(read_block, paths)):
    lines = [
      [choice.split(':') for choice in choices.split()]
      for choices in game['choices']
    ]
    chances = [[int(chance) for _, chance in line] for line in lines]
    row = {
      'GameId': f'{args.seed}.{game["game"]}',
      'moves': game['moves'],
      'choices': ' '.join(line[0][0] for line in lines),
      # A single legal move teaches nothing.
      'gaps': ' '.join(str(x[0] - x[1] if len(x) > 1 else 0) for x in chances),
    }
    text.write(json.dumps(row) + '\n')
    num_games += 1
  data = gzip.compress(text.getvalue().encode(), 9, mtime=0)
  pathlib.Path(args.file).write_bytes(data)
  print(f'{num_games} games, {len(data):,} bytes')


def main():
  tasks = {'play': make_blocks, 'merge': merge, 'games': write_games}
  parser = argparse.ArgumentParser(description='Makes hard chess puzzles.')
  parser.add_argument('task', choices=tasks)
  parser.add_argument('--out', default='puzzles', help='folder of the games')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--games', type=int, default=30_000)
  parser.add_argument(
    '--puzzles',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='look for puzzles in the games, or only play them',
  )
  parser.add_argument('--workers', type=int, default=1)
  parser.add_argument('--engine', default='/usr/games/stockfish')
  parser.add_argument('--file', default='puzzles.csv.gz', help='to merge into')
  parser.add_argument('--rows', type=int, default=10_000, help='to merge')
  parser.add_argument(
    '--without',
    nargs='*',
    default=[],
    help='.jsonl.gz files of games whose positions are no puzzles to merge',
  )
  args = parser.parse_args()
  tasks[args.task](args)


if __name__ == '__main__':
  main()
