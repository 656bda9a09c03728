"""Writes metrics to a file and progress to the console.

Console output of a study on a terminal:

  [ 1/10] ✓ weak minilm-l1 seed 0                 cached
  [ 2/10] • student xent seed 0
     ━━━╸━━━━━  120/300  ETA 0:00:42  study 0:12:40  loss 0.5312  2140 ex/s

In a log file, a plain line every ten seconds replaces the bar, and every line
of a stage has the time before it. A narrow terminal shows less of the end. ETA
is the time left of the stage at the rate of its recent steps. Compilation has
no part in it: 'ETA 0:00:42, 2 to compile' says that two programs may still be
waited for. After 'study' is the time left of all stages, by that of stages of
their kind; in 'study >0:12:40' some are left out, since none of their kind was
made yet. At the end are examples and tokens, without padding, per second and,
on chips that chips.py knows, the share of their bfloat16 peak that matmuls use
(mfu).
"""

import datetime
import json
import math
import textwrap
import time

from etils import epath
from rich import progress

from w2s_jax import errors
from w2s_jax.runtime import files
from w2s_jax.runtime import pace as pace_lib
from w2s_jax.runtime import trackers

_MARKS = {
  'start': ('•', ''),
  'resume': ('↻', ''),
  'waits': ('…', 'dim'),
  'done': ('✓', 'green'),
  'cached': ('✓', 'dim'),
}
_SECONDS_BETWEEN_LINES = 10
_NARROW = 60  # columns; there names are broken at hyphens


def stage(name, status, detail='', *, console, position, total):
  """Prints one line about a stage.

  Args:
    name: name of the stage; never read as markup.
    status: a key of _MARKS.
    detail: printed after the status.
    console: a rich console; a quiet one on processes other than 0.
    position: number of the stage, from 1.
    total: number of all stages.
  """
  mark, style = _MARKS[status]
  if status in ('resume', 'cached', 'waits'):
    detail = f'{status}  {detail}'
  counter = f'[{position:>{len(str(total))}}/{total}]'
  line = f'{counter} {mark} {name:<38}  {detail}'.rstrip()
  print_line(console, _stamped(console, line), style)


def _stamped(console, line):
  """Returns a line with the time before it, where it goes to a file."""
  if console.is_terminal or console.is_jupyter:
    return line
  return f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {line}'


def print_line(console, line, style=''):
  """Prints text as it is: names may hold brackets or :colons:.

  On a terminal it is broken between words; a file has it in one line.
  """
  if console.is_terminal:
    indent = len(line) - len(line.lstrip())
    line = textwrap.fill(
      line,
      console.width,
      subsequent_indent=' ' * (indent + 4),
      break_long_words=False,
      break_on_hyphens=console.width < _NARROW,
    )
  console.print(
    line,
    style=style,
    markup=False,
    emoji=False,
    highlight=False,
    soft_wrap=True,
  )


class Logger:
  """Writes `folder/metrics.jsonl` and shows it in trackers.

  Only the primary process writes and prints. `write` buffers lines and calls
  `flush` every ten seconds, which replaces the whole file, since object stores
  (gs://) cannot append. Call `flush` before each save of a checkpoint, so that
  the file has all steps of the checkpoint.

  Args:
    study_left: of time_left.Schedule: (seconds, whether that is all) of the
      other stages of the study; None if they are not known.
    tracking: a trackers.Tracking; one without trackers by default.
  """

  def __init__(
    self,
    folder,
    *,
    console,
    is_primary,
    study_left=None,
    tracking=None,
    clock=time.monotonic,
  ):
    self._folder = epath.Path(folder)
    self._path = self._folder / 'metrics.jsonl'
    self._console = console
    self._is_primary = is_primary
    self._study_left = study_left
    self._tracking = tracking or trackers.Tracking()
    self._clock = clock
    self._flushed = clock()
    self._lines = None  # the whole file; None until the first `write`

  def truncate(self, step):
    """Continues the file of an earlier run, which resumes at `step`.

    Drops the lines of `step` and later, which are written again, and an
    incomplete last line, so that the file ends equal to that of a run without
    interruption but for times. `truncate(0)` starts over. Without a call, the
    first `write` appends to an existing file.

    Raises:
      UserError: a line is damaged.
    """
    if not self._is_primary:
      return
    self._lines = []
    if self._path.exists():
      self._lines = self._earlier_lines(step)
      self.flush()
    self._tracking.restart(self._folder, step)

  def _earlier_lines(self, step):
    kept = []
    lines = self._path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith('\n'):
      lines.pop()
    for number, line in enumerate(lines, start=1):
      try:
        logged_step = json.loads(line)['step']
      except (ValueError, KeyError, TypeError) as error:
        raise errors.UserError(
          f'{self._path}, line {number}: not a line of metrics ({error!r}). '
          'Delete the file (only the curves before the restart are lost).'
        ) from error
      if logged_step < step:
        kept.append(line)
    return kept

  def write(self, step, values):
    """Logs a dict of numbers, at full precision."""
    if not self._is_primary:
      return
    if self._lines is None:
      self.truncate(math.inf)
    values = {name: float(value) for name, value in values.items()}
    self._lines.append(json.dumps({'step': int(step), **values}) + '\n')
    self._tracking.write(self._folder, int(step), values)
    if self._clock() - self._flushed >= _SECONDS_BETWEEN_LINES:
      self.flush()

  def flush(self):
    """Saves all lines written so far."""
    if self._lines is None:
      return
    files.write_atomically(self._path, ''.join(self._lines))
    self._tracking.flush(self._folder)
    self._flushed = self._clock()

  def progress(self, *, stage, total_steps, first_step=0):
    """Returns a `Progress` for a `with` block, which flushes the log."""
    return Progress(
      stage,
      total_steps=total_steps,
      first_step=first_step,
      study_left=self._study_left,
      console=self._console if self._is_primary else None,
      clock=self._clock,
      at_exit=self.flush,
    )


class Progress:
  """Shows a live bar on a terminal, else prints a line every ten seconds."""

  def __init__(
    self,
    stage,
    *,
    total_steps,
    first_step,
    study_left,
    console,
    clock,
    at_exit,
  ):
    self._stage = stage
    self._total_steps = total_steps
    self._step = first_step
    self._study_left = study_left
    self._console = console
    self._clock = clock
    self._at_exit = at_exit
    self._pace = pace_lib.Pace(clock)
    self._printed_step = None
    self._printed_time = clock()
    self._bar = None

  def __enter__(self):
    if self._console and self._console.is_interactive:
      is_wide = self._console.width >= 100
      self._indent, self._bar_width = (9, 20) if is_wide else (2, 8)
      self._bar = progress.Progress(
        progress.TextColumn(' ' * self._indent),
        progress.BarColumn(bar_width=self._bar_width),
        progress.MofNCompleteColumn(),
        progress.TextColumn('{task.description}', markup=False),
        console=self._console,
        refresh_per_second=4,
        transient=True,
      )
      self._bar.start()
      self._task = self._bar.add_task(
        'compiling', total=self._total_steps, completed=self._step
      )
    return self

  def update(
    self,
    step,
    *,
    examples,
    tokens=0,
    peak_seconds=0.0,
    waited=False,
    compiling=0,
    **values,
  ):
    """Shows the progress.

    Args:
      step: number of finished steps, including those before a resume.
      examples, tokens, peak_seconds: since the last update, see pace.Amount.
      waited: whether a compilation was waited for, see pace.Pace.
      compiling: number of programs that are being compiled.
      **values: numbers to show by name, such as loss=0.5.

    Returns:
      The seconds since the last update; None if they say nothing.
    """
    amount = pace_lib.Amount(step - self._step, examples, tokens, peak_seconds)
    seconds = self._pace.add(amount, waited=waited)
    self._step = step
    self._status = self._describe(compiling, values)
    if self._bar:
      status = self._fitting()
      self._bar.update(self._task, completed=step, description=status)
    elif self._clock() - self._printed_time >= _SECONDS_BETWEEN_LINES:
      self._print_line()
    return seconds

  def __exit__(self, error_type, error, traceback):
    if self._bar:
      self._bar.stop()
    elif self._printed_step not in (None, self._step):
      self._print_line()  # if lines were printed, so is the end
    self._at_exit()

  def _describe(self, compiling, values):
    """Returns 'ETA 0:00:42', 'loss 0.5312', ..., at first without times."""
    rates = self._pace.per_second()
    parts = [f'{compiling} to compile'] if compiling else []
    if rates:
      left = (self._total_steps - self._step) / rates.steps
      parts = [', '.join([f'ETA {_duration(left)}', *parts])]
      if self._study_left:
        others, is_all = self._study_left
        more = '' if is_all else '>'
        parts.append(f'study {more}{_duration(left + others)}')
    parts += [f'{name} {float(value):.4f}' for name, value in values.items()]
    if rates:
      parts.append(f'{rates.examples:.0f} ex/s')
      if rates.tokens:
        parts.append(f'{_short(rates.tokens)} tok/s')
      if rates.peak_seconds:
        parts.append(f'mfu {rates.peak_seconds:.1%}')
    return parts

  def _fitting(self):
    """Returns the first parts of the status for which the bar has room."""
    room = self._console.width - self._indent - self._bar_width - 3
    room -= 2 * len(f'{self._total_steps}/')
    parts = list(self._status)
    while len('  '.join(parts)) > room and len(parts) > 1:
      parts.pop()
    return '  '.join(parts)

  def _print_line(self):
    if self._console:
      done = f'{self._step}/{self._total_steps}'
      line = f'{self._stage}  {done}  {"  ".join(self._status)}'
      print_line(self._console, _stamped(self._console, line))
    self._printed_step, self._printed_time = self._step, self._clock()


def _duration(seconds):
  return datetime.timedelta(seconds=round(seconds))


def _short(number):
  """Returns '831' or '83.1k'."""
  return f'{number:.0f}' if number < 1000 else f'{number / 1000:.1f}k'
