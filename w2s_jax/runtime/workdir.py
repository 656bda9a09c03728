"""The workdir: one folder for each stage, made once and found again by its key.

  WORKDIR/
    stages/<name>-<key>/          config.json, metrics.jsonl, checkpoints/,
                                  params/, predictions/, profile/ (a trace)
                                  and, at last, DONE
    rows/<split>-<hash>.jsonl.gz  examples of each split, labels, fields of rows
    recipes/<hash>.json           all that decides a row of results but the seed
    results.jsonl                 one row for each student and seed
    run.json, runs/, errors/      commands, versions, devices; tracebacks
    report.html, .md and .csv; figures/
    tensorboard/<stage>/          curves of each stage, see trackers.py

DONE is written last: running again skips what is finished and resumes what is
not. Of several jobs that share a workdir one makes a stage, and the others wait
for it.
"""

import contextlib
import dataclasses
import json
import time
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from w2s_jax import errors
from w2s_jax.runtime import compile_ahead
from w2s_jax.runtime import files
from w2s_jax.runtime import lock
from w2s_jax.runtime import logger as logger_lib
from w2s_jax.runtime import time_left
from w2s_jax.runtime import trackers


@dataclasses.dataclass(frozen=True)
class Finished:
  """What a stage left in its folder."""

  name: str
  key: str
  folder: epath.Path

  @classmethod
  def at(cls, folder):
    """The stage of a folder."""
    name, _, key = folder.name.rpartition('-')
    return cls(name, key, folder)

  def predictions(self, split):
    """Arrays ids [N], probs [N, C], label_probs [N, C] (ground truth).

    And texts [N] of a model that generates its answers.
    """
    return self.arrays(f'predictions/{split}.npz')

  def arrays(self, name):
    """{name: array} that `Job.save_arrays` wrote.

    Raises:
      files.DamagedError: the file is damaged, or of another stage.
    """
    path = self.folder / name
    arrays = files.load_arrays(path)
    if str(arrays.pop('stage', '')) != self.key:
      raise files.DamagedError(path, 'it belongs to another stage')
    return arrays

  def summary(self):
    """The stage summary: seconds, steps, padding, scores.

    Of its `seconds` it spent `compile_seconds` waiting for compilation.
    """
    return files.load_record(self.folder / 'DONE')['summary']

  def config(self):
    """All that decides the outcome, see graph.canonical."""
    return json.loads(verified(self.folder, 'config.json').read_text())


def verified(folder, name):
  """A file of a finished stage; DamagedError unless it is as DONE has it."""
  expected = files.load_record(folder / 'DONE')['files'].get(name)
  path = folder / name
  if not path.exists():
    raise files.DamagedError(path, 'it is missing')
  if files.sha256(path.read_bytes()) != expected:
    raise files.DamagedError(path, 'its digest is not that in DONE')
  return path


@dataclasses.dataclass(frozen=True)
class Runtime:
  """Where and how stages run. Nothing in here changes a result."""

  workdir: epath.Path
  mesh: jax.sharding.Mesh
  console: Any
  eval_batch_size: int = 32
  checkpoint_every: int = 100
  tracking: trackers.Tracking = dataclasses.field(
    default_factory=trackers.Tracking
  )
  profile: dict = dataclasses.field(default_factory=dict)  # of profiling.choose
  positions: dict = dataclasses.field(default_factory=dict)  # by folder name
  schedule: time_left.Schedule = dataclasses.field(
    default_factory=time_left.Schedule
  )

  def print(self, text):
    logger_lib.print_line(self.console, text)

  def folder(self, name):
    return self.workdir / 'stages' / name

  def is_done(self, name):
    return agreed((self.folder(name) / 'DONE').exists())

  def make(self, requests, build):
    """Stages of some requests, each (folder name, config).

    build([Job, ...]) makes those that are not done, all in one go, and returns
    their summaries in this order.
    """
    jobs = [self._job(name, config) for name, config in requests]
    work = {name: self.schedule.waiting.pop(name, None) for name, _ in requests}
    with contextlib.ExitStack() as locks:
      missing = []
      # In the order of their names, so that no two jobs wait for each other.
      for job in sorted(jobs, key=lambda job: job.folder.name):
        if started := _start(job, locks):
          missing.append(started)
      if missing:
        missing.sort(key=lambda job: self.positions.get(job.folder.name, 0))
        seconds = _build(missing, build)
        self.schedule.done += [
          (work[job.folder.name], seconds)
          for job in missing
          if work[job.folder.name] and not job.resumes
        ]
    return [Finished(job.name, job.key, job.folder) for job in jobs]

  def _job(self, name, config):
    stage_name, _, key = name.rpartition('-')
    return Job(stage_name, key, self.folder(name), config, self)

  def discard(self, name, error):
    """Forgets that a stage is done, and removes a damaged file of it."""
    folder = self.folder(name)
    self.print(f'{error.path} is damaged and made again.')
    if jax.process_index() == 0:
      (folder / 'DONE').unlink(missing_ok=True)
      if error.path.is_dir():
        error.path.rmtree()
      else:
        error.path.unlink(missing_ok=True)
    barrier(f'{name}-discarded')


@dataclasses.dataclass(frozen=True)
class Job:
  """The making of one stage."""

  name: str
  key: str
  folder: epath.Path
  config: dict  # for config.json
  runtime: Runtime
  held: Any = None  # its lock, on the first process
  resumes: bool = False  # known to the first process

  @property
  def mesh(self):
    return self.runtime.mesh

  def check_lock(self):
    """Raises lock.Lost if another job has taken over this stage."""
    if self.held:
      self.held.check()

  def logger(self):
    return logger_lib.Logger(
      self.folder,
      console=self.runtime.console,
      is_primary=jax.process_index() == 0,
      study_left=self.runtime.schedule.left(),
      tracking=self.runtime.tracking,
    )

  def add_point(self, step, values):
    """Shows what was measured before a training step, {name: number}."""
    self.runtime.tracking.add_point(self.folder, step, values)

  def save_arrays(self, name, **arrays):
    """Writes an npz of this stage; only the first process does."""
    self.check_lock()
    if jax.process_index() == 0:
      files.save_arrays(self.folder / name, stage=np.array(self.key), **arrays)

  def namesakes(self):
    """Finished stages of this name with other fields, for what they share.

    None where there are several processes, which may not see them at once.
    """
    if jax.process_count() > 1:
      return []
    safe_name = self.folder.name.rpartition('-')[0]
    others = sorted(self.folder.parent.glob(f'{safe_name}-*'))
    return [
      Finished(self.name, folder.name.rpartition('-')[2], folder)
      for folder in others
      if folder != self.folder and (folder / 'DONE').exists()
    ]

  def print(self, status, detail=''):
    positions = self.runtime.positions
    logger_lib.stage(
      self.name,
      status,
      detail,
      console=self.runtime.console,
      position=positions.get(self.folder.name, 0),
      total=len(positions),
    )


def _start(job, locks):
  """The job with its lock, if its stage has to be made here; else None."""
  _check_same(job)
  folder, held, fresh = job.folder, None, True
  done = folder / 'DONE'
  if jax.process_index() == 0 and not done.exists():
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    held = locks.enter_context(
      lock.hold(
        folder / 'LOCK',
        until=done.exists,
        waiting=lambda: job.print('waits', 'for another job'),
      )
    )
  if agreed(done.exists()):
    if jax.process_index() == 0:  # left by a job that died right after DONE
      (folder / 'LOCK').unlink(missing_ok=True)
    summary = files.load_record(done)['summary']  # raises DamagedError
    job.print('cached')
    job.runtime.tracking.finish(folder, summary)
    return None
  if jax.process_index() == 0:
    job.print('start' if fresh else 'resume')
    files.write_atomically(folder / 'config.json', pretty_json(job.config))
  barrier(f'{job.name}-start')
  return dataclasses.replace(job, held=held, resumes=not fresh)


def pretty_json(value):
  """JSON to be read by people."""
  return json.dumps(value, indent=2, default=list) + '\n'


def _check_same(job):
  """Raises UserError where processes would make different stages."""
  if jax.process_count() == 1:
    return
  key = np.int32(int(job.key[:7], 16))
  keys_P = multihost_utils.process_allgather(key)
  others = np.flatnonzero(keys_P != keys_P[0]).tolist()
  if others:
    raise errors.UserError(
      f'{job.name}: processes {others} of {len(keys_P)} have other data, '
      'weights, flags or code than process 0; give all of them the same.'
    )


def _build(jobs, build):
  """Makes stages; returns the seconds of each, without compilation."""
  started = time.monotonic()
  with compile_ahead.Stopwatch() as compiling:
    summaries = build(jobs)
  seconds, compiled = time.monotonic() - started, compiling.seconds
  times = {
    'seconds': round(seconds / len(jobs), 1),
    'compile_seconds': round(compiled / len(jobs), 1),
  }
  for job, summary in zip(jobs, summaries, strict=True):
    barrier(f'{job.name}-built')
    job.check_lock()
    if jax.process_index() == 0:
      (job.folder / 'shards').rmtree(missing_ok=True)
      digests = {
        path.name: files.sha256(path.read_bytes())
        for path in sorted(job.folder.glob('*.json'))
      }
      summary = {**times, **summary}
      # Before DONE: no other job finds the stage cached and shows it as well.
      job.runtime.tracking.finish(job.folder, summary)
      job.check_lock()
      files.save_record(
        job.folder / 'DONE', {'summary': summary, 'files': digests}
      )
    barrier(f'{job.name}-done')
    detail = ''
    if times['compile_seconds']:
      detail = f' ({compiled:.1f} compiling)'
    if 'validation_accuracy' in summary:
      detail += f'  validation {summary["validation_accuracy"]:.1%}'
    if 'validation_nats' in summary:
      detail += (
        f'  {summary["validation_nats_before"]:.2f} -> '
        f'{summary["validation_nats"]:.2f} nats/token'
      )
    job.print('done', f'{seconds:.1f} s{detail}')
  return (seconds - compiled) / len(jobs)


def agreed(value):
  """The first process's value, on all of them."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def all_agree(value):
  """Whether a condition holds on all processes."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def barrier(name):
  """Waits until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
