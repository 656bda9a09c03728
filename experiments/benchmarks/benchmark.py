r"""Measures speed, as ratios within one run.

  python experiments/benchmarks/benchmark.py
  python experiments/benchmarks/benchmark.py --parts=a --preset=gpt2-xl \
      --length=512 --dtype=bfloat16
  pip install '.[torch]'  # part c needs it

  a  forward and backward pass against the fastest matmul of this machine
  b  share of tokens that are not padding
  c  a study against three plain loops of PyTorch and transformers
  d  from the start of experiments/main.py to the first training step
  e  training steps of 4 and 16 models side by side against one
  f  probes for ten label sources on features that are computed once
  g  configs/nlp.py from an empty compile cache: where its time goes
  h  programs that a first and a second loss compile
  i  splits of a study drawn from as many puzzles as Lichess has

On a CPU everything runs on one core and one thread and is measured in CPU
seconds; compared programs alternate, and the range is over these turns. On an
accelerator parts a, d, e, f and g run there and count wall seconds.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from experiments import command_line
from experiments.benchmarks import cold
from experiments.benchmarks import compilations
from experiments.benchmarks import loops
from experiments.benchmarks import padding
from experiments.benchmarks import population
from experiments.benchmarks import probes
from experiments.benchmarks import puzzles
from experiments.benchmarks import speed
from experiments.benchmarks import start
from experiments.benchmarks import table
from w2s_jax import errors

PARTS = flags.DEFINE_list('parts', [], 'Parts to run; default: all.')
PRESET = flags.DEFINE_string('preset', 'minilm-l6', 'Model of part a.')
BATCH = flags.DEFINE_integer(
  'batch', 0, 'Batch size of part a; 0: the largest that fits.'
)
LENGTH = flags.DEFINE_integer('length', 64, 'Tokens per row in part a.')
DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of part a.'
)
MATMUL_DTYPE = flags.DEFINE_enum(
  'matmul_dtype',
  '',
  ['', 'bfloat16'],
  'Of our side in parts a and c: see matmul_dtype of configs/base.py.',
)
TABLES = flags.DEFINE_bool(
  'tables',
  True,
  'Train the embeddings too, as the public code does, in part c.',
)
ROWS = flags.DEFINE_integer('rows', 200, 'Rows of each half in parts c and f.')
REPEATS = flags.DEFINE_integer('repeats', 3, 'Number of turns.')
PUZZLES = flags.DEFINE_integer(
  'puzzles', 5_000_000, 'Rows of the file of part i.'
)
OUT = flags.DEFINE_string('out', None, 'File for the rows as JSON lines.')

MODULES = {
  'a': speed,
  'b': padding,
  'c': loops,
  'd': start,
  'e': population,
  'f': probes,
  'g': cold,
  'h': compilations,
  'i': puzzles,
}


def main():
  chosen = PARTS.value or list(MODULES)
  for part in chosen:
    if part not in MODULES:
      raise errors.UserError(
        f'--parts: {part!r} is not one of {", ".join(MODULES)}.'
      )
  for flag in (ROWS, REPEATS, LENGTH, PUZZLES):
    if flag.value < 1:
      raise errors.UserError(f'--{flag.name}={flag.value} must be at least 1.')
  console = command_line.console()
  options = table.Options(
    preset=PRESET.value,
    batch=BATCH.value,
    length=LENGTH.value,
    dtype=DTYPE.value,
    matmul_dtype=MATMUL_DTYPE.value,
    rows=ROWS.value,
    repeats=REPEATS.value,
    tables=TABLES.value,
    puzzles=PUZZLES.value,
  )
  before, rows = os.getloadavg()[0], []
  for part in dict.fromkeys(chosen):
    what = MODULES[part].__doc__.splitlines()[0]
    console.print(f'({part}) {what}', highlight=False, soft_wrap=True)
    for row in MODULES[part].rows(options, console):
      rows.append(row)
      line = f'    {row.what}: {row.measured()}'
      console.print(line, highlight=False, soft_wrap=True)
  where = f'{table.machine()}, load {before:.1f} to {os.getloadavg()[0]:.1f}'
  if OUT.value:
    table.write(rows, pathlib.Path(OUT.value), where)
  if not console.is_terminal:
    console.width = 140
  console.print(table.drawn(rows, where))


if __name__ == '__main__':
  command_line.run(main, required=())
