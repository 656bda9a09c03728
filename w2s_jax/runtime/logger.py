"""Metrics to a file, progress to the console.

The console of a study, on a terminal:

  [ 1/10] ✓ weak minilm-l1 seed 0                 cached
  [ 2/10] • student xent seed 0
          ━━━━━━━━━━╸━━━━━━━  120/300  2140 ex/s  loss 0.5312  ETA 0:42

Into a log file the bar becomes a plain line every ten seconds.
"""

import datetime
import json
import math
import time

from etils import epath
from rich import progress

from w2s_jax import errors

_MARKS = {
  'start': ('•', ''),
  'resume': ('↻', ''),
  'waits': ('…', 'dim'),
  'done': ('✓', 'green'),
  'cached': ('✓', 'dim'),
}
_SECONDS_BETWEEN_LINES = 10


def stage(name, status, detail='', *, console, position, total):
  """Prints one line on stage `position` of `total`, counted from 1.

  `status` is a key of _MARKS. Processes other than 0 pass a quiet console.
  """
  mark, style = _MARKS[status]
  if status in ('resume', 'cached', 'waits'):
    detail = f'{status}  {detail}'
  counter = f'[{position:>{len(str(total))}}/{total}]'
  _print(console, f'{counter} {mark} {name:<38}  {detail}'.rstrip(), style)


def _print(console, line, style=''):
  console.print(
    line, style=style, markup=False, highlight=False, soft_wrap=True
  )


class Logger:
  """Writes `folder/metrics.jsonl`, and TensorBoard events where asked.

  Only the primary process writes and prints. The file is always replaced as a
  whole, since object stores (gs://) cannot append: `write` keeps the line and
  calls `flush` every ten seconds. A loop which saves checkpoints calls `flush`
  before each, so that every step of a checkpoint is in the file.

  Raises:
    ValueError: TensorBoard is asked for but tensorboardX is not installed.
  """

  def __init__(
    self,
    folder,
    *,
    console,
    is_primary,
    tensorboard=False,
    clock=time.monotonic,
  ):
    self._path = epath.Path(folder) / 'metrics.jsonl'
    self._console = console
    self._is_primary = is_primary
    self._event_writer = _event_writer_class() if tensorboard else None
    self._events = None
    self._clock = clock
    self._flushed = clock()
    self._lines = None  # all of the file, once there is something to add

  def truncate(self, step):
    """Takes up the file of an earlier run which is resumed at `step`.

    Lines of `step` and later are dropped, as they will be written again, and
    so is a half-written last line: the file ends up equal to that of a run
    which was never interrupted. `truncate(0)` starts over. Without a call the
    first `write` adds to what is there.

    Raises:
      ValueError: a line is damaged.
    """
    if not self._is_primary:
      return
    self._lines = []
    if not self._path.exists():
      return
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
        self._lines.append(line)
    self.flush()

  def write(self, step, values):
    """Logs a dict of numbers, at full precision."""
    if not self._is_primary:
      return
    if self._lines is None:
      self.truncate(math.inf)
    values = {name: float(value) for name, value in values.items()}
    self._lines.append(json.dumps({'step': int(step), **values}) + '\n')
    if self._event_writer:
      # Events which a killed run wrote after this step are hidden.
      self._events = self._events or self._event_writer(
        str(self._path.parent), purge_step=step
      )
      for name, value in values.items():
        self._events.add_scalar(name, value, step)
    if self._clock() - self._flushed >= _SECONDS_BETWEEN_LINES:
      self.flush()

  def flush(self):
    """Makes everything written so far visible, and safe from a kill."""
    if self._lines is None:
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    temporary = self._path.with_name('metrics.jsonl.tmp')
    temporary.write_text(''.join(self._lines))
    temporary.replace(self._path)
    self._flushed = self._clock()

  def close(self):
    """Flushes, and ends the TensorBoard file; a later `write` opens another."""
    self.flush()
    if self._events:
      self._events.close()
      self._events = None

  def progress(self, *, stage, total_steps, first_step=0):
    """`Progress` for a `with` block; closes the logger at the block's end."""
    return Progress(
      stage,
      total_steps=total_steps,
      first_step=first_step,
      console=self._console if self._is_primary else None,
      clock=self._clock,
      at_exit=self.close,
    )


def _event_writer_class():
  try:
    import tensorboardX
  except ImportError as error:
    raise errors.UserError(
      'tensorboard=True needs tensorboardX: run `pip install tensorboardX`, '
      'or set it to False (metrics.jsonl holds the same numbers).'
    ) from error
  return tensorboardX.SummaryWriter


class Progress:
  """A live bar on a terminal, a plain line every ten seconds elsewhere.

  The rate is counted from the end of the first update on: that step compiles,
  and the steps before a resume were not done here.
  """

  def __init__(
    self, stage, *, total_steps, first_step, console, clock, at_exit
  ):
    self._stage = stage
    self._total_steps = total_steps
    self._step = first_step
    self._console = console
    self._clock = clock
    self._at_exit = at_exit
    self._first = None  # step and time of the first update
    self._examples = 0  # since then
    self._printed_step = None
    self._printed_time = clock()
    self._bar = None

  def __enter__(self):
    if self._console and self._console.is_interactive:
      self._bar = progress.Progress(
        progress.TextColumn(' ' * 9),
        progress.BarColumn(bar_width=30),
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

  def update(self, step, *, examples, **values):
    """Tells that `step` steps are done in all.

    Args:
      step: steps done, those before a resume included.
      examples: real examples in the steps since the update before.
      **values: shown by name, such as loss=0.5.
    """
    now = self._clock()
    self._step = step
    if self._first is None:
      self._first = step, now
    else:
      self._examples += examples
    self._status = self._describe(now, values)
    if self._bar:
      self._bar.update(self._task, completed=step, description=self._status)
    elif now - self._printed_time >= _SECONDS_BETWEEN_LINES:
      self._print_line(now)

  def __exit__(self, error_type, error, traceback):
    if self._bar:
      self._bar.stop()
    elif self._printed_step not in (None, self._step):
      self._print_line(self._clock())  # only what began to print is ended
    self._at_exit()

  def _describe(self, now, values):
    """'2140 ex/s  loss 0.5312  ETA 0:00:42', times once there are some."""
    parts = [f'{name} {float(value):.4f}' for name, value in values.items()]
    steps, seconds = self._step - self._first[0], now - self._first[1]
    if steps and seconds:
      left = round((self._total_steps - self._step) * seconds / steps)
      parts.insert(0, f'{self._examples / seconds:.0f} ex/s')
      parts.append(f'ETA {datetime.timedelta(seconds=left)}')
    return '  '.join(parts)

  def _print_line(self, now):
    if self._console:
      done = f'{self._step}/{self._total_steps}'
      _print(self._console, f'{self._stage}  {done}  {self._status}')
    self._printed_step, self._printed_time = self._step, now
