"""The runner: what it leaves of each stage, and the time that others need."""

import io
import time

from etils import epath
import jax
import pytest
import rich.console

from w2s_jax import graph
from w2s_jax.runtime import workdir as workdir_lib

import tiny


def slow(job, *, seconds, rows, train, **_):
  """A stage that takes `seconds` for each row and epoch."""
  with job.logger().progress(stage=job.name, total_steps=1):
    job.runtime.left_at_start[job.name] = job.runtime.schedule.left()
  time.sleep(seconds * len(rows) * train['epochs'])
  return {'rows': len(rows)}


def together(jobs, fields):
  return [slow(job, **each) for job, each in zip(jobs, fields)]


def quick(job):
  job.runtime.left_at_start[job.name] = job.runtime.schedule.left()
  return {}


def compiles(job, *, factor):
  def traced(x):
    time.sleep(0.3)
    return factor * x

  jax.jit(traced)(1.0)
  time.sleep(0.3)
  return {}


def stage(seed, rows=4, epochs=1, seconds=0.05):
  fields = dict(
    seed=seed, rows=list(range(rows)), train={'epochs': epochs}, seconds=seconds
  )
  return graph.Stage(f'slow-seed{seed}', slow, fields, together)


class Runtime(workdir_lib.Runtime):
  left_at_start = {}


def runner(folder, console=None):
  Runtime.left_at_start = {}
  return graph.Runner(
    Runtime(
      workdir=epath.Path(folder),
      mesh=tiny.one_device(),
      console=console or rich.console.Console(quiet=True),
    )
  )


def test_time_left_follows_from_finished_stages_of_the_kind(tmp_path):
  runner(tmp_path).make(cached := stage(1, epochs=5, seconds=0.02))
  end = graph.Stage('end', quick, {})
  stages = [stage(0, rows=2), stage(2), cached, stage(3, rows=4, epochs=3), end]
  made = runner(tmp_path)
  made.announce(stages)
  for each in stages:
    made.make(each)
  left = Runtime.left_at_start
  # At first by what the workdir holds: 0.02 s for each of 4 + 12 rows.
  assert left.pop('slow-seed0') == (pytest.approx(0.32, abs=0.15), False)
  assert left.pop('slow-seed2') == (pytest.approx(0.27, abs=0.15), False)
  assert left == {
    'slow-seed3': None,  # of what is left, another kind
    'end': None,  # no other stage is left
  }


def test_stages_made_together_share_their_time_and_are_not_left(tmp_path):
  made = runner(tmp_path)
  stages = [stage(0), stage(1), stage(2)]
  made.announce(stages)
  made.make(*stages[:2])
  assert Runtime.left_at_start == {'slow-seed0': None, 'slow-seed1': None}
  assert len(made.runtime.schedule.done) == 2
  assert made.runtime.schedule.left() == (pytest.approx(0.2, abs=0.1), True)


def test_resumed_stages_tell_no_time(tmp_path):
  made = runner(tmp_path)
  stages = [stage(0), stage(1)]
  made.announce(stages)
  made.runtime.folder(stages[0].folder_name).mkdir(parents=True)
  made.make(stages[0])
  assert made.runtime.schedule.done == []


def test_seconds_of_compilation_are_in_the_summary_and_no_key(tmp_path):
  output = io.StringIO()
  made = runner(tmp_path, rich.console.Console(file=output, width=100))
  described = graph.Stage('compiles', compiles, {'factor': 3})
  (finished,) = made.make(described)
  summary = finished.summary()
  assert summary['compile_seconds'] == pytest.approx(0.3, abs=0.2)
  assert summary['seconds'] >= summary['compile_seconds'] + 0.3
  assert f' ({summary["compile_seconds"]} compiling)' in output.getvalue()
  assert set(described.spec) == {'format', 'kind', 'factor'}
