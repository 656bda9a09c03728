"""NLP over tasks: a bag of words supervises SmolLM2-135M-Instruct, a decoder.

  python experiments/main.py --config=configs/smollm2.py:kind=probe \
      '--config.data.source=file:DATA/{task}/' --workdir=runs/probe
  python experiments/main.py --config=configs/smollm2.py:kind=tune \
      '--config.data.source=file:DATA/{task}/' --workdir=runs/tune

`probe` trains linear heads on frozen features, on 25 tasks; `tune` fine-tunes
on three of them, all parameters (`full`, also with a longer warm-up of the
confidence loss) and `lp_ft`. Weights need pip install 'w2s_jax[gguf]'. DATA has
one folder per task, such as DATA/sst2/train.jsonl.gz; without data.source each
task reads its own source. Tasks without data are left out, and named.

Arguments, after a colon: kind=, loss=, debug. data.splits are upper bounds of
the sizes in TASKS.

The supervisor is the mean of the embeddings of 1,023 hashed words, random at
first, trained on 1,000 rows of ground truth. It and the recipes are the same
for all tasks. When they were chosen, rotten_tomatoes, tweet_eval_sentiment,
sst2 and customer_reviews had been looked at, and no other task.
"""

from configs import base

# {task: (rows of the test set, rows of the transfer set)}: 4,000 transfer rows
# where the task has as many.
TASKS = {
  'imdb': (2000, 4000),
  'subj': (2000, 4000),
  'sst2': (850, 4000),
  'ai2_arc_easy': (2000, 3000),
  'boolq_question_only': (2000, 4000),
  'clickbait': (2000, 4000),
  'cola': (600, 3400),
  'comve': (1900, 4000),
  'creak': (1300, 4000),
  'customer_reviews': (600, 900),
  'ethics_commonsense': (1000, 1400),
  'ethics_deontology': (2000, 4000),
  'ethics_justice': (2000, 4000),
  'ethics_utilitarianism': (2000, 4000),
  'ethics_virtue': (1900, 3000),
  'hellaswag': (2000, 4000),
  'openbookqa': (1000, 4000),
  'piqa': (1000, 1400),
  'rotten_tomatoes': (2000, 4000),
  'social_i_qa': (1000, 1600),
  'tweet_eval_hate': (2000, 4000),
  'tweet_eval_irony': (600, 1300),
  'tweet_eval_offensive': (470, 4000),
  'tweet_eval_sentiment': (1000, 2500),
  'wic': (620, 2000),
}
# {kind: (tasks, most rows of a transfer set)}
KINDS = {
  'probe': (tuple(TASKS), 4000),
  'tune': (('imdb', 'subj', 'sst2'), 2000),
}


def get_config(arg=None):
  args = base.parse_arg(arg, kind='probe', loss='', debug=False)
  _, transfer = base.choose(KINDS, args.kind, field='kind')
  c = base.get_config()
  c.task = args.kind
  c.seeds = (0, 1, 2)
  c.checkpoint_every = 10**9  # a stage takes seconds
  c.eval_batch_size = 256
  c.data.max_length = 128
  c.data.num_buckets = 1  # one shape to compile
  c.data.splits.update(weak=1000, transfer=transfer, validation=200, test=2000)
  c.models.weak = base.model(
    'bag',
    weights='random:tiny-encoder',
    num_layers=0,
    learning_rate=1e-2,
    epochs=8,
  )
  c.models.strong = base.model(
    'smollm2-135m-instruct',
    weights='asset:smollm2-135m',
    learning_rate=5e-5,
    epochs=2,
  )
  c.models.strong.dtype = 'bfloat16'
  if args.loss:
    c.losses = (args.loss,)
  if args.debug:
    debug(c)
  c.models.strong.adapt.probe.epochs = 12
  if args.kind == 'probe':
    c.models.strong.adapt.method = 'probe'
    c.population = len(c.seeds)  # heads of all seeds side by side
  return c


def tasks(c):
  """Yields the points of a kind; sizes of `c` are upper bounds."""
  if c.task not in KINDS:
    yield {}
  names, _ = KINDS.get(c.task, ((), 0))
  for name in names:
    test, transfer = TASKS[name]
    sizes = dict(test=test, transfer=transfer)
    point = {
      'task': name,
      'data': {
        'splits': {k: min(n, c.data.splits[k]) for k, n in sizes.items()}
      },
    }
    yield point
    if c.task == 'tune':
      yield from others(c, point)


def others(c, point):
  """Yields a longer warm-up of the confidence loss, and lp_ft."""
  if 'logconf' in c.losses:
    yield point | {
      'variant': 'warmup .6',
      'losses': ('logconf',),
      'loss_args': {'logconf': {'warmup': 0.6}},
    }
  lp_ft = {'adapt': {'method': 'lp_ft'}, 'train': {'learning_rate': 2.5e-5}}
  yield point | {'models': {'strong': lp_ft}}


def debug(c):
  """Makes `c` run in seconds: tiny models, synthetic rows, no download."""
  c.task = 'synthetic'
  c.data.max_length = 48
  c.data.splits.update(weak=256, transfer=1024, validation=64, test=512)
  base.tiny_pair(c, 'tiny-decoder')
