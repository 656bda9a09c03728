r"""Measures training on one accelerator: MFU, tokens/s, a population.

  python experiments/benchmarks/accelerator.py --out=$OUT/accelerator.jsonl
  python experiments/benchmarks/accelerator.py --parts=a --limit=240

  d  attention by cuDNN against einsum: deviation from float32
  a  full fine-tuning of GPT-2 XL, 512 tokens: by cuDNN or einsum, with remat
  c  full fine-tuning of SmolLM2-135M, 128 and 512 tokens
  b  a population of 16 models of 10M parameters against one

All is bfloat16 with float32 parameters, on random weights and full rows. Parts
run in the order in which --parts names them, each row is written to --out as
soon as it is known, and what fails is one line. --small, the default on a CPU,
shrinks all sizes to try the script.

MFU is the FLOPs of the matmuls of a step over the bfloat16 peak of the chip
(Chowdhery et al. 2022, PaLM, appendix B): 6 x weights of matmuls x tokens, and
12 x layers x length x width x tokens for attention, without regard to its mask.
Embeddings are looked up, so they do not count; nor does what remat recomputes.
"""

import functools
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import flags

from experiments import command_line
from experiments.benchmarks import table
from w2s_jax import errors

PARTS = flags.DEFINE_list('parts', ['d', 'a', 'c', 'b'], 'Parts to run.')
SMALL = flags.DEFINE_bool('small', None, 'Small sizes; default: on a CPU.')
LIMIT = flags.DEFINE_integer(
  'limit', 360, 'Seconds after which no further program is compiled.'
)
OUT = flags.DEFINE_string('out', None, 'File for the rows as JSON lines.')


def main():
  started = time.monotonic()
  if LIMIT.value < 1:
    raise errors.UserError(f'--limit={LIMIT.value} must be at least 1.')
  # Of a GPU, read when the backend starts; the rest is for cuDNN and NCCL.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')
  import jax

  from experiments.benchmarks import deviation
  from experiments.benchmarks import training
  from w2s_jax import sharding

  parts = {
    'a': training.xl,
    'b': training.population_of_16,
    'c': training.smollm,
    'd': deviation.rows,
  }
  for part in PARTS.value:
    if part not in parts:
      names = ', '.join(sorted(parts))
      raise errors.UserError(f'--parts: {part!r} is not one of {names}.')
  device, console = jax.devices()[0], command_line.console()
  where = f'{device.device_kind}, {table.machine()}'
  console.print(where, highlight=False, soft_wrap=True)
  options = training.Options(
    mesh=sharding.make_mesh(devices=[device]),
    small=device.platform == 'cpu' if SMALL.value is None else SMALL.value,
    deadline=started + LIMIT.value,
    say=functools.partial(console.print, highlight=False, soft_wrap=True),
  )
  rows = []
  for part in dict.fromkeys(PARTS.value):
    for row in training.guarded(part, parts[part], options):
      rows.append(row)
      seconds = time.monotonic() - started
      options.say(f'{seconds:4.0f} s  ({part}) {row.what}: {row.measured()}')
      options.say(f'        {row.bound}')
      if OUT.value:
        table.write(rows, pathlib.Path(OUT.value), where)
  if not console.is_terminal:
    console.width = 140
  console.print(table.drawn(rows, where))


if __name__ == '__main__':
  command_line.run(main, required=())
