"""Programs that a study compiles, and that a second loss adds to it."""

import pathlib
import tempfile

from experiments.benchmarks import own_process
from experiments.benchmarks import table
from experiments.benchmarks import watched

_STUDY = 'debug,task=synthetic'


def rows(options, console):
  del options, console
  here = own_process.on_cpu()
  with tempfile.TemporaryDirectory() as folder:

    def compiled(arguments, name):
      taken = watched.run(
        f'{folder}/{name}',
        pathlib.Path(folder),
        pinned=here,
        arguments=f'{_STUDY},{arguments}',
      )
      return taken['programs']

    first = compiled('loss=xent', 'xent')
    second = compiled('loss=logconf', 'logconf')
  yield table.Row(
    'h',
    'programs that configs/nlp.py:debug compiles with one loss',
    [first],
    'programs',
    'training, prediction and small ones, each for up to three lengths',
  )
  yield table.Row(
    'h',
    'programs that another loss adds, in another process',
    [second],
    'programs',
    'all are loaded from the cache of the first',
    target=0,
  )
