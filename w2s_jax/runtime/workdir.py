"""Folders of a study: what is done once is kept, and found again by its key.

A stage is a pure function of its spec. Its folder

  WORKDIR/stages/<name>-<key>/{config.json, ..., DONE}

carries a hash of the spec, which names the stages it reads by their keys.
DONE is written last: running again skips what is finished, resumes what is
not, and never mixes what belongs to different specs. Of several jobs that share
a workdir one makes a stage, and the others wait for it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import time
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from w2s_jax import errors
from w2s_jax import weak_labels
from w2s_jax.runtime import lock
from w2s_jax.runtime import logger as logger_lib

# Part of every key; raised when the same spec comes to mean something else.
FORMAT = 5


@dataclasses.dataclass(frozen=True)
class Stage:
  name: str
  key: str
  folder: epath.Path
  model: Any = dataclasses.field(compare=False)  # that it trained or asked
  spec: Any = dataclasses.field(compare=False, repr=False)

  def predictions(self, split):
    """Arrays ids [N], probs [N, C], label_probs [N, C] (ground truth).

    And texts [N] of a model that writes its answers.
    """
    return weak_labels.load_arrays(self.folder / 'predictions' / f'{split}.npz')

  def summary(self):
    """What the stage said of itself when done: seconds, steps, padding."""
    path = self.folder / 'DONE'
    try:
      return json.loads(path.read_text())
    except ValueError as e:
      raise errors.UserError(
        f'{path} is damaged ({e}); delete it and run again.'
      ) from e


@dataclasses.dataclass(frozen=True)
class Runtime:
  """Where stages run. Nothing in here changes a result."""

  workdir: epath.Path
  mesh: jax.sharding.Mesh
  console: Any
  eval_batch_size: int
  checkpoint_every: int
  tensorboard: bool
  num_stages: int
  counter: Any = dataclasses.field(default_factory=lambda: itertools.count(1))


def once(runtime, name, model, spec, build):
  """The stage of a spec; runs build(stage) unless it is done already."""
  (stage,) = side_by_side(
    runtime, [(name, model, spec)], lambda stages: [build(stages[0])]
  )
  return stage


def side_by_side(runtime, requests, build):
  """A tuple of the stages of some requests, each (name, model, spec).

  build({place in requests: stage}) makes those that are not done, all in one
  go, and returns their summaries in this order.
  """
  entered = [_entered(runtime, *request) for request in requests]
  with contextlib.ExitStack() as locks:
    missing = {}
    # In the order of their names, so that no two jobs wait for each other.
    for i in sorted(range(len(entered)), key=lambda i: entered[i][0].folder):
      if _is_missing(*entered[i], locks):
        missing[i] = entered[i]
    if missing:
      _build(dict(sorted(missing.items())), build)
  return tuple(stage for stage, _ in entered)


def _entered(runtime, name, model, spec):
  """(stage, what tells the console of it)."""
  spec = {'format': FORMAT, **spec}
  key = hashlib.sha256(
    json.dumps(spec, sort_keys=True, default=list).encode()
  ).hexdigest()[:12]
  folder = runtime.workdir / 'stages' / f'{name}-{key}'
  say = functools.partial(
    logger_lib.stage,
    name,
    console=runtime.console,
    position=next(runtime.counter),
    total=runtime.num_stages,
  )
  return Stage(name, key, folder, model, spec), say


def _is_missing(stage, say, locks):
  """Whether a stage has to be made here; if so its lock is held."""
  _check_same(stage)
  folder = stage.folder
  done = folder / 'DONE'
  if jax.process_index() == 0 and not done.exists():
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    locks.enter_context(
      lock.hold(
        folder / 'LOCK',
        until=done.exists,
        waiting=lambda: say('waits', 'for another job'),
      )
    )
  if agreed(done.exists()):
    if jax.process_index() == 0:  # of a job that died right after DONE
      (folder / 'LOCK').unlink(missing_ok=True)
    stage.summary()  # raises for a damaged DONE
    say('cached')
    return False
  if jax.process_index() == 0:
    say('start' if fresh else 'resume')
    # With the place where the weights lay, for loading.
    config = {**stage.spec, 'weights': stage.model.weights}
    (folder / 'config.json').write_text(
      json.dumps(config, indent=2, default=list)
    )
  barrier(f'{stage.name}-start')
  return True


def _check_same(stage):
  """Raises ValueError where processes would make different things of it."""
  if jax.process_count() == 1:
    return
  key = np.int32(int(stage.key[:7], 16))
  keys_P = multihost_utils.process_allgather(key)
  others = np.flatnonzero(keys_P != keys_P[0]).tolist()
  if others:
    raise errors.UserError(
      f'{stage.name}: processes {others} of {len(keys_P)} have other data, '
      'weights, flags or code than process 0.'
    )


def _build(missing, build):
  started = time.monotonic()
  summaries = build({i: stage for i, (stage, _) in missing.items()})
  for (stage, say), summary in zip(missing.values(), summaries, strict=True):
    barrier(f'{stage.name}-built')
    if jax.process_index() == 0:
      partial = stage.folder / 'DONE.partial'
      partial.write_text(json.dumps(summary))
      partial.replace(stage.folder / 'DONE')
    barrier(f'{stage.name}-done')
    detail = ''
    if 'validation_accuracy' in summary:
      detail = f'  validation {summary["validation_accuracy"]:.1%}'
    if 'validation_nats' in summary:
      detail = (
        f'  {summary["validation_nats_before"]:.2f} -> '
        f'{summary["validation_nats"]:.2f} nats a token'
      )
    say('done', f'{time.monotonic() - started:.1f} s{detail}')


def agreed(value):
  """The first process's answer, on all of them."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def barrier(name):
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
