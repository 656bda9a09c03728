"""Reward modeling: a small encoder's preferences supervise a larger model's.

  python experiments/main.py --config=configs/reward_modeling.py \
      --workdir=runs/reward

Default: which of two short texts was rated as more positive. These pairs are
shipped in w2s_jax/data; they are preferences for positivity, not helpfulness.
As in configs/nlp.py a bag of words, trained on 1,000 pairs, supervises a linear
probe of MiniLM-L6's frozen features.

Arguments, after a colon: task=, weak=, rungs=, strong=, adapt=, losses=,
bootstrap, generative, debug; rungs are as in configs/nlp.py. Tasks are those of
w2s_jax/tasks/reward.py; for other pairs set --config.data.source
(w2s_jax/tasks/sources.py):

  --config=configs/reward_modeling.py:task=hh_rlhf \
      --config.data.source=hf:Anthropic/hh-rlhf:helpful-base/

With `generative` students and ceilings are trained with and without generative
fine-tuning on the texts of the transfer set (paper section 5.2.2). That needs a
decoder, such as strong=smollm2, which is then fine-tuned and not probed.

Recipes are those of configs/nlp.py, except that fine-tuning freezes nothing.
"""

from configs import base
from configs import nlp
from w2s_jax.tasks import reward

ARGUMENTS = dict(
  debug=False,
  bootstrap=False,  # in place of strong
  generative=False,
  task='vader_pairs',
  weak='bag',
  rungs=(),
  strong='minilm-l6',
  adapt='',  # of students; '' is a probe, or full with `generative`
  losses=(),  # () is all losses of base.py
)


def get_config(arg=None):
  args = base.parse_arg(arg, **ARGUMENTS)
  c = base.get_config()
  base.set_task(c, args.task, reward.TASKS, 'w2s_jax/tasks/reward.py')
  c.seeds = (0, 1, 2)
  if args.losses:
    c.losses = args.losses
  if args.generative:
    c.generative = (False, True)
  c.models.weak = model(args.weak, field='weak')
  if args.bootstrap:
    nlp.bootstrap(c, args.adapt)
  else:
    adapt = args.adapt or ('full' if args.generative else 'probe')
    c.models.strong = model(args.strong, field='strong', adapt=adapt)
    if args.rungs:
      nlp.rungs(c, args.rungs, args.strong, adapt)
  for fields in c.models.values():
    fields.train.freeze = ''
  if args.debug:
    debug(c)
  return c


def model(name, *, field, adapt=''):
  """Returns a model of configs/nlp.py; fine-tuning trains embeddings too."""
  fields = nlp.model(name, field=field, adapt=adapt)
  fields.train.freeze = ''
  return fields


def debug(c):
  """Makes `c` run in seconds: tiny decoders, few pairs, no download."""
  c.data.splits.update(weak=128, transfer=128, validation=64, test=256)
  base.tiny_pair(c, 'tiny-decoder')
  c.generative_train.update(learning_rate=3e-3, batch_size=32)


def sweep():
  """Yields supervisors that are apart from, and part of, the student."""
  for weak in ('bag', 'minilm-l1'):
    yield {'models': {'weak': model(weak, field='weak')}}
