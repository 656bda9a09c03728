"""Traces a few training steps of one stage, for TensorBoard and Perfetto.

Where a stage has its trace nothing is traced again, so the command that made it
also resumes the study.
"""

import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

import jax

from w2s_jax import errors


class Window(NamedTuple):
  """Steps to trace of the first stage to be run whose name begins so."""

  stage: str
  first: int
  last: int  # included

  def __str__(self):
    return f'--profile={self.stage}:{self.first}-{self.last}'


def parse(text):
  """Returns the Window of 'STAGE:FIRST-LAST'.

  Raises:
    errors.UserError: it is none.
  """
  match = re.fullmatch(r'(.+):(\d+)-(\d+)', text)
  window = match and Window(match[1], int(match[2]), int(match[3]))
  if not window or window.first > window.last:
    raise errors.UserError(
      f'--profile={text} is not STAGE:FIRST-LAST, such as student-xent:10-19, '
      'with FIRST at most LAST.'
    )
  return window


def choose(window, stages, runtime, steps_of):
  """Returns {folder name of the stage to trace: window}; {} if it was traced.

  Args:
    stages: all graph.Stage of the study, in order.
    runtime: a workdir.Runtime.
    steps_of: stage -> number of training steps; None: not known yet.

  Raises:
    errors.UserError: no such stage is to be run, or it has other steps.
  """
  training = [stage for stage in stages if steps_of(stage) != 0]
  named = [stage for stage in training if stage.name.startswith(window.stage)]
  if not named:
    names = ', '.join(stage.name for stage in training) or 'none'
    raise errors.UserError(
      f'{window}: no training stage begins with {window.stage!r}; the study '
      f'has {names}.'
    )
  if any(_folder(runtime.folder(x.folder_name)).exists() for x in named):
    return {}
  missing = [x for x in named if not runtime.is_done(x.folder_name)]
  if not missing:
    raise errors.UserError(
      f'{window}: {named[0].name} is done and is not run again; name a stage '
      'that is to be run, or another --workdir.'
    )
  chosen = missing[0]
  _check(window, chosen.name, 0, steps_of(chosen))
  path = _folder(runtime.folder(chosen.folder_name))
  runtime.print(f'Trace of steps {window.first} to {window.last}: {path}')
  return {chosen.folder_name: window}


def _folder(stage_folder):
  return stage_folder / 'profile'


def _check(window, name, first_step, total_steps):
  outside = total_steps is not None and window.last >= total_steps
  if window.first < first_step or outside:
    raise errors.UserError(
      f'{window}: {name} runs steps {first_step} to {total_steps - 1}.'
    )


class Tracer:
  """Traces the steps of a window to STAGE_FOLDER/profile, in a `with` block."""

  def __init__(self, window, folder, name, *, first_step, total_steps):
    """Checks the window, which is None for no trace.

    Raises:
      errors.UserError: it is outside of the steps to come.
    """
    self._window, self._folder = window, _folder(folder)
    self._local = None  # the profiler cannot write to a bucket
    if window is None or self._folder.exists():
      self._window = None
      return
    _check(window, name, first_step, total_steps)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._end()

  def before(self, step, state):
    """Begins or ends the trace; `state` is what the steps before it made."""
    if self._window is None or jax.process_index() != 0:
      return
    if step == self._window.first:
      jax.block_until_ready(state)
      self._local = pathlib.Path(tempfile.mkdtemp())
      jax.profiler.start_trace(self._local)
    elif step == self._window.last + 1:
      jax.block_until_ready(state)
      self._end()

  def _end(self):
    if self._local is None:
      return
    jax.profiler.stop_trace()
    for path in filter(pathlib.Path.is_file, self._local.rglob('*')):
      target = self._folder / path.relative_to(self._local).as_posix()
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
    shutil.rmtree(self._local)
    self._local = None
