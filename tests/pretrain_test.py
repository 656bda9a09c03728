"""Pretraining of a board model: which positions it sees, what it leaves."""

import json
import random
import subprocess
import sys

import chess
import chess.pgn
import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from configs import pretrain_chess
from experiments import pretrain
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax.models import model as model_lib
from w2s_jax.tasks import chess as chess_task
from w2s_jax.tasks import chess_games
from w2s_jax.tasks import registry

import tiny
import tiny_chess

NUM_VALIDATION = 20
PLIES = 6  # few enough for one compiled length of boards


def random_games(count, *, seed):
  rng, games = random.Random(seed), []
  for _ in range(count):
    board = chess.Board()
    while board.ply() < PLIES:
      board.push(rng.choice(list(board.legal_moves)))
    games.append(board)
  return games


def write_jsonl(path, games):
  """As the games of the puzzle maker: an engine's choices beside the moves.

  This one chooses the first legal move, which can be learned in a few steps.
  """
  with path.open('w') as f:
    for game in games:
      board, choices = chess.Board(), []
      for move in game.move_stack:
        choices.append(str(chess_task.legal_moves(board)[0]))
        board.push(move)
      moves = ' '.join(map(str, game.move_stack))
      row = {'moves': moves, 'choices': ' '.join(choices)}
      f.write(json.dumps(row) + '\n')
  return f'file:{path}'


def write_pgn(path, games, **elo):
  with path.open('w') as f:
    for board in games:
      game = chess.pgn.Game.from_board(board)
      game.headers.update(elo)
      f.write(f'{game}\n\n')
  return f'file:{path}'


def data(**fields):
  c = pretrain_chess.get_config().data
  c.update(validation=0, **fields)
  return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Files to train on."""
  folder = tmp_path_factory.mktemp('pretrain')
  write_jsonl(folder / 'games.jsonl', random_games(30, seed=0))
  elo = {'WhiteElo': '2000', 'BlackElo': '?'}
  write_pgn(folder / 'games.pgn', random_games(12, seed=1), **elo)
  tiny_chess.write(folder / 'puzzles.csv', 12)
  return folder


def start(folder, **changes):
  """experiments/pretrain.py in a process of its own, to its end."""
  values = {
    'data.games': (f'file:{folder}/games.jsonl', f'file:{folder}/games.pgn'),
    'data.positions': (120, 18),
    'data.validation': NUM_VALIDATION,
    'data.exclude': f'file:{folder}/puzzles.csv',
    'data.puzzles': f'file:{folder}/puzzles.csv',
    'data.num_puzzles': 8,
    'model.train.batch_size': 16,
    'eval_batch_size': 16,
    'checkpoint_every': 3,
    **changes,
  }
  return subprocess.run(
    [
      sys.executable,
      'experiments/pretrain.py',
      '--config=configs/pretrain_chess.py:model=board-xs',
      f'--workdir={folder}/runs',
      *(f'--config.{name}={value}' for name, value in values.items()),
    ],
    cwd=tiny.ROOT,
    env=tiny.environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )


def run(folder):
  done = start(folder)
  assert done.returncode == 0, done.stderr
  return folder / 'runs' / 'board-xs'


@pytest.fixture(scope='module')
def finished(folder):
  return run(folder)


@pytest.fixture(scope='module')
def loaded(finished):
  """The model as a study loads it, and its parameters."""
  spec = base.model(weights=str(finished))
  model = model_lib.build(spec, registry.TASKS['chess_puzzles'])
  return model, model.init(tiny.one_device(), 0)


def test_result_says_what_was_done(finished, loaded):
  result = json.loads((finished / 'result.json').read_text())
  num_positions = 120 + 18  # of the games, which have more
  assert result['positions'] == num_positions
  assert result['steps'] == -(-num_positions // 16)
  assert result['parameters'] == loaded[0].num_parameters
  lines = (finished / 'metrics.jsonl').read_text().splitlines()
  first, *_, last = (json.loads(line)['train/loss'] for line in lines)
  assert len(lines) == result['steps'] and last < first
  assert 0 <= result['puzzle_accuracy'] <= 1


def test_folder_loads_as_it_was_trained(finished, loaded):
  model, params = loaded
  stored = safetensors.numpy.load_file(finished / 'model.safetensors')
  leaves = {
    '/'.join(key.key for key in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  assert leaves.keys() == stored.keys()
  for name, leaf in leaves.items():
    assert stored[name].dtype == np.float16 and leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, stored[name].astype(np.float32))
  (path,) = finished.parent.glob('positions-*.npz')
  _, validation = pretrain.unpack(tiny.arrays(path), NUM_VALIDATION)
  answers_NxC = predict.predict(
    model.network,
    params,
    validation,
    batch_size=32,
    buckets=(33,),
    mesh=tiny.one_device(),
  )
  truth_NxC = validation.label_probs_NxC[np.arange(NUM_VALIDATION)]
  accuracy = metrics.accuracy(answers_NxC, truth_NxC)
  result = json.loads((finished / 'result.json').read_text())
  one_row = 1 / NUM_VALIDATION  # may be decided by what float16 left out
  assert abs(accuracy - result['validation_accuracy']) < one_row + 1e-4


def test_running_again_resumes_to_the_same(folder, finished):
  names = ('config.json', 'model.safetensors', 'result.json')
  before = [(finished / name).read_bytes() for name in names]
  log = finished / 'metrics.jsonl'
  first, *others = log.read_text().splitlines(keepends=True)
  marked = json.dumps(json.loads(first) | {'mark': 1}) + '\n'
  log.write_text(''.join([marked, *others]))
  logged = tiny.metrics(finished)
  for name in names:
    (finished / name).unlink()
  for name in ('games.jsonl', 'games.pgn'):
    (folder / name).rename(folder / f'not-read-again-{name}')
  run(folder)
  assert [(finished / name).read_bytes() for name in names] == before
  assert tiny.metrics(finished) == logged


def test_positions_of_puzzles_are_left_out(tmp_path):
  tiny_chess.write(tmp_path / 'puzzles.csv', 12)
  games = []
  for row in tiny_chess.puzzle_rows(12):
    if row['GameMoves']:
      board = chess.Board()
      for uci in f'{row["GameMoves"]} {row["Moves"]}'.split():
        board.push_uci(uci)
      games.append(board)
  fields = dict(
    games=(write_jsonl(tmp_path / 'games.jsonl', games),), positions=(1000,)
  )

  def drawn(exclude):
    positions = pretrain.draw_positions(data(exclude=exclude, **fields))
    return [tuple(encoded.tokens) for encoded, _ in positions]

  asked = set()
  for game in games:
    game.pop()  # the answer
    asked.add(tuple(chess_task.encode(game).tokens))
  everything, rest = drawn(''), drawn(f'file:{tmp_path}/puzzles.csv')
  assert asked <= set(everything) and not asked & set(rest)
  assert len(everything) - len(rest) == len(games) == 6


def test_validation_positions_are_of_other_games(tmp_path):
  games = random_games(12, seed=2)
  source = write_jsonl(tmp_path / 'games.jsonl', games)
  numbers = {}  # of the games that a position is in
  for number, game in enumerate(games):
    while game.move_stack:
      game.pop()
      tokens = tuple(chess_task.encode(game).tokens)
      numbers.setdefault(tokens, set()).add(number)

  def games_of(positions):
    found = [numbers[tuple(encoded.tokens)] for encoded, _ in positions]
    return set.union(*(one for one in found if len(one) == 1))

  fields = data(games=(source,), positions=(1000,))
  fields.validation = held_out = 2 * PLIES + 4
  drawn = pretrain.draw_positions(fields)
  held_out, training = drawn[:held_out], drawn[held_out:]
  assert len(games_of(held_out)) == 3
  assert not games_of(held_out) & games_of(training)
  assert len(training) == (12 - 3) * PLIES
  assert pretrain.draw_positions(fields) == drawn
  fields.seed = 1
  assert pretrain.draw_positions(fields) != drawn


def test_positions_with_a_clear_best_move_and_some_of_the_others(tmp_path):
  games = random_games(200, seed=4)
  lines = []
  for number, game in enumerate(games):
    moves = ' '.join(map(str, game.move_stack))
    gaps = [20 if ply == number % PLIES else 19 for ply in range(PLIES)]
    gaps = ' '.join(map(str, gaps))
    lines.append(json.dumps({'moves': moves, 'choices': moves, 'gaps': gaps}))
  path = tmp_path / 'games.jsonl'
  path.write_text('\n'.join(lines))
  counts = {
    quiet: len(
      pretrain.draw_positions(
        data(games=(f'file:{path}',), positions=(9999,), quiet=quiet)
      )
    )
    for quiet in (0.0, 0.1, 1.0)
  }
  assert counts[0.0] == 200 and counts[1.0] == 200 * PLIES
  assert 250 < counts[0.1] < 350  # 300 are expected, within 10


def test_positions_with_more_moves_than_fit_are_left_out(tmp_path, monkeypatch):
  monkeypatch.setattr(pretrain, 'MAX_MOVES', 20)  # as many as at the start
  games = (write_jsonl(tmp_path / 'games.jsonl', random_games(9, seed=5)),)
  drawn = pretrain.draw_positions(data(games=games, positions=(999,)))
  counts = [len(encoded.movers) for encoded, _ in drawn]
  assert len(counts) >= 9 and max(counts) == 20


def test_mistakes_name_the_file_or_the_field(tmp_path):
  games = random_games(1, seed=3)
  pgn = write_pgn(tmp_path / 'games.pgn', games)
  lines = tmp_path / 'games.jsonl'
  lines.write_text('{"moves": "e2e4"}\n{"moves": "e2e5"}\n')
  mistakes = {
    'data.positions=.* one number': data(games=(pgn, pgn), positions=(9,)),
    "game 1: no column 'WhiteElo'": data(games=(pgn,), positions=(9,)),
    'games.jsonl:2: .*e2e5': data(
      games=(f'file:{lines}',), positions=(9,), min_elo=0
    ),
    'too few positions: 6 of data.validation=20': data(
      games=(pgn,), positions=(9,), min_elo=0
    ),
  }
  *_, too_few = mistakes.values()
  too_few.validation = 20
  for says, fields in mistakes.items():
    with pytest.raises(ValueError, match=says):
      pretrain.draw_positions(fields)


def test_mistake_ends_with_one_line(folder):
  done = start(folder, **{'data.exclude': 'file:no.csv'})
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ') and 'no.csv' in line


def moves_of(positions, epds):
  """The moves that are to be learned, in UCI."""
  found = []
  for (encoded, label), epd in zip(positions, epds, strict=True):
    board = chess.Board(f'{epd} 0 1')
    assert encoded == chess_task.encode(board)
    found.append(chess_task.legal_moves(board)[label].uci())
  return found


def test_positions_of_a_game_and_what_is_to_be_played():
  moves = ['e2e4', 'e7e5', 'g1f3']
  board, epds = chess.Board(), []
  for move in moves:
    epds.append(board.epd())
    board.push_uci(move)

  def positions(row, min_elo=0, excluded=()):
    return chess_games.positions_of_game(
      {'moves': ' '.join(moves), **row}, min_elo=min_elo, excluded=set(excluded)
    )

  assert moves_of(positions({}), epds) == moves
  elo = {'WhiteElo': '1800', 'BlackElo': '1799'}
  assert moves_of(positions(elo, 1800), epds[::2]) == moves[::2]
  unknown = {'WhiteElo': '?', 'BlackElo': 1801}
  assert moves_of(positions(unknown, 1800), epds[1:2]) == moves[1:2]
  chosen = {'choices': 'd2d4 c7c5 g1f3'}
  assert moves_of(positions(chosen, 1800), epds) == ['d2d4', 'c7c5', 'g1f3']
  assert moves_of(positions({}, excluded=epds[1:2]), epds[::2]) == moves[::2]
  gaps = {'gaps': '30 20 19'}
  found = chess_games.positions_of_game(
    {'moves': ' '.join(moves), **gaps}, keep=lambda gap: gap >= 20
  )
  assert moves_of(found, epds[:2]) == moves[:2]
  with pytest.raises(KeyError, match='WhiteElo'):
    positions({}, 1800)
  for wrong in ('1 2', '1 2 3 4', '1 2 x'):
    with pytest.raises(ValueError):
      positions({'gaps': wrong})
  for wrong in ('d2d4 c7c5', 'd2d4 c7c5 g1g3', 'd2d4 c7c5 0000'):
    with pytest.raises(ValueError):
      positions({'choices': wrong})
