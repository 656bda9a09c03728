"""Chess puzzles: a small board model supervises larger ones.

  python experiments/main.py --config=configs/chess.py --workdir=runs/chess

Our own puzzles and our own board models, both shipped with the code. A student
learns either from the weakest model's labels (naive) or through the sizes in
between (bootstrapping, paper section 4.3.1), on fresh puzzles at each step.

Arguments, after a colon: naive (every pair of the ladder), bootstrap (only the
chains from the smallest model, and what they are compared with), loss=, debug.
Lichess's puzzles: --config.data.source=file:lichess_db_puzzle.csv.zst

Learning rates were fixed on the accuracy of models trained on true labels, on
1,000 of our puzzles (standard error 1.5 points), 5 epochs of 1,350, seed 0:
  board-xs: 3e-4 63.6 %, 1e-3 64.0 %, 3e-3 61.3 % (untrained 56.9 %)
  board-s: 3e-4 72.2 %, 1e-3 71.5 %, 3e-3 68.2 % (untrained 68.3 %)
  board-l: 1e-4 81.1 %, 3e-4 77.8 % (untrained 79.8 %)
board-m was not searched.
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
    loss='xent',  # or 'all' of base.py
  )
  c = base.get_config()
  c.task = 'chess_puzzles'
  c.data.select = dict(min_rating=0, max_rating=0, themes=())
  c.data.max_length = 33  # tokens of a board: 32 pieces and en passant
  c.data.splits.update(weak=1350, transfer=1350, validation=500, test=2000)
  c.weak_labels = 'hard'  # as in the paper
  if args.loss != 'all':
    c.losses = (args.loss,)
  for key, learning_rate in MODELS.items():
    c.models[key] = base.model(
      weights=f'asset:board-{key}',
      epochs=5,  # as in the paper
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
  """Random models, few puzzles: seconds."""
  c.students = ('xs>s', 'xs>m', 'xs>s>m')
  c.data.splits.update(weak=64, transfer=64, validation=32, test=128)
  del c.models.l
  for key in c.models:
    c.models[key].name = f'board-{key}'  # all have the same weights
    c.models[key].weights = 'random:board-xs'
    c.models[key].num_layers = 2 if key == 'm' else 1
    c.models[key].train.epochs = 2


def sweep():
  """Hard and soft weak labels, each with the confidence loss, too."""
  for weak_labels in ('hard', 'soft'):
    yield {'weak_labels': weak_labels, 'losses': ('xent', 'logconf')}
