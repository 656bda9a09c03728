"""Pretraining of the ladder of board models: next-move prediction on games.

  python experiments/pretrain.py \
      --config=configs/pretrain_chess.py:model=board-s \
      --config.data.games="('file:games.jsonl.gz',)" --workdir=runs/pretrain

Sources are jsonl or csv rows with `moves` in UCI, or PGN. The target of a
position is the move played, if the player is strong enough; in games with
`choices` of an engine, as those of data_making/make_chess_puzzles.py, it is the
engine's choice. In most positions several moves are about equally good, and
which of them was chosen carries little signal: if games have `gaps`, the lead
of the engine's first choice over its second, few positions with a small one are
used.
"""

from ml_collections import config_dict

from configs import base

# Positions grow in proportion to parameters, as in compute-optimal training;
# larger models need smaller learning rates.
MODELS = {
  'board-xs': dict(positions=45_000, learning_rate=4e-3),
  'board-s': dict(positions=150_000, learning_rate=3e-3),
  'board-m': dict(positions=450_000, learning_rate=2e-3),
  # All positions, if the games have fewer.
  'board-l': dict(positions=2_000_000, learning_rate=1e-3),
}


def get_config(arg=None):
  args = base.parse_arg(arg, model='board-s')
  fields = base.choose(MODELS, args.model, field='model')
  c = config_dict.ConfigDict()
  c.data = config_dict.ConfigDict(
    {
      'games': ('',),  # sources, such as file:a.pgn.gz
      'positions': (fields['positions'],),  # number per source, drawn by seed
      'min_elo': 1800,  # of the player to move, as in the paper (appendix A.2)
      'min_gap': 20,  # first over second choice, in points of win probability
      'quiet': 0.1,  # share used of the positions with a smaller gap
      'validation': 4000,  # positions, of games held out from training
      'exclude': '',  # source of puzzles whose positions are not trained on
      'puzzles': '',  # source of puzzles to evaluate the model on
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
  c.tracker = 'auto'  # as in configs/base.py
  return c
