"""From the start of experiments/main.py to its first training step."""

import pathlib
import tempfile

import numpy as np

from experiments.benchmarks import own_process
from experiments.benchmarks import small_study
from experiments.benchmarks import table
from experiments.benchmarks import watched


def rows(options, console):
  del console
  small_study.fetched(small_study.config_of(options.rows))
  here = own_process.on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    started = [
      watched.run(
        f'{folder}/{number}',
        pathlib.Path(folder),
        pinned=here,
        to_first_step=True,
      )
      for number in range(1 + options.repeats)
    ]
  for cache, of_it in {'empty': started[:1], 'warm': started[1:]}.items():
    parts = of_it[-1]['wall seconds of']
    values = [x['cpu' if here else 'wall'] for x in of_it]
    scale = np.median(values) / sum(parts.values())
    yield table.Row(
      'd',
      f'start of configs/nlp.py to its first training step, {cache} cache',
      values,
      's',
      ', '.join(
        f'{what} {table.UNITS["s"](seconds * scale)}'
        for what, seconds in sorted(parts.items(), key=lambda x: -x[1])
      ),
      target={'empty': 4.5, 'warm': 3.0}[cache],
      details=of_it,
    )
