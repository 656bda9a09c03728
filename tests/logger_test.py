"""Logs of killed and resumed runs, and console output."""

import io
import json
import re

import pytest
import rich.console

from w2s_jax.runtime import logger as logger_lib


class Clock:
  """A clock that tests advance."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def _make(folder, *, is_primary=True, clock=None, study_left=None, **console):
  stream = io.StringIO()
  logger = logger_lib.Logger(
    folder,
    console=rich.console.Console(file=stream, **console),
    is_primary=is_primary,
    study_left=study_left,
    clock=clock or Clock(),
  )
  return logger, stream


def _log(logger, steps):
  for step in steps:
    logger.write(
      step, {'train/loss': 1 / (step + 3), 'train/rate': 1e-5 * step}
    )


def test_lines_keep_full_precision(tmp_path):
  logger, _ = _make(tmp_path / 'stage')
  _log(logger, range(3))
  logger.flush()
  lines = (tmp_path / 'stage' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row['step'] for row in rows] == [0, 1, 2]
  assert rows[2] == {'step': 2, 'train/loss': 1 / 5, 'train/rate': 2e-5}


@pytest.mark.parametrize('cut', [0, 1, 9])
def test_resumed_file_equals_an_uninterrupted_one(tmp_path, cut):
  whole, _ = _make(tmp_path / 'whole')
  _log(whole, range(10))
  whole.flush()
  killed, _ = _make(tmp_path / 'killed')
  _log(killed, range(7))
  killed.flush()
  path = tmp_path / 'killed' / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[: -cut or None])  # an incomplete line
  resumed, _ = _make(tmp_path / 'killed')
  resumed.truncate(4)  # steps 0 to 3 are in the checkpoint
  assert len(path.read_text().splitlines()) == 4
  _log(resumed, range(4, 10))
  resumed.flush()
  expected = (tmp_path / 'whole' / 'metrics.jsonl').read_bytes()
  assert path.read_bytes() == expected


def test_truncate_to_zero_and_without_a_file(tmp_path):
  logger, _ = _make(tmp_path)
  logger.truncate(0)
  _log(logger, range(3))
  logger.flush()
  logger.truncate(0)
  assert (tmp_path / 'metrics.jsonl').read_text() == ''


def test_second_logger_appends_and_progress_keeps_the_file(tmp_path):
  first, _ = _make(tmp_path)
  _log(first, range(2))
  first.flush()
  second, _ = _make(tmp_path)
  with second.progress(stage='weak predicts', total_steps=2) as progress:
    progress.update(2, examples=2)
  assert (tmp_path / 'metrics.jsonl').read_text().count('\n') == 2
  _log(second, [2])
  second.flush()
  assert (tmp_path / 'metrics.jsonl').read_text().count('\n') == 3


def test_damaged_line_is_named(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 0}\n{"ste\n{"step": 2}\n')
  logger, _ = _make(tmp_path)
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2'):
    logger.truncate(3)


def test_write_flushes_every_ten_seconds(tmp_path):
  clock = Clock()
  logger, _ = _make(tmp_path, clock=clock)
  _log(logger, [0])
  assert not (tmp_path / 'metrics.jsonl').exists()
  clock.now += 10
  _log(logger, [1])
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 2


def test_other_processes_write_and_print_nothing(tmp_path):
  logger, stream = _make(tmp_path / 'stage', is_primary=False)
  logger.truncate(0)
  with logger.progress(stage='student', total_steps=2) as progress:
    _log(logger, range(2))
    progress.update(2, examples=8, loss=0.5)
  logger.flush()
  assert not (tmp_path / 'stage').exists()
  assert stream.getvalue() == ''


def test_progress_in_a_log_file(tmp_path):
  clock = Clock()
  logger, stream = _make(tmp_path, clock=clock, width=40)
  with logger.progress(
    stage='student xent seed 0', total_steps=300, first_step=100
  ) as progress:
    clock.now += 8  # restore and compilation; not part of the rate
    progress.update(101, examples=32, loss=0.7)
    for step in range(102, 301):
      clock.now += 0.125
      progress.update(step, examples=30, loss=0.5)
    _log(logger, [299])
  lines = without_times(stream).splitlines()
  assert lines == [
    'student xent seed 0  117/300  ETA 0:00:23  loss 0.5000  240 ex/s',
    'student xent seed 0  197/300  ETA 0:00:13  loss 0.5000  240 ex/s',
    'student xent seed 0  277/300  ETA 0:00:03  loss 0.5000  240 ex/s',
    'student xent seed 0  300/300  ETA 0:00:00  loss 0.5000  240 ex/s',
  ]
  assert '299' in (tmp_path / 'metrics.jsonl').read_text()  # flushed


def printed_lines(stage, clock, updates, tmp_path, **fields):
  """Lines of updates, each (seconds before it, fields of `update`)."""
  logger, stream = _make(tmp_path, clock=clock, **fields)
  with logger.progress(stage=stage, total_steps=10) as progress:
    for step, (seconds, values) in enumerate(updates, start=1):
      clock.now += seconds
      progress.update(step, examples=8, **values)
  return without_times(stream).splitlines()


def without_times(stream):
  """The text of a log file, of which each line begins with a time."""
  stamp = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d '
  lines = stream.getvalue().splitlines(keepends=True)
  assert all(re.match(stamp, line) for line in lines)
  return ''.join(re.sub(stamp, '', line) for line in lines)


def test_eta_leaves_out_what_was_waited_for(tmp_path):
  updates = [
    (30, {'compiling': 2}),
    (300, {'compiling': 1, 'waited': True}),
    (11, {'compiling': 1}),
    (600, {'waited': True}),
    (11, {}),
  ]
  assert printed_lines('weak', Clock(), updates, tmp_path) == [
    'weak  1/10  2 to compile',
    'weak  2/10  1 to compile',
    'weak  3/10  ETA 0:01:17, 1 to compile  1 ex/s',
    'weak  4/10  ETA 0:01:06  1 ex/s',
    'weak  5/10  ETA 0:00:55  1 ex/s',
  ]


def test_line_has_tokens_and_utilization_where_they_are_known(tmp_path):
  update = {'tokens': 50_000, 'peak_seconds': 2.0}
  *_, line = printed_lines('weak', Clock(), [(20, update)] * 3, tmp_path)
  assert line == 'weak  3/10  ETA 0:02:20  0 ex/s  2.5k tok/s  mfu 10.0%'


@pytest.mark.parametrize(
  'others, text',
  [((60, True), '0:01:30'), ((60, False), '>0:01:30'), (None, None)],
)
def test_time_left_of_the_study_has_that_of_the_stage(others, text, tmp_path):
  clock = Clock()
  logger, stream = _make(tmp_path, clock=clock, study_left=others)
  with logger.progress(stage='weak', total_steps=5) as progress:
    progress.update(1, examples=8)
    clock.now += 10
    progress.update(2, examples=8)
  study = f'  study {text}' if text else ''
  assert without_times(stream) == f'weak  2/5  ETA 0:00:30{study}  1 ex/s\n'


def test_progress_of_a_single_step_and_of_none(tmp_path):
  logger, stream = _make(tmp_path)
  with logger.progress(stage='weak', total_steps=1) as progress:
    progress.update(1, examples=8, loss=0.7)
  assert stream.getvalue() == ''  # finished before the first line
  with logger.progress(stage='weak', total_steps=1, first_step=1):
    pass
  assert stream.getvalue() == ''


def test_error_in_the_block_propagates_and_keeps_the_log(tmp_path):
  logger, stream = _make(tmp_path, force_terminal=True, force_interactive=True)
  with pytest.raises(FloatingPointError):
    with logger.progress(stage='weak', total_steps=9) as progress:
      _log(logger, [0])
      progress.update(1, examples=8, loss=0.7)
      raise FloatingPointError
  assert (tmp_path / 'metrics.jsonl').read_text().startswith('{"step": 0')
  assert stream.getvalue().endswith('\x1b[?25h\r\x1b[1A\x1b[2K')  # bar is gone


def test_live_bar_on_a_terminal(tmp_path):
  clock = Clock()
  logger, stream = _make(
    tmp_path, clock=clock, width=90, force_terminal=True, force_interactive=True
  )
  with logger.progress(stage='weak', total_steps=4) as progress:
    for step in range(1, 4):
      clock.now += 2
      progress.update(step, examples=32, loss=0.25)
  shown = stream.getvalue()
  assert '3/4' in shown and 'ETA 0:00:02  loss 0.2500  16 ex/s' in shown


def test_stage_lines():
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=50)
  logger_lib.stage(
    'weak [l1] seed 0', 'cached', console=console, position=3, total=10
  )
  logger_lib.stage(
    'student', 'done', '12.3 s', console=console, position=10, total=10
  )
  first, second = without_times(stream).splitlines()
  assert first.startswith('[ 3/10] ✓ weak [l1] seed 0  ')
  assert first.endswith('  cached')
  assert second.startswith('[10/10] ✓ student  ') and second.endswith('12.3 s')
  assert first.index('cached') == second.index('12.3')


def test_names_are_not_markup():
  name = '[red]weak[/red] [/] :cat: {x}'
  for terminal in (True, False):
    stream = io.StringIO()
    console = rich.console.Console(
      file=stream, width=120, force_terminal=terminal, force_interactive=False
    )
    logger_lib.stage(name, 'resume', name, console=console, position=1, total=1)
    assert stream.getvalue().count(name) == 2


@pytest.mark.parametrize('interactive', [True, False])
def test_names_of_progress_are_not_markup(tmp_path, interactive):
  clock = Clock()
  logger, stream = _make(
    tmp_path,
    clock=clock,
    width=120,
    force_terminal=interactive,
    force_interactive=interactive,
  )
  name = '[red]loss[/red] [/] :cat:'
  with logger.progress(stage=name, total_steps=2) as progress:
    clock.now += 20
    progress.update(1, examples=8, **{name: 0.5})
  shown = stream.getvalue()
  assert f'{name} 0.5000' in shown
  assert interactive or without_times(stream).startswith(f'{name}  1/2')


def test_log_is_shown_in_trackers(tmp_path):
  class Tracking:
    calls = []

    def restart(self, folder, step):
      self.calls.append(('restart', folder.name, step))

    def write(self, folder, step, values):
      self.calls.append((folder.name, step, sorted(values)))

    def flush(self, folder):
      self.calls.append(('flush', folder.name))

  def logger(is_primary):
    return logger_lib.Logger(
      tmp_path / 'stage',
      console=rich.console.Console(quiet=True),
      is_primary=is_primary,
      tracking=Tracking(),
    )

  _log(logger(is_primary=False), [0])
  assert Tracking.calls == []
  primary = logger(is_primary=True)
  primary.truncate(4)
  _log(primary, [4])
  primary.flush()
  assert Tracking.calls == [
    ('restart', 'stage', 4),
    ('stage', 4, ['train/loss', 'train/rate']),
    ('flush', 'stage'),
  ]


@pytest.mark.parametrize('width', [40, 80])
def test_a_terminal_breaks_no_word(width):
  stream = io.StringIO()
  console = rich.console.Console(
    file=stream, width=width, force_terminal=True, color_system=None
  )
  name = 'student-logconf-minilm-l6-probe-by-weak-seed0'
  logger_lib.stage(
    name,
    'done',
    '1.7 s  validation 72.4%',
    console=console,
    position=1,
    total=2,
  )
  lines = stream.getvalue().splitlines()
  assert max(map(len, lines)) <= width
  words = ' '.join(line.strip() for line in lines)
  assert words.replace('- ', '-').split()[2] == name
  assert '72.4%' in words.split()


@pytest.mark.parametrize('width', [40, 80])
def test_a_bar_shows_whole_parts_only(width, tmp_path):
  clock = Clock()
  logger, stream = _make(
    tmp_path,
    clock=clock,
    width=width,
    force_terminal=True,
    force_interactive=True,
    study_left=(60, True),
  )
  with logger.progress(stage='weak', total_steps=400) as progress:
    for step in range(1, 4):
      clock.now += 2
      progress.update(step, examples=32, tokens=900, loss=0.25)
  shown = stream.getvalue()
  assert 'ETA 0:13:14' in shown and '…' not in shown
  assert ('tok/s' in shown) == (width == 80)
