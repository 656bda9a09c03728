"""A study small enough to be repeated, and the files it reads."""

from configs import nlp
from experiments.benchmarks import own_process


def config_of(rows, *, tables=False, matmul_dtype=''):
  """Returns the default study with a two-layer supervisor and fewer rows.

  With `tables` the embeddings train too, as in the public code.
  """
  config = nlp.get_config('weak=minilm-l2,adapt=full,loss=xent')
  config.seeds = (0,)
  config.data.splits.update(
    weak=rows, transfer=rows, validation=max(2, rows // 2), test=2 * rows
  )
  for model in config.models.values():
    model.matmul_dtype = matmul_dtype
    if tables:
      model.train.freeze = ''
  return config


def fetched(config):
  """Fetches the inputs of a study; returns arguments of torch_loops.study."""
  from w2s_jax.models import model_folder

  with own_process.Process(texts, config=config) as asked:
    data = asked.next().value
  fields = ('epochs', 'batch_size', 'learning_rate', 'warmup', 'weight_decay')
  return dict(
    folder=str(model_folder.folder(config.models.strong.weights)),
    models={
      key: {
        'num_layers': spec.num_layers,
        'tables_train': not spec.train.freeze,
        **{name: spec.train[name] for name in (*fields, 'clip_norm')},
      }
      for key, spec in config.models.items()
    },
    texts={name: texts for name, (texts, _) in data.items()},
    classes={name: classes for name, (_, classes) in data.items()},
    max_length=config.data.max_length,
    eval_batch_size=config.eval_batch_size,
    seed=config.seeds[0],
  )


def texts(*, config):
  """Yields {'weak': (texts, classes), ...} of the rows of a study."""
  from w2s_jax import study as study_lib

  evaluated, slices = study_lib.load_splits(config)
  weak, (transfer,) = slices[config.seeds[0]]
  parts = {'weak': weak, 'transfer': transfer, **evaluated}
  yield {
    name: (list(x.inputs), x.label_probs_NxC.argmax(1).tolist())
    for name, x in parts.items()
  }


def fresh_cache(folder):
  """Returns an environment with all downloads but no compiled programs."""
  from w2s_jax import assets

  cache = folder / 'cache'
  if not cache.exists():
    cache.mkdir()
    for path in assets.cache_dir().iterdir():
      if path.name != 'xla':
        (cache / path.name).symlink_to(path)
  return {'W2S_CACHE': str(cache)}
