"""A table of numbers for consoles of any width, in which no word is broken.

Its first column holds names, and rows below them. Where that column has no room
for the names, they take lines of their own; where numbers have none, either,
each number does. All text is as it is, whatever rich markup is in it.
"""

import dataclasses
import itertools

from rich import box
from rich import padding
from rich import table as rich_table
from rich import text as rich_text

_BETWEEN = 2  # columns between two columns of a table
_MARGIN = 3  # left and right of it, and after its first column


@dataclasses.dataclass
class Table:
  """A rich renderable.

  Attributes:
    first: header of the first column.
    others: headers of the others.
    captions: lines below the table.
    left: those of `others` that are aligned to the left.
    sections: lists of (indent, text, cells); a name has no cells.
  """

  first: str
  others: tuple
  captions: list
  left: tuple = ()
  sections: list = dataclasses.field(default_factory=lambda: [[]])

  def add(self, text, cells=(), *, indent=0):
    """Adds a row, or a name."""
    self.sections[-1].append((indent, text, tuple(map(str, cells))))

  def end_section(self):
    self.sections.append([])

  def __rich_console__(self, console, options):
    rows = [row for section in self.sections for row in section]
    columns = zip(self.others, *(cells for *_, cells in rows if cells))
    widths = [max(map(_longest_line, column)) for column in columns]
    taken = sum(widths) + _BETWEEN * len(widths) + _MARGIN
    room = options.max_width - taken
    if room >= _longest_word([*rows, (0, self.first, ())]):
      yield self._whole()
    elif room >= _longest_word([row for row in rows if row[2]]):
      yield from self._names_above(room, widths)
    else:
      yield from self._cards()

  def _whole(self):
    caption = rich_text.Text('\n'.join(self.captions))
    table = rich_table.Table(
      box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption
    )
    table.add_column(self.first)
    for name in self.others:
      table.add_column(name, justify=self._justify(name), no_wrap=True)
    for section in self.sections:
      for indent, text, cells in section:
        table.add_row(_indented(indent, text), *map(rich_text.Text, cells))
      table.add_section()
    return table

  def _names_above(self, room, widths):
    """A header, then tables of the rows between two names."""
    columns = {'box': box.SIMPLE_HEAD, 'padding': (0, 1, 0, 0)}
    header = rich_table.Table(**columns)
    self._add_columns(header, room, widths)
    yield header
    for section in self.sections:
      for is_row, run in itertools.groupby(section, lambda row: bool(row[2])):
        if not is_row:
          yield from (_indented(indent + 1, text) for indent, text, _ in run)
          continue
        part = rich_table.Table(show_header=False, show_edge=False, **columns)
        self._add_columns(part, room, widths)
        for indent, text, cells in run:
          part.add_row(_indented(indent, text), *map(rich_text.Text, cells))
        yield padding.Padding(part, (0, 0, 0, 1))
      if section:
        yield ''
    yield from self._captions_below()

  def _add_columns(self, table, room, widths):
    table.add_column(self.first, width=room)
    for name, width in zip(self.others, widths):
      table.add_column(
        name, justify=self._justify(name), width=width, no_wrap=True
      )

  def _cards(self):
    wide = max(map(len, self.others)) + 1
    for section in self.sections:
      for indent, text, cells in section:
        yield _indented(indent, text)
        for name, cell in zip(self.others, cells):
          line = f'{name:<{wide}}{" ".join(cell.split())}'
          yield _indented(indent + 2, line)
      if section:
        yield ''
    yield from self._captions_below()

  def _captions_below(self):
    yield from map(rich_text.Text, self.captions)
    yield ''

  def _justify(self, name):
    return 'left' if name in self.left else 'right'


def _indented(columns, text):
  return padding.Padding(rich_text.Text(text), (0, 0, 0, columns))


def _longest_line(text):
  return max(map(len, text.splitlines() or ['']))


def _longest_word(rows):
  return max(
    (indent + len(word) for indent, text, _ in rows for word in text.split()),
    default=0,
  )
