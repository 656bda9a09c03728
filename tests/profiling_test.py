"""Traces of a few training steps."""

import dataclasses
import gzip
import json
import types

from etils import epath
import numpy as np
import population_test
import pytest
import rich.console

from w2s_jax import check_config
from w2s_jax import errors
from w2s_jax import graph
from w2s_jax import population
from w2s_jax import steps
from w2s_jax import study
from w2s_jax.runtime import profiling
from w2s_jax.runtime import workdir as workdir_lib

import tiny

SIX = [str(step) for step in range(6)]


def traced_steps(folder):
  """Numbers of the training steps in the trace of a stage."""
  assert len([*folder.glob('profile/plugins/profile/*/*.xplane.pb')]) == 1
  (path,) = folder.glob('profile/plugins/profile/*/*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  return sorted(
    event['args']['step_num']
    for event in events
    if event.get('name') == 'train' and 'step_num' in event.get('args', {})
  )


@pytest.mark.parametrize(
  'text, window',
  [
    ('student-xent:10-19', ('student-xent', 10, 19)),
    ('a:b:0-0', ('a:b', 0, 0)),
  ],
)
def test_window(text, window):
  assert profiling.parse(text) == window
  assert str(profiling.parse(text)) == f'--profile={text}'


@pytest.mark.parametrize(
  'text', ['', 'weak', 'weak:3', ':1-2', 'weak:2-1', 'weak:a-b', 'weak:1-2 ']
)
def test_what_is_no_window(text):
  with pytest.raises(errors.UserError, match='STAGE:FIRST-LAST'):
    profiling.parse(text)


@pytest.mark.parametrize('first, last', [(0, 5), (2, 3), (5, 5)])
def test_the_steps_of_the_window_are_traced_once(first, last, tmp_path):
  mesh, window = tiny.one_device(), profiling.Window('', first, last)
  plain, _ = tiny.fit(tmp_path / 'plain', mesh=mesh)
  traced, _ = tiny.fit(tmp_path / 'traced', mesh=mesh, profile=window)
  assert traced_steps(tmp_path / 'traced') == SIX[first : last + 1]
  np.testing.assert_array_equal(
    plain['head']['kernel'], traced['head']['kernel']
  )
  before = tiny.files(tmp_path / 'traced' / 'profile')
  tiny.fit(tmp_path / 'traced', mesh=mesh, profile=window)
  assert tiny.files(tmp_path / 'traced' / 'profile') == before


def test_a_stage_that_resumes_after_the_first_step_is_refused(tmp_path):
  mesh = tiny.one_device()
  with pytest.raises(tiny.MachineLost):
    stopping = tiny.stopping_logger(at_step=4)
    tiny.fit(tmp_path, mesh=mesh, logger_class=stopping, checkpoint_every=2)
  message = '--profile=weak:1-2: student runs steps [24] to 5'
  with pytest.raises(errors.UserError, match=message):
    tiny.fit(tmp_path, mesh=mesh, profile=profiling.Window('weak', 1, 2))
  assert not (tmp_path / 'profile').exists()


def test_steps_of_a_population_are_in_the_folder_of_its_member(tmp_path):
  members = [
    population_test.member(tmp_path / name, tiny.one_device(), seed=i)
    for i, name in enumerate('ab')
  ]
  members[1]['profile'] = profiling.Window('b', 7, 8)
  population.fit(tiny.network(), members)
  assert traced_steps(tmp_path / 'b') == ['7', '8']
  assert not (tmp_path / 'a' / 'profile').exists()


@pytest.fixture(scope='module')
def weak():
  """The stage of a weak supervisor, on one device."""
  config, mesh = tiny.config(), tiny.one_device()
  evaluated, slices = study.load_splits(config)
  models = check_config.build_models(config, mesh)
  described = study.describe_seeds(config, models, evaluated, slices)
  return described[0][0].weak


def runtime_of(workdir):
  return workdir_lib.Runtime(
    workdir=epath.Path(workdir),
    mesh=tiny.one_device(),
    console=rich.console.Console(quiet=True),
  )


def test_stage_of_a_study_is_traced_and_then_done(weak, tmp_path):
  def choose(text):
    window, steps_of = profiling.parse(text), steps.num_training_steps
    return profiling.choose(window, [weak], runtime_of(tmp_path), steps_of)

  total = steps.num_training_steps(weak)
  with pytest.raises(errors.UserError, match=f'runs steps 0 to {total - 1}'):
    choose(f'weak:0-{total}')
  chosen = choose(f'weak-t:1-{total - 1}')
  assert chosen == {weak.folder_name: ('weak-t', 1, total - 1)}
  runtime = dataclasses.replace(runtime_of(tmp_path), profile=chosen)
  (finished,) = graph.Runner(runtime).make(weak)
  assert finished.summary()['steps'] == total
  assert len(traced_steps(finished.folder)) == total - 1
  assert choose('weak:1-2') == {}
  (finished.folder / 'profile').rmtree()
  with pytest.raises(errors.UserError, match=f'{weak.name} is done'):
    choose('weak:1-2')


def test_the_first_stage_to_be_run_is_chosen(tmp_path):
  runtime = runtime_of(tmp_path)
  counts = {'weak-a': 3, 'weak-b': 3, 'weak-c': None, 'labels': 0}
  stages = [
    types.SimpleNamespace(name=name, folder_name=f'{name}-key')
    for name in counts
  ]

  def choose(stage, last):
    window = profiling.Window(stage, 0, last)
    return [
      *profiling.choose(window, stages, runtime, lambda x: counts[x.name])
    ]

  assert choose('weak', 2) == ['weak-a-key']
  runtime.folder('weak-a-key').mkdir(parents=True)
  (runtime.folder('weak-a-key') / 'DONE').touch()
  assert choose('weak', 2) == ['weak-b-key']
  assert choose('weak-c', 99) == ['weak-c-key']  # steps are not known yet
  with pytest.raises(errors.UserError, match='weak-b runs steps 0 to 2'):
    choose('weak', 3)
  with pytest.raises(errors.UserError, match='has weak-a, weak-b, weak-c'):
    choose('labels', 0)
