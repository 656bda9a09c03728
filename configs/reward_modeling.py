"""Reward modeling: a small encoder's preferences supervise a larger model's.

  python experiments/main.py --config=configs/reward_modeling.py \
      --workdir=runs/reward

Default: which of two short texts was rated as more positive. These pairs are
shipped in w2s_jax/data; they are preferences for positivity, not helpfulness.
A bag of words supervises MiniLM-L6, as in configs/nlp.py.

Arguments, after a colon: task=, weak=, strong=, loss=, bootstrap, generative,
debug. For other pairs set --config.data.source (w2s_jax/tasks/sources.py):

  --config=configs/reward_modeling.py:task=hh_rlhf \
      --config.data.source=hf:Anthropic/hh-rlhf:helpful-base/

With `generative` students and ceilings are trained with and without generative
fine-tuning on the texts of the transfer set (paper section 5.2.2). That needs a
decoder, so set --config.models.strong.weights too.

Halves are equal, as in the paper. Recipes are those of configs/nlp.py, except
that nothing is frozen; no field was searched.
"""

from configs import base
from configs import nlp

# {task: max_length}, for each text of a pair. Long texts are truncated at the
# start, since the reply that is compared is at the end.
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
    weak='bag',
    strong='minilm-l6',
    loss='xent',  # or 'all' losses of base.py
  )
  c = base.get_config()
  c.task = args.task
  c.data.max_length = base.choose(TASKS, args.task, field='task')
  c.data.splits.update(weak=1000, transfer=1000, validation=500, test=2000)
  if args.loss != 'all':
    c.losses = (args.loss,)
  c.models.weak = model(args.weak, field='weak')
  if args.generative:
    c.generative = (False, True)
  if args.bootstrap:
    nlp.bootstrap(c)
  else:
    c.models.strong = model(args.strong, field='strong')
  for fields in c.models.values():
    fields.train.freeze = ''
  if args.debug:
    debug(c)
  return c


def model(name, *, field):
  """Returns a model of configs/nlp.py with trainable embeddings."""
  fields = nlp.model(name, field=field, adapt='full')
  fields.train.freeze = ''
  return fields


def debug(c):
  """Makes `c` run in seconds: tiny decoders, few pairs, no download."""
  c.data.splits.update(weak=128, transfer=128, validation=64, test=256)
  base.tiny_pair(c, 'tiny-decoder')
  c.generative_train.update(learning_rate=3e-3, batch_size=32)


def sweep():
  """Yields supervisors of three sizes, each with both losses."""
  for weak in ('bag', 'minilm-l1', 'minilm-l2'):
    yield {
      'models': {'weak': model(weak, field='weak')},
      'losses': ('xent', 'logconf'),
    }
