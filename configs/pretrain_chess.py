"""Pretraining of the ladder of board models, on next moves of games.

  python experiments/pretrain.py \
      --config=configs/pretrain_chess.py:model=board-s \
      --config.data.games="('file:games.jsonl.gz',)" --workdir=runs/pretrain

Sources are rows with `moves` in UCI: jsonl, csv, or PGN. Of people's games the
next move is what was played, if the player is strong enough; games that carry
an engine's `choices`, as those of data_making/make_chess_puzzles.py do, teach
these. In most positions several moves are about as good, and which of them was
chosen teaches little: where the games tell these `gaps`, few such are taken.
"""

from ml_collections import config_dict

from configs import base

# Positions in proportion to size, as compute-optimal training asks for. Larger
# models want smaller learning rates.
MODELS = {
  'board-xs': dict(positions=45_000, learning_rate=4e-3),
  'board-s': dict(positions=150_000, learning_rate=3e-3),
  'board-m': dict(positions=450_000, learning_rate=2e-3),
  'board-l': dict(positions=2_000_000, learning_rate=1e-3),  # or all there are
}


def get_config(arg=None):
  args = base.parse_arg(arg, model='board-s')
  fields = base.choose(MODELS, args.model, field='model')
  c = config_dict.ConfigDict()
  c.data = config_dict.ConfigDict(
    {
      'games': ('',),  # sources, as file:a.pgn.gz
      'positions': (fields['positions'],),  # of each source, drawn by seed
      'min_elo': 1800,  # of the player to move, as in the paper
      'min_gap': 20,  # first choice over second, as win chance in percent
      'quiet': 0.1,  # share taken of the positions with a smaller one
      'validation': 4000,  # positions, of games that are not trained on
      'exclude': '',  # source of puzzles: their positions are left out
      'puzzles': '',  # source of puzzles to measure the model on
      'num_puzzles': 5000,
      'seed': 0,
    }
  )
  c.model = base.model(
    weights=f'random:{args.model}',
    learning_rate=fields['learning_rate'],
    epochs=1,
    batch_size=128,
  )
  c.model.train.update(warmup=0.02, decay='cosine')
  c.seed = 0
  c.mesh = config_dict.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  c.eval_batch_size = 256
  c.checkpoint_every = 1000  # steps
  c.tensorboard = False
  return c
