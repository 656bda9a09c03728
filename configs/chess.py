"""Chess puzzles: small board models supervise larger ones.

  python experiments/main.py --config=configs/chess.py --workdir=runs/chess

Puzzles and pretrained board models are shipped in w2s_jax/data. By default
students are trained for every pair of the ladder, naively, and for chains from
the smallest model through the sizes in between, with fresh puzzles for each
step: bootstrapping (paper section 4.3.1).

Arguments, after a colon: naive (only the pairs), bootstrap (only the chains,
and the pairs from the smallest model to compare with), loss=, debug.
For Lichess puzzles: --config.data.source=file:lichess_db_puzzle.csv.zst

Learning rates were chosen by the accuracy of models fine-tuned on ground truth:
1,350 of the shipped puzzles, 5 epochs, seed 0, accuracy on 1,000 others
(standard error 1.5 points):
  board-xs: 3e-4 63.6 %, 1e-3 64.0 %, 3e-3 61.3 % (zero-shot 56.9 %)
  board-s: 3e-4 72.2 %, 1e-3 71.5 %, 3e-3 68.2 % (zero-shot 68.3 %)
  board-l: 1e-4 81.1 %, 3e-4 77.8 % (zero-shot 79.8 %)
The rate of board-m was not searched.
"""

import itertools

from configs import base

MODELS = {'xs': 1e-3, 's': 3e-4, 'm': 3e-4, 'l': 1e-4}  # peak learning rates


def get_config(arg=None):
  args = base.parse_arg(
    arg,
    debug=False,
    naive=False,
    bootstrap=False,
    loss='xent',  # or 'all' losses of base.py
  )
  c = base.get_config()
  c.task = 'chess_puzzles'
  c.data.select = dict(min_rating=0, max_rating=0, themes=())
  c.data.max_length = 33  # tokens of a position: 32 pieces and en passant
  c.data.splits.update(weak=1350, transfer=1350, validation=500, test=2000)
  c.weak_labels = 'hard'  # as in the paper (appendix A.2)
  if args.loss != 'all':
    c.losses = (args.loss,)
  for key, learning_rate in MODELS.items():
    c.models[key] = base.model(
      weights=f'asset:board-{key}',
      epochs=5,  # as in the paper (appendix A.2)
      learning_rate=learning_rate,
    )
  pairs = ['>'.join(pair) for pair in itertools.combinations(MODELS, 2)]
  chains = ['>'.join(list(MODELS)[:n]) for n in range(3, len(MODELS) + 1)]
  if args.naive:
    c.students = tuple(pairs)
  elif args.bootstrap:
    first = list(MODELS)[0]
    c.students = (*(p for p in pairs if p.startswith(f'{first}>')), *chains)
  else:
    c.students = (*pairs, *chains)
  if args.debug:
    debug(c)
  return c


def debug(c):
  """Makes `c` run in seconds: randomly initialized models, few puzzles."""
  c.students = ('xs>s', 'xs>m', 'xs>s>m')
  c.data.splits.update(weak=64, transfer=64, validation=32, test=128)
  del c.models.l
  for key in c.models:
    c.models[key].name = f'board-{key}'  # the weights are board-xs for all
    c.models[key].weights = 'random:board-xs'
    c.models[key].num_layers = 2 if key == 'm' else 1
    c.models[key].train.epochs = 2


def sweep():
  """Yields points with hard and soft weak labels, for both losses."""
  for weak_labels in ('hard', 'soft'):
    yield {'weak_labels': weak_labels, 'losses': ('xent', 'logconf')}
