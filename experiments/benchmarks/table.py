"""Rows of the table of benchmark.py."""

import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any
from typing import NamedTuple

import numpy as np


class Options(NamedTuple):
  """Flags of benchmark.py that the parts read."""

  preset: str
  batch: int
  length: int
  dtype: str
  matmul_dtype: str
  rows: int
  repeats: int
  tables: bool
  puzzles: int


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
    if self.target == 0:
      return 'met' if self.value == 0 else 'missed'
    ratio = self.value / self.target
    missed = ratio - 1 if self.unit in FEWER else 1 - ratio
    return 'met' if missed <= 0 else f'missed by {missed:.0%}'


UNITS = {
  '%': '{:.1%}'.format,
  'x': '{:.2f}x'.format,
  's': '{:.1f} s'.format,
  'of one': '{:.2f} of one'.format,
  'tokens/s': '{:,.0f} tokens/s'.format,
  'programs': '{:.0f} programs'.format,
  'GB': '{:.2f} GB'.format,
}
FEWER = ('s', 'of one', 'programs', 'GB')  # the fewer the better


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


def drawn(rows, where):
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
