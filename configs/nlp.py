"""NLP classification: a small encoder supervises a larger one.

TODO
"""

from configs import base

# One set of pretrained weights cut to its first layers: a ladder of sizes.
MODELS = {
  f'minilm-l{k}': dict(weights='asset:minilm-l6', num_layers=k)
  for k in (1, 2, 3, 6)
}


def get_config(arg=None):
  args = base.parse_arg(
    arg,
    debug=False,
    task='rotten_tomatoes',
    weak='minilm-l1',
    strong='minilm-l6',
    loss='',
  )
  c = base.get_config()
  c.task = args.task
  c.weak = model(args.weak, field='weak')
  c.strong = model(args.strong, field='strong')
  if args.loss:
    c.losses = (args.loss,)
  c.data.max_length = 96
  c.data.splits.update(weak=1000, transfer=1500, validation=500, test=2000)
  if args.debug:
    debug(c)
  return c


def model(name, *, field):
  spec = base.choose(MODELS, name, field=field)
  return base.model(name, **spec, freeze='_embed/')


def debug(c):
  """Random weights and generated sentences: seconds, no download."""
  c.task = 'synthetic'
  c.data.max_length = 48
  c.data.num_buckets = 3
  c.data.splits.update(weak=64, transfer=256, validation=64, test=128)
  c.weak = base.model(
    'tiny-l1', weights='random:tiny-encoder', num_layers=1, learning_rate=3e-3
  )
  c.strong = base.model(
    'tiny', weights='random:tiny-encoder', learning_rate=3e-3
  )


def sweep():
  """Every pair of the ladder, supervisor smaller than the student."""
  names = list(MODELS)
  for i, weak in enumerate(names):
    for strong in names[i + 1 :]:
      yield {
        'weak': model(weak, field='weak'),
        'strong': model(strong, field='strong'),
      }
