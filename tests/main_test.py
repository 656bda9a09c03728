"""Mistakes end with one line before training; sweeps and suites expand."""

import json

import forked
import pytest

import tiny
import tiny_chess
import tiny_rows

# Flags with a mistake, and parts of the error line.
MISTAKES = {
  '--config=configs/nlp.py:debugg': ["'debugg'", "'debug'"],
  '--config=configs/nlp.py:strong=minilm7': ["strong='minilm7'", 'minilm-l6'],
  '--config=configs/none.py': ['configs/none.py'],
  '--config.models.strong.train.epochz=3': [
    'models.strong.train.epochz',
    "'epochs'",
  ],
  '--config.modles.strong.name=a': ['modles.strong.name', "'models'"],
  '--config.models.strong.train.epochs=two': ['models.strong.train.epochs=two'],
  '--config.models.strong.train=2': ['models.strong.train=2'],
  '--config.eval_batch_size=1.5': ['eval_batch_size=1.5'],
  '--workdirr=x': ["'workdirr'", 'workdir'],
  '--config.task=imbd': ["'imbd'", "'imdb'"],
  '--config.data.splits.weak=60000': ['data.splits.weak = 60000', 'smaller'],
  '--config.mesh.fsdp=3': ['mesh.fsdp=3', '2 devices'],
  '--config.models.strong.train.batch_size=9': [
    'models.strong.train.batch_size=9',
    'data',
  ],
  "--config.losses=('logconv',)": ["'logconv'", 'logconf'],
  '--profile=weak:9': ['--profile=weak:9', 'STAGE:FIRST-LAST'],
  '--profile=weak:9-8': ['--profile=weak:9-8', 'FIRST at most LAST'],
  '--profile=weeak:0-1': ["begins with 'weeak'", 'weak-tiny', 'ceiling-tiny'],
  '--profile=labels-of:0-1': ["no training stage begins with 'labels-of'"],
  '--profile=ceiling:0-9999': ['ceiling-', 'runs steps 0 to '],
  '--by=Rating': ['--by=Rating', 'no such field', 'label, text'],
}


@pytest.mark.parametrize('flag', MISTAKES)
def test_mistake_ends_with_one_line(flag, tmp_path):
  process = forked.run(
    'experiments/main.py',
    '--config=configs/nlp.py:debug',
    f'--workdir={tmp_path}',
    flag,
    devices=2,
  )
  assert process.returncode == 1
  (line,) = process.stderr.splitlines()
  assert line.startswith('error: ')
  assert all(words in line for words in MISTAKES[flag]), line
  assert 'Traceback' not in process.stdout
  assert not list(tmp_path.iterdir()), 'something was done before'


IMPORTS = """
import sys
from experiments import command_line, main, points
command_line.parse_flags((), sys.argv)
"""


def run_code(code, *flags):
  """Returns the lines that code prints after main.py parsed its flags."""
  code = f'{IMPORTS}\n{code}'
  process = forked.run('-c', code, *flags, '--workdir=unused')
  assert process.returncode == 0, process.stderr
  return process.stdout.splitlines()


def points(*flags):
  """Returns a line for each config that would be run."""
  code = """
from w2s_jax.models import model
for c in points.expand(sweep=main.SWEEP.value):
  names = [model.name_of(c.models[key]) for key in ('weak', 'strong')]
  print(c.task, *names, c.losses, c.seeds,
        c.data.max_length, c.data.splits.weak, c.data.splits.test)
"""
  return run_code(code, *flags)


def test_sweep_takes_every_point_with_the_arguments_of_the_config():
  config = f'--config={tiny.ROOT}/configs/nlp.py:loss=xent'
  printed = points(config, '--config.seeds=7', '--sweep')
  assert len(printed) == 8
  assert printed[0] == (
    "rotten_tomatoes bag minilm-l1 ('xent',) (7,) 64 1000 2000"
  )


NOTES = """
configs = points.expand(sweep=main.SWEEP.value)
print(*points.notes_on_weights(configs), sep='\\n')
"""


@pytest.mark.parametrize(
  'flags, says',
  [
    ([], ''),
    (['weights=asset:minilm-l6'], ''),  # as in the config
    (
      ['weights=random:gpt2'],
      'models.strong.num_layers=6, models.strong.train.learning_rate=0.0002, '
      'models.strong.train.freeze=_embed/: set for asset:minilm-l6, not for '
      'random:gpt2; override what does not fit.',
    ),
    (
      ['weights=random:gpt2', 'num_layers=-1', 'train.learning_rate=2e-4'],
      'models.strong.train.freeze=_embed/: set for asset:minilm-l6, not for '
      'random:gpt2; override what does not fit.',
    ),
    (
      ['weights=a', 'num_layers=6', 'train.learning_rate=1', 'train.freeze='],
      '',
    ),
  ],
)
def test_fields_that_were_set_for_other_weights_are_named(flags, says):
  flags = [f'--config.models.strong.{flag}' for flag in flags]
  (line,) = run_code(NOTES, f'--config={tiny.ROOT}/configs/nlp.py', *flags)
  assert line == says


def test_weights_that_a_sweep_replaces_are_not_named():
  flag = '--config.models.strong.weights=random:gpt2'
  config = f'--config={tiny.ROOT}/configs/nlp.py'
  assert run_code(NOTES, config, flag, '--sweep') == ['']


def test_a_suite_is_a_point_for_each_task_with_sizes_as_bounds():
  config = f'--config={tiny.ROOT}/configs/nlp.py:paper,loss=xent'
  printed = points(config, '--config.data.splits.weak=50')
  assert len(printed) == 22
  assert printed[0].startswith('boolq bag minilm-l6')
  assert printed[0].endswith(' 256 50 500')
  assert printed[3].endswith(' 48 50 1000')
  assert len(points(config, '--sweep')) == 22 * 8


def test_a_suite_says_what_is_not_there_and_runs_the_rest(tmp_path):
  for name, n in {'sst2': 300, 'quartz': 200, 'cola': 20}.items():
    (tmp_path / name).mkdir()
    rows = ''.join(json.dumps(row) + '\n' for row in tiny_rows.rows(name, n))
    (tmp_path / name / 'train.jsonl').write_text(rows)
    split = 'test' if name == 'quartz' else 'validation'
    (tmp_path / name / f'{split}.jsonl').write_text(rows)
  code = """
import rich.console
console = rich.console.Console(width=100)
configs = points.expand(sweep=False)
for c, _ in points.with_data(configs, console):
  print('runs', c.task)
"""
  lines = run_code(
    code,
    f'--config={tiny.ROOT}/configs/nlp.py:paper',
    f'--config.data.source=file:{tmp_path}/{{task}}/',
    *(f'--config.data.splits.{name}=40' for name in ('weak', 'transfer')),
    *(f'--config.data.splits.{name}=32' for name in ('validation', 'test')),
  )
  assert [line for line in lines if line.startswith('runs')] == [
    'runs sst2',
    'runs quartz',
  ]
  reasons = dict(
    line.removeprefix('Left out ').split(': ', 1)
    for line in lines
    if line.startswith('Left out ')
  )
  assert len(reasons) == 20
  assert 'data.splits.test = 32 needs' in reasons['cola']
  assert 'tfds build anli/r2' in reasons['anli_r2']
  assert 'python -m w2s_jax.tasks.prepare dream FOLDER' in reasons['dream']
  with pytest.raises(AssertionError, match='the data of none of the tasks'):
    run_code(
      code,
      f'--config={tiny.ROOT}/configs/nlp.py:paper',
      f'--config.data.source=file:{tmp_path}/none/{{task}}/',
    )


def test_studies_of_one_task_read_it_once(tmp_path):
  tiny_chess.write(tmp_path / 'puzzles.csv', 48)
  sizes = 'weak', 'transfer', 'validation', 'test'
  code = """
import rich.console
from w2s_jax import study
load, read = study.load_splits, []
study.load_splits = lambda c, pools: read.append(c.students) or load(c, pools)
configs = points.expand(sweep=False)
for c, (_, slices) in points.with_data(configs, rich.console.Console()):
  transfer = [x.fingerprint for x in slices[0].transfer]
  alone = [x.fingerprint for x in load(c)[1][0].transfer]
  print(c.early_stopping, len(alone), transfer[:len(alone)] == alone)
print(len(read))
"""
  lines = run_code(
    code,
    f'--config={tiny.ROOT}/configs/chess.py:debug',
    f'--config.data.source=file:{tmp_path}/puzzles.csv',
    *(f'--config.data.splits.{x}=8' for x in sizes),
  )
  assert lines[-4:] == [
    *('none 2 True', 'weak_labels 1 True', 'ground_truth 1 True'),
    '1',
  ]
