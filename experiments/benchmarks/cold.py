"""The default study from an empty compile cache: where its time goes."""

import pathlib
import tempfile

from experiments.benchmarks import own_process
from experiments.benchmarks import small_study
from experiments.benchmarks import table
from experiments.benchmarks import watched

# What main.py spends its time on, by what `watched` measures.
_GROUPS = {
  'Python': 'import',
  'imports': 'import',
  'tracing': 'compile',
  'compiling': 'compile',
  'rows': 'read and write',
  'models': 'read and write',
  'weights': 'read and write',
  'saving': 'read and write',
}


def rows(options, console):
  del options, console
  small_study.fetched(small_study.config_of(8))
  here = own_process.on_cpu()
  with tempfile.TemporaryDirectory() as folder:
    taken = watched.run(f'{folder}/run', pathlib.Path(folder), pinned=here)
  seconds = dict.fromkeys(('import', 'compile', 'compute', 'read and write'), 0)
  for what, wall in taken['wall seconds of'].items():
    seconds[_GROUPS.get(what, 'compute')] += wall
  total = sum(seconds.values())
  yield table.Row(
    'g',
    'configs/nlp.py, empty compile cache, start to report',
    [taken['cpu' if here else 'wall']],
    's',
    ', '.join(f'{what} {x / total:.0%}' for what, x in seconds.items())
    + f' of {total:.0f} s on the clock; {taken["programs"]} programs compiled',
    details=taken,
  )
