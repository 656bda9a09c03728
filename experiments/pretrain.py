r"""Pretrains a board model on next moves of games.

  python experiments/pretrain.py \
      --config=configs/pretrain_chess.py:model=board-s \
      --config.data.games="('file:selfplay.jsonl.gz','file:people.pgn.gz')" \
      --workdir=runs/pretrain

Leaves WORKDIR/<model>/{config.json, model.safetensors, result.json}: a folder
that `weights` of any config can name. The same command again resumes, also
after SIGTERM or ctrl-C.
"""

import hashlib
import itertools
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import chess
import numpy as np

from experiments import command_line
from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import metrics
from w2s_jax import predict
from w2s_jax import sharding
from w2s_jax import train
from w2s_jax import weak_labels
from w2s_jax.models import chess_heads
from w2s_jax.models import model as model_lib
from w2s_jax.models import pretrained
from w2s_jax.runtime import files
from w2s_jax.runtime import logger as logger_lib
from w2s_jax.runtime import preemption
from w2s_jax.runtime import trackers
from w2s_jax.runtime import workdir_path
from w2s_jax.tasks import chess as chess_task
from w2s_jax.tasks import chess_games
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import registry
from w2s_jax.tasks import sources

BUCKETS = (16, 24, 28, 33)  # tokens, padded lengths of positions
# Legal moves; the few positions with more are left out, since every row is
# padded to this.
MAX_MOVES = 64


def main():
  workdir_path.check(command_line.WORKDIR.value, '--workdir')
  config = command_line.CONFIG.value
  trackers.check(config.tracker)
  console = command_line.console()
  workdir = checkpoint.absolute(command_line.WORKDIR.value)
  mesh = sharding.make_mesh(**config.mesh)
  model = model_lib.build(config.model, registry.TASKS['chess_puzzles'])
  recipe = config.model.train.to_dict()
  training, validation = load_positions(config.data, workdir, console)
  console.print(
    f'{len(training):,} positions, {len(validation):,} for validation; '
    f'{model.name} has {model.num_parameters:,} parameters'
  )
  prepared = train.prepare(training, recipe, buckets=BUCKETS, seed=config.seed)
  folder = workdir / model.name
  tracking = trackers.Tracking(trackers.parse(config.tracker), workdir, console)
  logger = logger_lib.Logger(
    folder, console=console, is_primary=True, tracking=tracking
  )
  params = train.fit(
    model=model.network,
    trainable=model.init(mesh, config.seed),
    frozen={},
    **prepared,
    mesh=mesh,
    folder=folder,
    logger=logger,
    checkpoint_every=config.checkpoint_every,
    name=model.name,
  )
  pretrained.save_board(folder, model.network.config, params)

  def accuracy(rows):
    answers_NxC = predict.predict(
      model.network,
      params,
      rows,
      batch_size=config.eval_batch_size,
      buckets=BUCKETS,
      mesh=mesh,
    )
    truth_NxC = rows.label_probs_NxC[np.arange(len(rows))]
    return round(metrics.accuracy(answers_NxC, truth_NxC), 4)

  result = {
    'parameters': model.num_parameters,
    'positions': len(training) * config.model.train.epochs,
    'steps': len(prepared['plan']),
    'validation_accuracy': accuracy(validation),
  }
  if config.data.puzzles:
    result['puzzle_accuracy'] = accuracy(puzzle_rows(config.data, model))
  text = json.dumps(result, indent=2) + '\n'
  files.write_atomically(folder / 'result.json', text)
  tracking.finish(folder, result)
  console.print(result)


def puzzle_rows(data, model):
  puzzles, _, _ = registry.load('chess_puzzles', source=data.puzzles)
  chosen = random.Random(data.seed).sample(range(len(puzzles)), len(puzzles))
  puzzles = puzzles.take(np.array(chosen[: data.num_puzzles]))
  rows, _ = model.network.rows(
    model.tokenizer,
    puzzles.inputs,
    weak_labels.ground_truth(puzzles),
    max_length=BUCKETS[-1],
  )
  return rows


def load_positions(data, workdir, console):
  """Returns (training, validation) Rows; caches them, as encoding is slow."""
  fields = json.dumps(data.to_dict(), sort_keys=True, default=list)
  key = hashlib.sha256(fields.encode()).hexdigest()[:12]
  path = workdir / f'positions-{key}.npz'
  if not path.exists():
    console.print('Encoding positions ...')
    arrays = pack(draw_positions(data))
    files.save_arrays(path, **arrays)
  return unpack(files.load_arrays(path), data.validation)


def draw_positions(data):
  """Returns [(Encoded, label), ...] of all sources, validation first.

  Validation positions come from games that training never sees.

  Raises:
    errors.UserError: a game is broken, lacks a column, or there are too few.
  """
  if len(data.games) != len(data.positions):
    raise errors.UserError(
      f'data.positions={data.positions} must have one number for each of '
      f'data.games={data.games}.'
    )
  excluded = set()
  if data.exclude:
    puzzles, _, _ = registry.load('chess_puzzles', source=data.exclude)
    excluded = {chess.Board(p.fen).epd() for p in puzzles.inputs}
  rng = random.Random(data.seed)
  held_out, training = [], []
  shares = np.diff(
    data.validation * np.arange(len(data.games) + 1) // len(data.games)
  )
  select = dict(
    min_elo=data.min_elo,
    keep=lambda gap: gap >= data.min_gap or rng.random() < data.quiet,
    excluded=excluded,
  )
  for i, (source, limit) in enumerate(zip(data.games, data.positions)):
    games = list(sources.read(source, 'train'))
    rng.shuffle(games)
    games = iter(games)
    held_out += take_positions(games, shares[i], select)
    training += take_positions(games, limit, select)
  if len(held_out) < data.validation or not training:
    raise errors.UserError(
      f'data.games have too few positions: {len(held_out)} of data.validation='
      f'{data.validation} and {len(training)} to train on.'
    )
  rng.shuffle(training)
  return held_out + training


def take_positions(games, count, select):
  """Reads games from an iterator until there are `count` positions."""
  positions = []
  while len(positions) < count and (game := next(games, None)):
    origin, row = game
    try:
      found = chess_games.positions_of_game(row, **select)
    except KeyError as error:
      raise errors.UserError(
        f'{origin}: no column {error.args[0]!r}.'
      ) from error
    except ValueError as error:
      raise errors.UserError(f'{origin}: {error}.') from error
    positions += [x for x in found if len(x[0].movers) <= MAX_MOVES]
  return positions[:count]


def pack(positions):
  """Concatenates positions into flat int16 arrays and their lengths."""
  encoded, labels = zip(*positions)
  arrays = {'labels': np.array(labels, np.int16)}
  for name in chess_task.Encoded._fields:
    rows = [getattr(row, name) for row in encoded]
    values = itertools.chain.from_iterable(rows)
    arrays[name] = np.fromiter(values, np.int16)
    arrays[f'{name}_lengths'] = np.array([len(row) for row in rows], np.int32)
  return arrays


def unpack(arrays, num_validation):
  def split(name):
    ends = np.cumsum(arrays[f'{name}_lengths'])[:-1]
    return np.split(arrays[name], ends)

  encoded = [
    chess_task.Encoded(*row)
    for row in zip(*map(split, chess_task.Encoded._fields))
  ]

  def rows(part):
    labels = examples_lib.OneHot(arrays['labels'][part], chess_task.NUM_CLASSES)
    return chess_heads.move_rows(encoded[part], labels)

  return rows(slice(num_validation, None)), rows(slice(num_validation))


if __name__ == '__main__':
  preemption.listen()
  command_line.run(main)
