"""Results that no model ever gave: workdirs, groups, and what figures show."""

import io
import itertools
import json

from matplotlib import text
import numpy as np
import rich.console

from w2s_jax import metrics
from w2s_jax import results
from w2s_jax.report import console as console_lib
from w2s_jax.report import groups as groups_lib
from w2s_jax.runtime import files

RATES = {'weak': 0.66, 'student': 0.74, 'ceiling': 0.82, 'zero_shot': 0.5}
SIZES = {
  'minilm-l1': 13_000_000,
  'minilm-l6': 22_000_000,
  'board-m': 900_000,  # not in the order of the names
  'board-xs': 20_000,
  'board-l': 5_000_000,
  'board-s': 150_000,
}
IDS = np.array([f'row-{i:03}' for i in range(600)])
# In the order of their size, which is not that of their names.
MODELS = {'board-xs': 2e4, 'board-s': 1.5e5, 'board-m': 9e5, 'board-l': 5e6}


def _predict(rate, rng, labels_N):
  """Probabilities of a model which is right at this rate, roughly."""
  right_N = rng.random(len(labels_N)) < rate
  top_N = 0.5 + 0.5 * rng.beta(2, 2, len(labels_N))
  positive_N = np.where(right_N == labels_N, top_N, 1 - top_N)
  return np.stack([1 - positive_N, positive_N], -1).astype(np.float32)


def one_hot(labels_N):
  return np.eye(2, dtype=np.float32)[labels_N.astype(int)]


def save_stage(workdir, stage, probs_NxC, label_probs_NxC, ids=IDS):
  files.save_arrays(
    workdir / 'stages' / stage / 'predictions' / 'test.npz',
    ids=ids,
    probs=probs_NxC,
    label_probs=label_probs_NxC,
    stage=np.array(stage.rpartition('-')[2]),
  )


def result(workdir, rates, **key):
  """Writes the four stages of one student and returns its result.

  The key names all of a row's key but via, which is () where it is left out.
  """
  key = {
    'via': (),
    'weak_labels': 'soft',
    'early_stopping': 'none',
    'generative': False,
    'variant': '',
    **key,
  }
  labels_N = np.random.default_rng(0).random(600) < 0.5
  labels_NxC = one_hot(labels_N)
  row, probs = dict(key, stages={}, n_test=600, seconds=12.5), {}
  row['compile_seconds'] = 7.0
  row.update(rows=1000, rows_truncated=0, recipe='made-up')
  row['weak_parameters'] = SIZES[key['weak_model']]
  row['strong_parameters'] = SIZES[key['strong_model']]
  for i, (role, rate) in enumerate(rates.items()):
    # The weak model and zero-shot serve every method, a ceiling most.
    method = [key['loss'], *key['via']] if role == 'student' else []
    if role in ('student', 'ceiling') and key['generative']:
      method.append('generative')
    rng = np.random.default_rng([key['seed'], i, len(''.join(method))])
    probs[role] = _predict(rate, rng, labels_N)
    models = [key['weak_model']] * (role in ('weak', 'student'))
    models += [key['strong_model']] * (role != 'weak')
    stage = '-'.join([role, key['task'], *models, *method, str(key['seed'])])
    row['stages'][role] = stage
    save_stage(workdir, stage, probs[role], labels_NxC)
    for name, value in metrics.summary(probs[role], labels_NxC).items():
      row[f'{role}_{name}'] = value
  same = metrics.agreement(probs['student'], probs['weak'], labels_NxC)
  row['agreement'] = same['all']
  row['agreement_supervisor_right'] = same['supervisor_right']
  row['agreement_supervisor_wrong'] = same['supervisor_wrong']
  row['teacher_agreement'] = same['all']
  row['teacher_agreement_right'] = same['supervisor_right']
  row['teacher_agreement_wrong'] = same['supervisor_wrong']
  accuracies = (row[f'{r}_accuracy'] for r in ('weak', 'student', 'ceiling'))
  row['pgr'] = metrics.pgr(*accuracies)
  row['pgr_status'] = 'ok'
  row['weak_label_accuracy'] = row['weak_accuracy']
  models = key['weak_model'], *key['via'], key['strong_model']
  row['links'] = [
    {
      'teacher_accuracy': 0.5 + 0.1 * i,
      'student_accuracy': 0.6 + 0.1 * i,
      'repeated': 0.75 + 0.05 * key['seed'],
      'corrected': 0.25 - 0.05 * key['seed'],
      'lost': None,
    }
    for i in range(len(models) - 1)
  ]
  return row


def make(
  workdir,
  *,
  losses=('logconf', 'xent'),
  seeds=(0, 1),
  rates=RATES,
  generative=(False,),
  **optional,
):
  rows = [
    result(
      workdir,
      rates,
      task='rotten_tomatoes',
      weak_model='minilm-l1',
      strong_model='minilm-l6',
      loss=loss,
      seed=seed,
      generative=after,
    )
    for loss in losses
    for after in generative
    for seed in seeds
  ]
  for row in rows:
    row.update(optional)
  write_rows(workdir, rows)
  return rows


def make_ladder(workdir, *, seeds=(0,), generative=(False,), **optional):
  """Every pair of four models, and each bootstrapped through all in between."""
  models = 'board-xs', 'board-s', 'board-m', 'board-l'
  rows = []
  for weak, strong in itertools.combinations(range(4), 2):
    for via in dict.fromkeys([(), models[weak + 1 : strong]]):
      rates = {'weak': 0.55 + 0.1 * weak, 'ceiling': 0.6 + 0.1 * strong}
      share = 0.5 + 0.15 * len(via)
      gain = share * (rates['ceiling'] - rates['weak'])
      rates |= {'student': rates['weak'] + gain, 'zero_shot': 0.5}
      key = dict(weak_model=models[weak], strong_model=models[strong], via=via)
      rows += [
        result(
          workdir,
          {role: rates[role] for role in results.ROLES},
          **dict(key, task='chess', loss='xent', seed=seed, generative=after),
        )
        for after in generative
        for seed in seeds
      ]
  for row in rows:
    row.update(optional)
  write_rows(workdir, rows[::-1])
  return rows


def make_tasks(workdir, tasks, *, undefined=(), losses=('xent',)):
  """One student for each task and loss; no gap on those undefined."""
  rows = [
    result(
      workdir,
      dict.fromkeys(RATES, 0.6) if task in undefined else RATES,
      task=task,
      weak_model='minilm-l1',
      strong_model='minilm-l6',
      loss=loss,
      seed=0,
    )
    for task in tasks
    for loss in losses
  ]
  write_rows(workdir, rows)
  return rows


def write_fields(workdir, fields, ids=IDS):
  """Writes a file of test rows with such fields."""
  lines = [{'id': str(id_), 'fields': x} for id_, x in zip(ids, fields)]
  files.save_lines(workdir / 'rows' / 'test-made-up.jsonl.gz', lines)


def write_rows(workdir, rows):
  lines = [json.dumps(files.sealed(row)) + '\n' for row in rows]
  (workdir / 'results.jsonl').write_text(''.join(lines))


def console(groups, width=100):
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=width)
  console.print(console_lib.tables(groups))
  return stream.getvalue()


def group(
  weak,
  strong,
  via=(),
  loss='xent',
  *,
  pgr=0.5,
  task='chess',
  generative=False,
):
  curve_K = np.array([0.6, 0.8]), np.array([0.5, 0.7]), np.array([200, 400])
  group = {
    'task': task,
    'weak_model': weak,
    'strong_model': strong,
    'weak_parameters': MODELS[weak],
    'strong_parameters': MODELS[strong],
    'via': tuple(via),
    'loss': loss,
    'weak_labels': 'soft',
    'early_stopping': 'none',
    'generative': generative,
    'variant': '',
    'n_classes': 2,
    'pgr': pgr,
    'pgr_low': None if pgr is None else -np.inf,
    'pgr_high': None if pgr is None else pgr + 0.2,
    'reliability': dict.fromkeys(('weak', 'student', 'ceiling'), curve_K),
  }
  group |= dict.fromkeys(results.AGREEMENT, 0.7)
  group |= {f'{name}_se': 0.02 for name in results.AGREEMENT}
  names = list(MODELS)
  for role, accuracy in {
    'weak': 0.5 + 0.1 * names.index(weak),
    'student': 0.52
    + 0.1 * names.index(strong)
    + 0.01 * len(via)
    + 0.02 * generative,
    'ceiling': 0.55 + 0.1 * names.index(strong) + 0.03 * generative,
    'zero_shot': 0.5,
  }.items():
    group[f'{role}_accuracy'], group[f'{role}_accuracy_se'] = accuracy, 0.01
    group[f'{role}_ece'] = 0.1
  for role in groups_lib.GAINING:
    group[f'{role}_gain'], group[f'{role}_gain_se'] = 0.1, 0.01
  group['zero_shot_is_chance'] = False
  return group


def ladder(losses=('xent',), generative=(False,)):
  """Every pair, naive and bootstrapped through all that is in between."""
  names = list(MODELS)
  return [
    group(names[weak], names[strong], via, loss, generative=after)
    for weak, strong in itertools.combinations(range(4), 2)
    for via in dict.fromkeys([(), tuple(names[weak + 1 : strong])])
    for loss in losses
    for after in generative
  ]


def of_tasks(groups, n_tasks, undefined=0):
  """The same on several tasks, with ceilings and PGR that grow from 0.1 on.

  On the first `undefined` tasks there is no gap.
  """
  return [
    dict(
      group,
      task=f'task-{i:02}',
      ceiling_accuracy=group['weak_accuracy']
      + 0.01 * max(0, i - undefined + 1),
      **dict.fromkeys(
        ('pgr', 'pgr_low', 'pgr_high'), None if i < undefined else 0.1 * (i + 1)
      ),
    )
    for i in range(n_tasks)
    for group in groups
  ]


def lines(axes):
  """{label: values} of the lines which the legend names."""
  lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
  return {k: list(v) for k, v in lines.items() if not k.startswith('_')}


def labels(axes):
  return [label.get_text() for label in axes.get_yticklabels()]


def names_of_bars(axes):
  """(names above the bars, numbers above the bars), from the top."""
  texts = [text.get_text() for text in axes.texts]
  return texts[::2], texts[1::2]


def box(words):
  """Of the words alone, without a line that leads to them."""
  return text.Text.get_window_extent(words)


def marks(axes, shape):
  """{(x, y): hollow or full} of the marks of such a shape."""
  return {
    (round(x, 2), round(y, 2)): line.get_fillstyle()
    for line in axes.get_lines()
    if line.get_marker() == shape
    for x, y in zip(line.get_xdata(), line.get_ydata())
  }
