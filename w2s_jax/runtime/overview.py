"""What is printed before a study: recipes, stages, and the time they need.

Times are those that finished stages of the workdir took, of this study or of
others there, in proportion to the rows that go through a model; see
runtime/time_left.py.
"""

import collections
import datetime
import json

from w2s_jax.runtime import files
from w2s_jax.runtime import time_left

# Fields of a stage that tell apart kinds of work, when they are set.
_USED = ('features', 'lora', 'judge', 'curve')


def recipes(config, models, slices, workdir):
  """Lines: the study, where it goes, and each of its models with its recipe.

  Args:
    models: {key of config.models: model.Model}.
    slices: study_splits.Slices of one seed.
  """
  first = {chain.partition('>')[0].strip() for chain in config.students}
  yield (
    f'{config.task}: {", ".join(config.students)}; '
    f'losses {", ".join(config.losses)}; '
    f'seeds {", ".join(map(str, config.seeds))}; to {workdir}'
  )
  for key, model in models.items():
    rows = slices.weak if key in first else slices.transfer[0]
    yield f'  {key}: {recipe(config.models[key], model, len(rows))}'


def recipe(spec, model, rows):
  """'minilm-l6 (22.7M parameters), probe: 12 epochs of 4,000 rows, ...'."""
  method = spec.adapt.method
  count = model.num_parameters
  size = f'{count / 1e6:,.1f}M' if count >= 1e6 else f'{count / 1e3:.0f}k'
  size += ' parameters'
  if method == 'prompt':
    return f'{model.name} ({size}), prompt with {spec.adapt.shots} examples'
  train = spec.adapt.probe if method == 'probe' else spec.train
  parts = [
    f'{train.epochs} epochs of {rows:,} rows',
    f'batch {train.batch_size}',
    f'learning rate {train.learning_rate:g}',
  ]
  if train.freeze:
    parts.append(f'frozen {train.freeze}')
  if rounded := model.identity['architecture'].get('matmul_dtype'):
    parts.append(f'matmuls in {rounded}')  # which 'auto' may have chosen
  return f'{model.name} ({size}), {method}: {", ".join(parts)}'


def stages(ordered, runtime):
  """Lines: how many stages there are and how long they take, then a list.

  The runtime learns which of them wait, and the times of others.
  """
  missing = [x for x in ordered if not runtime.is_done(x.folder_name)]
  schedule = runtime.schedule
  schedule.waiting.update({x.folder_name: work_of(x) for x in missing})
  if missing and not schedule.done:
    schedule.done += past_work(runtime.workdir)
  begun = {x for x in missing if runtime.folder(x.folder_name).exists()}
  counts = [f'{len(ordered) - len(missing)} cached']
  if begun:
    counts.append(f'{len(begun)} to resume')
  counts.append(f'{len(missing) - len(begun)} to run')
  yield f'{len(ordered)} stages: {", ".join(counts)}{_duration(schedule)}'
  by_recipe = collections.defaultdict(list)
  for stage in missing:
    by_recipe[files.to_json(stage.recipe)].append(stage)
  for alike in by_recipe.values():
    seeds = [str(x.fields['seed']) for x in alike if 'seed' in x.fields]
    name = alike[0].name.partition('-seed')[0]
    each = f' (seeds {", ".join(seeds)})' if len(alike) > 1 else ''
    yield f'  {name}{each}'


def _duration(schedule):
  """', about 0:03:20 ...' of what waits; '' where nothing is known of it."""
  left = schedule.left()
  if left is None:
    return ''
  seconds, is_all = left
  time = datetime.timedelta(seconds=round(seconds))
  at_least = 'about' if is_all else 'at least'
  return f'; {at_least} {time} and compilation, by stages of this workdir'


def work_of(stage):
  """What a stage does, to estimate its time by that of others of its kind."""
  rows = stage.fields.get('rows')
  return _work(stage.spec, 1 if rows is None else len(rows))


def past_work(workdir):
  """[(Work, seconds)] of the finished stages of a workdir.

  Stages that were resumed count with their last part only, so that they may
  seem to be faster than they are.
  """
  found = []
  if '://' in str(workdir):
    return found  # a bucket takes its time to read two files a stage
  for done in sorted((workdir / 'stages').glob('*/DONE')):
    try:
      summary = files.load_record(done)['summary']
      spec = json.loads((done.parent / 'config.json').read_text())
      seconds = summary['seconds'] - summary['compile_seconds']
      work = _work(spec, summary.get('rows', 1))
    except (OSError, ValueError, KeyError, TypeError):
      continue  # of no consequence for results; what is damaged is made again
    found.append((work, max(seconds, 0.0)))
  return found


def _work(spec, rows):
  """Rows times epochs, of a kind that has the model and what it is used for."""
  kind = (
    spec['kind'],
    files.to_json(spec.get('model')),
    *(spec.get(name) is not None for name in _USED),
  )
  epochs = (spec.get('train') or {}).get('epochs', 1)
  return time_left.Work(kind=kind, amount=rows * epochs)
