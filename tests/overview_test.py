"""What is printed before a study: recipes, counts of stages and their time."""

import json
from types import SimpleNamespace

from etils import epath

from configs import nlp
from w2s_jax import graph
from w2s_jax.runtime import files
from w2s_jax.runtime import overview
from w2s_jax.runtime import workdir as workdir_lib

import tiny


def make(job, **fields):
  raise NotImplementedError


def stage(seed, rows=10, epochs=2):
  fields = dict(seed=seed, rows=[0] * rows, train={'epochs': epochs})
  return graph.Stage(f'student-seed{seed}', make, fields)


def runtime(folder):
  return workdir_lib.Runtime(
    workdir=epath.Path(folder), mesh=tiny.one_device(), console=None
  )


def finish(workdir, made, seconds):
  """Leaves a stage as if it had taken so long, and a second to compile."""
  folder = workdir / 'stages' / made.folder_name
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(made.spec))
  summary = {
    'seconds': seconds + 1.0,
    'compile_seconds': 1.0,
    'rows': len(made.fields['rows']),
  }
  files.save_record(folder / 'DONE', {'summary': summary, 'files': {}})


def test_a_line_for_the_study_and_one_for_each_model():
  config = nlp.get_config('adapt=probe')
  slices = SimpleNamespace(weak=[0] * 1000, transfer=[[0] * 4000])
  rounded = {'architecture': {'matmul_dtype': 'bfloat16'}}
  models = {
    'weak': SimpleNamespace(
      name='bag', num_parameters=33_000, identity={'architecture': {}}
    ),
    'strong': SimpleNamespace(
      name='minilm-l6', num_parameters=22_700_000, identity=rounded
    ),
  }
  assert list(overview.recipes(config, models, slices, 'runs/a')) == [
    'rotten_tomatoes: weak>strong; losses xent, logconf; seeds 0, 1, 2; '
    'to runs/a',
    '  weak: bag (33k parameters), full: 8 epochs of 1,000 rows, batch 32, '
    'learning rate 0.01',
    '  strong: minilm-l6 (22.7M parameters), probe: 12 epochs of 4,000 rows, '
    'batch 128, learning rate 0.003, matmuls in bfloat16',
  ]


def test_stages_are_counted_and_alike_ones_are_one_line(tmp_path):
  stages = [stage(0), stage(1), stage(2)]
  made = runtime(tmp_path)
  assert list(overview.stages(stages, made)) == [
    '3 stages: 0 cached, 3 to run',
    '  student (seeds 0, 1, 2)',
  ]
  (tmp_path / 'stages' / stages[1].folder_name).mkdir(parents=True)
  finish(tmp_path, stages[0], seconds=4.0)
  made = runtime(tmp_path)
  lines = overview.stages([*stages, stage(3, rows=20)], made)
  first, second, *_ = lines
  assert first == (
    '4 stages: 1 cached, 1 to resume, 2 to run; about 0:00:16 and compilation, '
    'by stages of this workdir'
  )
  assert second == '  student (seeds 1, 2)'


def test_stages_of_other_studies_tell_the_time_and_damage_does_not(tmp_path):
  finish(tmp_path, stage(7, rows=5, epochs=1), seconds=5.0)
  finish(tmp_path, stage(8), seconds=1.0)
  folder = tmp_path / 'stages' / stage(8).folder_name
  (folder / 'DONE').write_text('{')
  other = graph.Stage('other', make, {'seed': 0, 'judge': 'x'})
  line, *_ = overview.stages([stage(0), other], runtime(tmp_path))
  assert '2 to run; at least 0:00:20 and compilation' in line
  line, *_ = overview.stages([other], runtime(tmp_path))
  assert line == '1 stages: 0 cached, 1 to run'
