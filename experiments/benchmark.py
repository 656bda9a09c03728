"""How fast this is, as ratios that are measured in one run.

  python experiments/benchmark.py
  python experiments/benchmark.py --parts=a --preset=gpt2-xl --length=512 \
      --dtype=bfloat16
  pip install '.[torch]'  # part c needs it

  a  forward and backward pass against the fastest matmul of this machine
  b  tokens that are no padding
  c  a study against two plain loops of PyTorch and transformers
  d  from the start of experiments/main.py to the first training step
  e  training steps of 4 and 16 models side by side against one
  f  probes for ten label sources on features that are made once

On a CPU all is measured on one core and one thread, in CPU seconds; what is
compared takes turns, and the range is that over the turns. On an accelerator
parts a, d, e and f run there and count wall seconds.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import tempfile
import time
from typing import Any, NamedTuple

from absl import flags
import numpy as np

import benchmark_runs as runs
import benchmark_speed
import launch
import own_process
import torch_loops

from configs import chess
from configs import nlp
from configs import reward_modeling

PARTS = flags.DEFINE_list('parts', [], 'Of those above; all without it.')
PRESET = flags.DEFINE_string('preset', 'minilm-l6', 'Model of part a.')
BATCH = flags.DEFINE_integer('batch', 0, 'Rows, of part a; 0: what fits.')
LENGTH = flags.DEFINE_integer('length', 64, 'Tokens of each row, of part a.')
DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of part a.'
)
TABLES = flags.DEFINE_bool(
  'tables',
  True,
  'Train the embeddings too, as the public code does, in part c.',
)
ROWS = flags.DEFINE_integer('rows', 200, 'Of each half, in parts c and f.')
REPEATS = flags.DEFINE_integer('repeats', 3, 'Turns of what is compared.')
OUT = flags.DEFINE_string('out', None, 'File for the rows as JSON lines.')

SOURCES = 10  # of labels, in part f
SIZES = (1, 4, 16)  # of populations, in part e


class Row(NamedTuple):
  """One line of the table."""

  part: str
  what: str
  values: list  # one a turn; the median stands for them
  unit: str  # of UNITS
  bound: str  # what bounds it
  target: float | None = None
  details: Any = None

  @property
  def value(self):
    return float(np.median(self.values))

  def measured(self):
    show = UNITS[self.unit]
    spread = ''
    if len(self.values) > 1:
      spread = f' ({show(min(self.values))} to {show(max(self.values))})'
    return show(self.value) + spread

  def verdict(self):
    """'met', or by how much of the target it is missed."""
    if self.target is None:
      return ''
    ratio = self.value / self.target
    missed = ratio - 1 if self.unit in FEWER else 1 - ratio
    return 'met' if missed <= 0 else f'missed by {missed:.0%}'


UNITS = {
  '%': '{:.1%}'.format,
  'x': '{:.2f}x'.format,
  's': '{:.1f} s'.format,
  'of one': '{:.2f} of one'.format,
}
FEWER = ('s', 'of one')  # the fewer the better


def main():
  import rich.console

  chosen = PARTS.value or list(TABLE)
  for part in chosen:
    if part not in TABLE:
      raise ValueError(f'--parts: {part!r} is not one of {", ".join(TABLE)}.')
  for flag in (ROWS, REPEATS, LENGTH):
    if flag.value < 1:
      raise ValueError(f'--{flag.name}={flag.value} must be at least 1.')
  console = rich.console.Console(highlight=False, soft_wrap=True)
  before, rows = os.getloadavg()[0], []
  for part in dict.fromkeys(chosen):
    console.print(f'({part}) {TABLE[part].__doc__}')
    for row in TABLE[part](console):
      rows.append(row)
      console.print(f'    {row.what}: {row.measured()}')
  where = f'{machine()}, load {before:.1f} to {os.getloadavg()[0]:.1f}'
  if OUT.value:
    write(rows, pathlib.Path(OUT.value), where)
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 140
  console.print(table_of(rows, where))


def machine():
  """'AMD EPYC 9B45, 2 cores, jax 0.10.2'."""
  name = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    models = [x for x in info.read_text().splitlines() if 'model name' in x]
    name = models[0].partition(': ')[2] if models else name
  version = importlib.metadata.version('jax')
  return f'{name}, {os.cpu_count()} cores, jax {version}'


def write(rows, path, where):
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = [
    row._asdict()
    | {'value': row.value, 'verdict': row.verdict(), 'where': where}
    for row in rows
  ]
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def table_of(rows, where):
  from rich import box
  from rich import table

  made = table.Table(title=where, box=box.SIMPLE_HEAD, show_lines=True)
  for name in ('', 'what', 'measured', 'target', '', 'what bounds it'):
    made.add_column(name)
  for row in rows:
    target = '' if row.target is None else UNITS[row.unit](row.target)
    cells = row.part, row.what, row.measured(), target, row.verdict(), row.bound
    made.add_row(*cells)
  return made


def speed(console):
  """Forward and backward pass of a model against matmuls."""
  del console
  with own_process.Process(
    benchmark_speed.speed,
    pinned=on_cpu(),
    preset=PRESET.value,
    dtype=DTYPE.value,
    batch=BATCH.value,
    length=LENGTH.value,
  ) as measured:
    setting = measured.next().value
    turns = [measured.next().value for _ in range(5 * REPEATS.value)]
  work = 3 * benchmark_speed.flops(setting['count'])
  tokens = setting['batch'] * LENGTH.value

  def middle(number_of):
    return float(np.median([number_of(turn) for turn in turns]))

  peak = middle(benchmark_speed.peak)
  alone = middle(lambda t: benchmark_speed.alone(setting['count'], t))
  both = middle(lambda t: t['forward + backward'])
  step = middle(lambda t: t['train step'])
  shapes = f'{PRESET.value}, {setting["batch"]} x {LENGTH.value} tokens'
  bounds = {
    'forward + backward': (
      f'{tokens / both:,.0f} tokens/s, {work / both / 1e9:,.0f} of '
      f'{peak / 1e9:,.0f} GFLOP/s. Its matmuls, each alone, would take '
      f'{alone / both:.0%} of the time, at {work / alone / peak:.0%} of the '
      'peak; the rest is softmax, norms, activations and copies'
    ),
    'train step': (
      f'{tokens / step:,.0f} tokens/s. {1 - both / step:.0%} of it is clipping '
      f'and AdamW, of all parameters'
    ),
  }
  targets = {'forward + backward': 0.65 if setting['on_cpu'] else 0.5}
  for name, bound in bounds.items():
    yield Row(
      'a',
      f'{name} of {shapes}, {DTYPE.value}, to the matmul peak',
      [work / turn[name] / benchmark_speed.peak(turn) for turn in turns],
      '%',
      bound,
      target=targets.get(name),
      details={
        'device': setting['device'],
        'flops_of_forward_and_backward': work,
        'tokens': tokens,
        'flops_per_second_of_peak': peak,
        'seconds': {'forward + backward': both, 'train step': step},
        'seconds_of_matmuls_alone': alone,
      },
    )


def on_cpu():
  with own_process.Process(runs.platform) as asked:
    return asked.next().value == 'cpu'


def padding(console):
  """Tokens of training batches that are no padding, by the default configs."""
  del console
  configs = {
    'nlp': nlp.get_config(),
    'chess': chess.get_config(),
    'reward_modeling': reward_modeling.get_config(),
  }
  for name, config in configs.items():
    with own_process.Process(runs.padding, config=config) as measured:
      total = measured.next().value
    in_bucket = total['tokens'] / total['slots_of_rows']
    yield Row(
      'b',
      f'useful of all tokens, configs/{name}.py',
      [total['tokens'] / total['slots']],
      '%',
      f'{in_bucket:.1%} by the {config.data.num_buckets} lengths alone; then '
      'rows that fill up batches of longer ones, and the last batch',
      target=0.85,
      details=total,
    )


def triple(console):
  """A study against two plain loops of PyTorch and transformers."""
  if not all(map(importlib.util.find_spec, ('torch', 'transformers'))):
    console.print("    left out: it needs pip install '.[torch]'", markup=False)
    return
  config = small_study()
  if TABLES.value:
    for spec in config.models.values():
      spec.train.freeze = ''
  work = fetched(config)
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def side(run, **arguments):
      environment = {'JAX_PLATFORMS': 'cpu', **fresh_cache(folder)}
      process = own_process.Process(run, environment=environment, **arguments)
      return stack.enter_context(process)

    cold = side(runs.study, config=config, folder=folder / 'cold')
    whole = {'cold': cold.next().cpu + cold.next().cpu}
    cold.stop()
    sides = {
      'ours': side(runs.study, config=config, folder=folder / 'warm'),
      'one row at a time': side(torch_loops.study, padded=False, **work),
      'padded batches': side(torch_loops.study, padded=True, **work),
    }
    whole |= {name: process.next().cpu for name, process in sides.items()}
    whole['ours'] += sides['ours'].next().cpu  # loads what was compiled
    turns = [
      {name: process.next() for name, process in sides.items()}
      for _ in range(REPEATS.value)
    ]
  for name, taken in turns[-1].items():
    console.print(f'    {name}: {outcome_text(taken.value)}')
    if name != 'ours':
      whole[name] += turns[0][name].cpu
  seconds = {name: [turn[name].cpu for turn in turns] for name in sides}
  outcomes = {name: taken.value for name, taken in turns[-1].items()}
  yield from triple_rows(seconds, whole, outcomes)


def triple_rows(seconds, whole, outcomes):
  ours = np.array(seconds['ours'])
  for name, target in {'one row at a time': 3.0, 'padded batches': 1.5}.items():
    theirs = np.array(seconds[name])
    yield Row(
      'c',
      f'CPU seconds of a PyTorch study, {name}, over ours',
      (theirs / ours).tolist(),
      'x',
      f'{np.median(theirs):.0f} s over {np.median(ours):.0f} s, all compiled',
      target=target,
      details={'seconds': seconds, 'outcomes': outcomes},
    )
    yield Row(
      'c',
      f'whole processes, {name}: with start, and what is compiled loaded',
      [whole[name] / whole['ours']],
      'x',
      f'{whole[name]:.0f} s over {whole["ours"]:.0f} s; compiling it too, ours '
      f'are {whole["cold"]:.0f} s: {whole[name] / whole["cold"]:.2f}x',
      details={'seconds': whole},
    )


def small_study():
  """The default study with a supervisor of two layers, and fewer rows."""
  config = nlp.get_config('weak=minilm-l2,loss=xent')
  config.seeds = (0,)
  rows = ROWS.value
  config.data.splits.update(
    weak=rows, transfer=rows, validation=max(2, rows // 2), test=2 * rows
  )
  return config


def fetched(config):
  """Fetches what a study reads; returns it as torch_loops.study takes it."""
  from w2s_jax import hub

  with own_process.Process(runs.texts, config=config) as asked:
    data = asked.next().value
  fields = ('epochs', 'batch_size', 'learning_rate', 'warmup', 'weight_decay')
  return dict(
    folder=str(hub.folder(config.models.strong.weights)),
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


def fresh_cache(folder):
  """Environment with all that was fetched, but no compiled programs."""
  from w2s_jax import assets

  cache = folder / 'cache'
  if not cache.exists():
    cache.mkdir()
    for path in assets.cache_dir().iterdir():
      if path.name != 'xla':
        (cache / path.name).symlink_to(path)
  return {'W2S_CACHE': str(cache)}


def outcome_text(outcome):
  """'weak 70.0 %, nll 0.610; ...' on the test rows."""
  roles = ('zero_shot', 'weak', 'student', 'ceiling')
  return '; '.join(
    f'{role} {outcome[f"{role}_accuracy"]:.1%}, nll '
    f'{outcome[f"{role}_nll"]:.3f}'
    for role in roles
  )


def start(console):
  """From the start of experiments/main.py to its first training step."""
  del console
  fetched(small_study())
  here = on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    environment = fresh_cache(pathlib.Path(folder))
    started = []
    for number in range(1 + REPEATS.value):
      command = (
        f'--config={launch.ROOT}/configs/nlp.py',
        f'--workdir={folder}/{number}',
      )
      with own_process.Process(
        runs.start_up,
        pinned=here,
        environment=environment,
        command=command,
        started=time.time(),
      ) as process:
        started.append(process.next().value)
  for cache, of_it in {'empty': started[:1], 'warm': started[1:]}.items():
    parts = of_it[-1]['wall seconds of']
    values = [x['cpu' if here else 'wall'] for x in of_it]
    scale = np.median(values) / sum(parts.values())
    yield Row(
      'd',
      f'start of configs/nlp.py to its first training step, {cache} cache',
      values,
      's',
      ', '.join(
        f'{what} {UNITS["s"](seconds * scale)}'
        for what, seconds in sorted(parts.items(), key=lambda x: -x[1])
      ),
      target=5.0 if cache == 'warm' else None,
      details=of_it,
    )


def populations(console):
  """Training steps of several models side by side, against one."""
  del console
  here = on_cpu()
  batch, length = (8, 32) if here else (32, 128)
  with own_process.Process(
    benchmark_speed.populations,
    pinned=here,
    preset='minilm-l6',
    dtype='float32' if here else 'bfloat16',
    batch=batch,
    length=length,
    sizes=SIZES,
  ) as process:
    process.next()
    turns = [process.next().value for _ in range(3 * REPEATS.value)]
  one = float(np.median([turn[1] for turn in turns]))
  for size in SIZES[1:]:
    together = float(np.median([turn[size] for turn in turns]))
    yield Row(
      'e',
      f'a step of {size} minilm-l6 side by side over one, {batch} x {length} '
      'tokens each',
      [turn[size] / turn[1] for turn in turns],
      'of one',
      f'{1e3 * together:,.0f} ms over {1e3 * one:,.0f} ms, '
      f'{together / one / size:.2f} of as many single steps'
      + (': one model keeps a core busy' if here else ''),
      target=3.0 if size == 16 and not here else None,
      details=[
        {str(n): seconds for n, seconds in turn.items()} for turn in turns
      ],
    )


def probes(console):
  """Probes for ten label sources: features made once, or for each anew."""
  del console
  config, here = small_study(), on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    with own_process.Process(
      runs.probes,
      pinned=here,
      config=config,
      folder=folder,
      sources=SOURCES,
    ) as process:
      process.next()
      turns = [(process.next(), process.next()) for _ in range(REPEATS.value)]
  once, anew = (
    np.array([taken.cpu if here else taken.wall for taken in side])
    for side in zip(*turns)
  )
  # once = features + n probes, anew = n features + n probes
  features = float(np.median(anew - once)) / (SOURCES - 1)
  probe = (float(np.median(once)) - features) / SOURCES
  yield Row(
    'f',
    f'{SOURCES} label sources, features made for each over made once',
    (anew / once).tolist(),
    'x',
    f'{np.median(anew):.1f} s over {np.median(once):.1f} s: features '
    f'{features:.1f} s, and each probe {probe:.1f} s with its evaluation',
    details={'once': once.tolist(), 'anew': anew.tolist()},
  )


TABLE = {
  'a': speed,
  'b': padding,
  'c': triple,
  'd': start,
  'e': populations,
  'f': probes,
}


if __name__ == '__main__':
  launch.run(main, required=())
