"""NLP classification: a bag of words supervises a pretrained model.

  python experiments/main.py --config=configs/nlp.py --workdir=runs/nlp

Default: Rotten Tomatoes. The weak supervisor is a bag of words that was never
pretrained, trained on 1,000 rows of ground truth; the student is MiniLM-L6: a
linear probe of its frozen features, on 4,000 weak labels. Its first layer alone
is also fine-tuned, from such a probe on, since all six take minutes: see TUNED.

Arguments, after a colon: task=, weak=, rungs=, strong=, adapt=, losses=, all,
paper, bootstrap, debug. For other sources or your own rows set
--config.data.source (w2s_jax/tasks/sources.py). With rungs=minilm-l1,minilm-l3
these stand between weak and strong: each is taught by weak directly, and in a
chain through those before it (paper section 4.3.1), each step with its share of
the transfer rows. `bootstrap` is such a ladder of three sizes of MiniLM.

`all` runs every task whose data is available, `paper` those among the 22 of the
paper; the others are listed with how to get them. For one folder per task, such
as data/sst2/train.jsonl.gz, add '--config.data.source=file:data/{task}/'.
data.max_length and data.splits are then upper bounds of the sizes in TASKS of
w2s_jax/tasks/nlp.py, where a new data set is one entry.

Supervisor and student are of different kinds on purpose: a student repeats the
errors of a supervisor that is part of itself, such as its own first layers.
experiments/RESULTS.md tells how the recipes were chosen.
"""

from configs import base
from w2s_jax.tasks import nlp as tasks

# 'bag' and pretrained models, some by their first layers: a ladder of sizes in
# one family. `train` is for fine-tuning all but the embeddings of MiniLM.
_MINILM = dict(weights='asset:minilm-l6', freeze='_embed/')
_SMOLLM2 = dict(name='smollm2-135m-instruct', weights='asset:smollm2-135m')
MODELS = {
  'bag': dict(weights='random:bag', learning_rate=1e-2, epochs=8),
  'minilm-l1': dict(_MINILM, num_layers=1, learning_rate=1e-3),
  'minilm-l2': dict(_MINILM, num_layers=2, learning_rate=5e-4),
  'minilm-l3': dict(_MINILM, num_layers=3, learning_rate=5e-4),
  'minilm-l6': dict(_MINILM, num_layers=6, learning_rate=2e-4),
  'smollm2': dict(_SMOLLM2, learning_rate=5e-5),
  'gemma3-270m': dict(weights='asset:gemma3-270m', learning_rate=5e-5),
}

SUITES = {
  'all': [name for name in tasks.TASKS if name != 'synthetic'],
  'paper': list(tasks.PAPER),
}


# The study of models.tuned, which fine-tunes the student from a probe on: what
# the default has time for, so one layer of MiniLM. `adapt=lp_ft` has all
# layers, losses, seeds and transfer rows.
TUNED = {'num_seeds': 1, 'num_losses': 1, 'transfer': 2000}


ARGUMENTS = dict(
  debug=False,  # in place of task, weak and strong
  bootstrap=False,  # in place of strong
  all=False,  # in place of task
  paper=False,  # in place of task
  task='rotten_tomatoes',
  weak='bag',
  rungs=(),  # models between weak and strong, small ones first
  strong='minilm-l6',
  adapt='',  # one way to adapt students; '' is a probe and fine-tuning
  losses=(),  # () is all losses of base.py
)


def get_config(arg=None):
  args = base.parse_arg(arg, **ARGUMENTS)
  c = base.get_config()
  c.seeds = (0, 1, 2)
  if args.all or args.paper:
    c.task = 'all' if args.all else 'paper'
    c.data.max_length = 256
    c.data.splits.update(weak=1000, transfer=4000, validation=500, test=2000)
  else:
    base.set_task(c, args.task, tasks.TASKS, 'w2s_jax/tasks/nlp.py')
  if args.losses:
    c.losses = args.losses
  if args.debug:
    debug(c)
    return c
  c.models.weak = model(args.weak, field='weak')
  if args.bootstrap:
    bootstrap(c, args.adapt)
    return c
  c.models.strong = model(args.strong, field='strong', adapt=args.adapt)
  if args.rungs:
    rungs(c, args.rungs, args.strong, args.adapt)
    return c
  if not args.adapt and c.task not in SUITES:
    tuned = 'minilm-l1' if args.strong == 'minilm-l6' else args.strong
    c.models.tuned = model(tuned, field='strong', adapt='lp_ft')
    c.students = ('weak>strong', 'weak>tuned')
  return c


def model(name, *, field, adapt=''):
  """Returns the fields of a model of MODELS; `field` is for the message."""
  fields = base.model(**base.choose(MODELS, name, field=field))
  fields.adapt.probe.epochs = 12
  if field != 'weak':
    fields.adapt.method = adapt or 'probe'
  if adapt == 'lp_ft':
    fields.train.learning_rate /= 2  # starts near its end
  return fields


def rungs(c, names, strong, adapt=''):
  """Adds students between weak and strong, taught directly and in chains."""
  if len({*names, strong}) <= len(names):
    raise ValueError(
      f'rungs={",".join(names)},strong={strong}: a model is named twice.'
    )
  for name in names:
    c.models[name] = model(name, field='rungs', adapt=adapt)
  ladder = (*names, 'strong')
  c.data.splits.transfer //= len(ladder)  # one slice for each step of a chain
  c.students = (
    *(f'weak>{key}' for key in ladder),
    *('>'.join(('weak', *ladder[:n])) for n in range(2, len(ladder) + 1)),
  )


def bootstrap(c, adapt=''):
  """Adds students of three sizes, taught directly and in chains."""
  c.data.splits.transfer //= 3  # one slice for each step of the longest
  for key in ('l1', 'l3', 'l6'):
    c.models[key] = model(f'minilm-{key}', field='strong', adapt=adapt)
  c.students = ('weak>l1', 'weak>l3', 'weak>l6', 'weak>l1>l3', 'weak>l1>l3>l6')


def studies(c):
  """Yields the points that `c` stands for: tasks of a suite, or models.tuned.

  Sizes of `c` are upper bounds of those in TASKS.
  """
  if c.task in SUITES:
    for name in SUITES[c.task]:
      own = tasks.TASKS[name].sizes
      sizes = dict(transfer=own.transfer, test=own.test, weak=own.transfer)
      yield {
        'task': name,
        'data': {
          'max_length': min(own.max_length, c.data.max_length),
          'splits': {k: min(n, c.data.splits[k]) for k, n in sizes.items()},
        },
      }
    return
  tuned = tuple(x for x in c.students if x.endswith('>tuned'))
  others = tuple(x for x in c.students if x not in tuned)
  if others:
    yield {'students': others}
  if tuned:
    transfer = min(TUNED['transfer'], c.data.splits.transfer)
    yield {
      'students': tuned,
      'losses': tuple(c.losses)[: TUNED['num_losses']],
      'seeds': tuple(c.seeds)[: TUNED['num_seeds']],
      'data': {'splits': {'transfer': transfer}},
    }


def debug(c):
  """Makes `c` run in seconds: tiny models, synthetic rows, no download."""
  if c.task not in SUITES:
    c.task = 'synthetic'
  c.data.max_length = 48
  c.data.num_buckets = 3
  c.data.splits.update(weak=256, transfer=1024, validation=64, test=512)
  c.seeds = (0, 1)
  base.tiny_pair(c, 'tiny-encoder')


def sweep():
  """Yields students of four sizes, each a probe and fully fine-tuned."""
  for name in ('minilm-l1', 'minilm-l2', 'minilm-l3', 'minilm-l6'):
    for adapt in ('probe', 'full'):
      yield {
        'models': {'strong': model(name, field='strong', adapt=adapt)},
        'students': ('weak>strong',),
      }
