"""NLP classification: a small encoder supervises a larger one.

TODO docstring
"""

from configs import base

# One set of pretrained weights cut to its first layers: a ladder of sizes in
# one family. Token, position and type tables stay as they are pretrained.
MODELS = {
  'minilm-l1': dict(num_layers=1, learning_rate=1e-3),
  'minilm-l2': dict(num_layers=2, learning_rate=5e-4),
  'minilm-l3': dict(num_layers=3, learning_rate=5e-4),
  'minilm-l6': dict(num_layers=6, learning_rate=2e-4),
}

# Tokens kept of a row, and rows of the test set (what upstream has allows).
TASKS = {
  'rotten_tomatoes': (64, 2000),
  'imdb': (256, 2000),
  'sst2': (64, 800),
  'cola': (48, 600),
  'wic': (96, 600),
  'boolq': (256, 500),
  'boolq_question_only': (48, 2000),
  'sciq': (64, 1000),
  'openbookqa': (64, 800),
  'synthetic': (48, 1000),
}


def get_config(arg=None):
  args = base.parse_arg(
    arg,
    debug=False,
    task='rotten_tomatoes',
    weak='minilm-l1',
    strong='minilm-l6',
    loss='',  # '' is every loss of base.py
  )
  c = base.get_config()
  c.task = args.task
  c.data.max_length, num_test = base.choose(TASKS, args.task, field='task')
  c.data.num_buckets = 5
  c.data.splits.update(weak=300, transfer=800, validation=500, test=num_test)
  c.weak = weak_model(args.weak)
  c.strong = model(args.strong, field='strong')
  if args.loss:
    c.losses = (args.loss,)
  if args.debug:
    debug(c)
  return c


def model(name, *, field):
  fields = base.choose(MODELS, name, field=field)
  return base.model(
    name, weights='asset:minilm-l6', freeze='_embed/', **fields
  )


def weak_model(name):
  spec = model(name, field='weak')
  spec.train.epochs = 4  # it has fewer rows than the student
  return spec


def debug(c):
  """Random tiny models on generated sentences: seconds, no download."""
  c.task = 'synthetic'
  c.data.max_length = 48
  c.data.num_buckets = 3
  c.data.splits.update(weak=256, transfer=1024, validation=64, test=512)
  c.weak = base.model(
    'tiny-l1',
    weights='random:tiny-encoder',
    num_layers=1,
    learning_rate=3e-3,
    epochs=4,
  )
  c.strong = base.model(
    'tiny-l2', weights='random:tiny-encoder', learning_rate=3e-3, epochs=4
  )


def sweep():
  """Every pair of the ladder, the supervisor smaller than the student."""
  names = list(MODELS)
  for i, weak in enumerate(names):
    for strong in names[i + 1 :]:
      yield {
        'weak': weak_model(weak),
        'strong': model(strong, field='strong'),
      }
