"""Shows stages in TensorBoard, Weights & Biases or MLflow.

Each stage is one run: hyper-parameters, the curves of training and of what
early_stopping.py measures, and the scores of its summary as `final/...`. The
figures of the report are a run of their own. All of it is read from the folder
of the stage, so a stage of an earlier command, or of one without trackers, is
shown as well; WORKDIR/<tracker>/finished/<stage> marks what is shown, so that
no command shows it twice.

No tracker changes a result. One that fails is reported once and then left out;
the same command, run again, adds what is missing.
"""

import collections
import importlib.util
import json
import math

from etils import epath

from w2s_jax import errors
from w2s_jax.runtime import files
from w2s_jax.runtime import lock
from w2s_jax.runtime import tracker_runs

_REPORT = 'report'  # name of the run with the figures


def parse(value):
  """Returns the names of trackers in `tracker` of a config.

  Args:
    value: 'auto', '', a name, names with commas between them, or a tuple.

  Raises:
    errors.UserError: a name is unknown.
  """
  parts = value.split(',') if isinstance(value, str) else value
  if not isinstance(parts, list | tuple):
    parts = [value]
  names = {}  # in their order, each once
  for name in parts:
    name = name.strip() if isinstance(name, str) else name
    if name == 'auto':
      if _is_installed('tensorboard'):
        names['tensorboard'] = None
    elif name in tracker_runs.RUNS:
      names[name] = None
    elif name != '':
      known = ', '.join(['auto', *tracker_runs.RUNS])
      raise errors.UserError(f"tracker={name!r} is not one of {known}, or ''.")
  return tuple(names)


def check(value):
  """Raises errors.UserError unless all trackers of a config can be used."""
  for name in parse(value):
    package = tracker_runs.RUNS[name].package
    if not _is_installed(name):
      raise errors.MissingPackageError(
        f'tracker={name!r} needs the package {package}: run `pip install '
        f'{package}`, or leave it out (metrics.jsonl has the same curves).'
      )
    tracker_runs.RUNS[name].check()


def _is_installed(name):
  return importlib.util.find_spec(tracker_runs.RUNS[name].package) is not None


class Tracking:
  """Shows the stages of a workdir in some trackers; only in one process.

  Every method does nothing without trackers.
  """

  def __init__(self, names=(), workdir=None, console=None):
    """Initializes without a run.

    Args:
      names: of `parse`; () on processes other than 0.
      console: a rich console, for warnings.
    """
    self._names = list(names)
    self._workdir = epath.Path(workdir) if names else None
    self._console = console
    self._runs = {}  # (tracker, folder name) -> run that is not finished
    self._points = collections.defaultdict(list)  # folder name -> not shown yet

  def restart(self, folder, step):
    """Shows a stage from its start; training goes on at `step`."""
    self._points.pop(folder.name, None)
    self._each(lambda name: self._restart(name, folder, step))

  def _restart(self, name, folder, step):
    if old := self._runs.pop((name, folder.name), None):
      old.close(finished=False)
    self._mark(name, folder.name).unlink(missing_ok=True)
    self._runs[name, folder.name] = self._show(name, folder, step)

  def write(self, folder, step, values):
    """Shows the metrics of a training step, {name: number}."""
    points = self._points[folder.name] if self._names else []
    due = [point for point in points if point[0] <= step]
    points[:] = [point for point in points if point[0] > step]

    def show(name):
      run = self._runs[name, folder.name]
      for each in (*due, (step, values)):
        run.write(*each)

    self._each(show)

  def add_point(self, folder, step, values):
    """Shows what was measured before a step, once earlier steps are shown.

    Of a stage that does not train any more `finish` reads it from its files.
    """
    if any((name, folder.name) in self._runs for name in self._names):
      self._points[folder.name].append((step, values))

  def flush(self, folder):
    """Makes all of a stage visible that was written so far."""

    def flush(name):
      if run := self._runs.get((name, folder.name)):
        run.flush()

    self._each(flush)

  def finish(self, folder, summary):
    """Shows what is missing of a stage that is made; all of it, if need be."""
    points = self._points.pop(folder.name, [])
    self._each(lambda name: self._finish(name, folder, summary, points))

  def _finish(self, name, folder, summary, points):
    mark = self._mark(name, folder.name)
    if mark.exists():
      return
    mark.parent.mkdir(parents=True, exist_ok=True)
    # Several jobs may find one stage cached at the same time.
    path = mark.with_name(f'{mark.name}.LOCK')
    with lock.hold(path, until=mark.exists) as held:
      if held is None:
        return
      run = self._runs.pop((name, folder.name), None)
      if run is None:
        run = self._show(name, folder, math.inf)
      else:
        for point in points:
          run.write(*point)
      scores = {
        f'final/{key}': value
        for key, value in summary.items()
        if isinstance(value, int | float)
      }
      run.write(summary.get('steps', 0), scores)
      run.close(finished=True)
      files.write_atomically(mark, '')

  def show_figures(self):
    """Shows WORKDIR/figures, unless they are shown already."""

    def show(name):
      paths = sorted((self._workdir / 'figures').glob('*.png'))
      pngs = {path.stem: path.read_bytes() for path in paths}
      digests = {stem: files.sha256(png) for stem, png in pngs.items()}
      state, mark = files.to_json(digests), self._mark(name, _REPORT)
      if not pngs or (mark.exists() and mark.read_text() == state):
        return
      run = tracker_runs.RUNS[name](self._workdir, _REPORT, {})
      for stem, png in pngs.items():
        run.image(stem, png)
      run.close(finished=True)
      files.write_atomically(mark, state)

    self._each(show)

  def close(self):
    """Closes the runs of stages that are not finished."""

    def close(name):
      for key in [key for key in self._runs if key[0] == name]:
        self._runs.pop(key).close(finished=False)

    self._each(close)

  def _show(self, name, folder, before):
    """Opens a run and writes all of a stage before a step to it."""
    fields = hyper_parameters(folder)
    run = tracker_runs.RUNS[name](self._workdir, folder.name, fields)
    for step, values in logged(folder, before):
      run.write(step, values)
    return run

  def _mark(self, name, run):
    return self._workdir / name / 'finished' / run

  def _each(self, show):
    """Calls show(name) of each tracker, and drops one that fails."""
    for name in list(self._names):
      try:
        show(name)
      except Exception as error:  # of any library
        self._names.remove(name)
        reason = ' '.join(str(error).split()) or type(error).__name__
        self._console.print(
          f'Warning: tracker {name} is left out from here on: {reason}. '
          'Results do not change; the same command adds what is missing.',
          markup=False,
          highlight=False,
          soft_wrap=True,
        )


def hyper_parameters(folder):
  """{name: value} of a training stage, always the same names; else {}."""
  path = folder / 'config.json'
  config = json.loads(path.read_text()) if path.exists() else {}
  train = config.get('train')
  if not train:
    return {}
  architecture = (config.get('model') or {}).get('architecture', {})
  return {
    'stage': folder.name.rpartition('-')[0].partition('-seed')[0],
    'seed': config.get('seed', 0),
    'weights': config.get('weights', ''),
    'num_layers': architecture.get('num_layers', 0),
    'labels': _function_name((config.get('labels') or {}).get('function')),
    'loss': _function_name(config.get('loss')),
    'loss_args': files.to_json(config.get('loss_args') or {}),
    'lora_rank': (config.get('lora') or {}).get('rank', 0),
    **{f'train.{name}': value for name, value in train.items()},
  }


def _function_name(function):
  """Its name in config.json, where a partial one is a list; '' without."""
  if isinstance(function, list):
    function = function[0]
  return (function or {}).get('name', '')


def logged(folder, before=math.inf):
  """Returns [(step, {name: number}), ...] of a stage, in their order."""
  rows, path = [], folder / 'metrics.jsonl'
  if path.exists():
    for line in path.read_text().splitlines():
      values = json.loads(line)
      rows.append((values.pop('step'), values))
  total_steps = rows[-1][0] + 1 if rows else 0
  rows = _measured(folder, total_steps) + rows
  return sorted((r for r in rows if r[0] < before), key=lambda row: row[0])


def _measured(folder, total_steps):
  """The points that early_stopping.Watch left, or leaves while it trains."""

  def read(name):
    path = folder / name
    return json.loads(path.read_text()) if path.exists() else None

  measured = read('snapshots/measured.json') or {}
  curve = read('curve.json') or [*measured.get('curve', {}).values()]
  agreement = read('early_stopping.json') or measured.get('agreement', {})
  points = [(point['step'], curve_values(point)) for point in curve]
  for name, value in agreement.items():
    step = total_steps if name == 'end' else int(name)
    points.append((step, judge_values(value)))
  return points


def curve_values(point):
  """The names in trackers of a point of early_stopping.Watch's curve."""
  return {f'test/{name}': x for name, x in point.items() if name != 'step'}


def judge_values(agreement):
  """The name in trackers of the agreement that early stopping measures."""
  return {'validation/label_agreement': agreement}
