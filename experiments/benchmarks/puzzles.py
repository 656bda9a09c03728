"""Reads a file as large as Lichess's, and draws the paper's 50,000 a slice."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from unittest import mock

from experiments import command_line
from experiments.benchmarks import table

_SLICE = 50_000  # puzzles, as in the paper (section 3)
_COLUMNS = (
  *('PuzzleId', 'FEN', 'Moves', 'Rating', 'RatingDeviation', 'Popularity'),
  *('NbPlays', 'Themes', 'GameUrl', 'OpeningTags'),
)


def rows(options, console):
  del console
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, 'puzzles.csv')
    write(file, options.puzzles)
    command = sys.executable, '-m', __name__, str(file), str(_SLICE)
    done = subprocess.run(
      command, cwd=command_line.ROOT, stdout=subprocess.PIPE, check=True
    )
    found, size = json.loads(done.stdout), file.stat().st_size
  yield table.Row(
    'i',
    f'{options.puzzles:,} puzzles ({size / 1e9:.1f} GB) read, '
    f'{found["drawn"]:,} drawn and checked',
    [found['seconds']],
    's',
    f'{found["screening"]:.0f} s to group all rows, on all cores; then two '
    'draws, and a second reading for the drawn rows',
    target=180.0 if options.puzzles >= 5_000_000 else None,
    details=found,
  )
  yield table.Row(
    'i',
    'memory of that, all processes together',
    [found['gigabytes']],
    'GB',
    'three numbers a row, and sorting them',
    target=2.0,
  )


def write(file, count):
  """Writes puzzles in Lichess's form: ours, again and again.

  Repeated positions differ in the number of the move, and games in their link.
  """
  from w2s_jax import assets
  from w2s_jax.tasks import files

  ours = assets.path('chess-puzzles') / 'puzzles.csv.gz'
  puzzles = [row for _, row in files.read(str(ours), '')]
  with open(file, 'w') as out:
    out.write(','.join(_COLUMNS) + '\n')
    for number in range(count):
      again, place = divmod(number, len(puzzles))
      row = puzzles[place]
      fen, _, move = row['FEN'].rpartition(' ')
      cells = (
        *(f'{number:05x}', f'{fen} {int(move) + again}', row['Moves']),
        *('1500', '80', '90', '1000', row['Themes']),
        *(f'https://lichess.org/{number:08x}/black#{move}', 'Some_Opening'),
      )
      out.write(','.join(cells) + '\n')


def measure(file, size):
  """Returns seconds and memory of reading and drawing the splits of a study."""
  from configs import chess
  from w2s_jax import study
  from w2s_jax.tasks import registry

  config = chess.get_config()
  config.data.source = f'file:{file}'
  config.data.splits.update(weak=size, transfer=size)
  config.students = ('tiny>l',)
  config.seeds = (0,)
  started, screened, open_pool = time.monotonic(), [], registry.open_pool

  def timed(*args, **kwargs):
    pool = open_pool(*args, **kwargs)
    screened.append(time.monotonic() - started)
    return pool

  used = [0.0]
  threading.Thread(target=_watch_memory, args=(used,), daemon=True).start()
  with mock.patch.object(registry, 'open_pool', timed):
    evaluated, slices = study.load_splits(config)
  seconds = time.monotonic() - started
  parts = *evaluated.values(), slices[0].weak, *slices[0].transfer
  return {
    'seconds': seconds,
    'screening': screened[0],
    'drawn': sum(map(len, parts)),
    'gigabytes': max(used),
  }


def _watch_memory(used):
  """Appends the gigabytes of this process and its children, twice a second."""
  process = pathlib.Path('/proc', str(os.getpid()))
  children = process / 'task' / process.name / 'children'
  while process.exists():  # as on Linux
    gigabytes = 0.0
    for pid in (process.name, *children.read_text().split()):
      with contextlib.suppress(OSError):  # it has ended
        found = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text()
        gigabytes += int(re.search(r'Pss: *(\d+)', found)[1]) / 1e6  # of kB
    used.append(gigabytes)
    time.sleep(0.5)


if __name__ == '__main__':
  print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
