"""Reward modeling: a small encoder's preferences supervise a larger model's.

  python experiments/main.py --config=configs/reward_modeling.py \
      --workdir=runs/reward

Default: which of two snippets of text did people rate as more positive. These
pairs are shipped with the code; they are preference for positivity, not for
helpfulness. A bag of MiniLM-L6's token embeddings supervises all six layers.

Arguments, after a colon: task=, weak=, strong=, loss=, bootstrap, generative,
debug. For your own pairs set --config.data.source (w2s_jax/tasks/sources.py):

  --config=configs/reward_modeling.py:task=hh_rlhf \
      --config.data.source=hf:Anthropic/hh-rlhf:helpful-base/

With `generative` students and ceilings are compared with and without generative
fine-tuning on the texts of the transfer set (paper section 5.2.2); they have to
be decoders, so set --config.models.strong.weights too.

Halves are equal, as in the paper; the recipe of each model is that of
configs/nlp.py, but nothing is frozen, and no field was searched.
"""

from configs import base
from configs import nlp

# Tokens kept of each text; those of a long dialogue are its last.
TASKS = {
  'vader_pairs': 48,
  'hh_rlhf': 256,
  'shp': 256,
  'ultrafeedback': 256,
  'summarize_from_feedback': 256,
  'helpsteer2': 256,
  'helpsteer3': 256,
  'alpaca_eval': 256,
  'pandalm': 128,
}


def get_config(arg=None):
  args = base.parse_arg(
    arg,
    debug=False,
    bootstrap=False,  # in place of weak and strong
    generative=False,
    task='vader_pairs',
    weak='minilm-l0',
    strong='minilm-l6',
    loss='xent',  # or 'all' of base.py
  )
  c = base.get_config()
  c.task = args.task
  c.data.max_length = base.choose(TASKS, args.task, field='task')
  c.data.splits.update(weak=1000, transfer=1000, validation=500, test=2000)
  if args.loss != 'all':
    c.losses = (args.loss,)
  c.models.weak = model(args.weak, field='weak')
  c.models.strong = model(args.strong, field='strong')
  if args.bootstrap:
    nlp.bootstrap(c)
    for fields in c.models.values():
      fields.train.freeze = ''
  if args.generative:
    c.generative = (False, True)
  if args.debug:
    debug(c)
  return c


def model(name, *, field):
  """As in configs/nlp.py, but the token embeddings train, too."""
  fields = nlp.model(name, field=field)
  fields.train.freeze = ''
  return fields


def debug(c):
  """Random tiny decoders: seconds, no download."""
  c.data.splits.update(weak=128, transfer=128, validation=64, test=256)
  base.tiny_pair(c, 'tiny-decoder')
  c.generative_train.update(learning_rate=3e-3, batch_size=32)


def sweep():
  """With the confidence loss too, by supervisors of three sizes."""
  for weak in ('minilm-l0', 'minilm-l1', 'minilm-l2'):
    yield {
      'models': {'weak': model(weak, field='weak')},
      'losses': ('xent', 'logconf'),
    }
