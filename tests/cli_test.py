"""The command w2s: its commands, its help, and a line for each mistake."""

import ast
import importlib.util
import json

import forked
import pytest

from experiments import cli

import tiny

# Command, where W is a folder with `stages/` in it, and parts of its one line.
MISTAKES = {
  'swep': ["'swep' is not a command", "did you mean 'sweep'?"],
  '--config=nlp': ['w2s run --config=nlp'],
  'run': ['--config is missing', '--config=nlp --workdir=runs/nlp'],
  'run --config=nlp:debug': ['--workdir is missing'],
  'run --config=nlpp --workdir=W/a': ['--config=nlpp', "did you mean 'nlp'?"],
  'run --config=mine.py --workdir=W/a': ['mine.py: there is no such file.'],
  'run --config=nlp:task=sst --workdir=W/a': [
    "task='sst'",
    "did you mean 'sst2'?",
  ],
  'run --config=nlp:rungs=minilm-l4 --workdir=W/a': [
    "rungs='minilm-l4'",
    "did you mean 'minilm-l",
  ],
  'run --config=nlp:rungs=minilm-l6 --workdir=W/a': [
    'rungs=minilm-l6,strong=minilm-l6: a model is named twice',
  ],
  'run --config=nlp:losses= --workdir=W/a': [
    "nlp.py: config argument 'losses=': needs losses=<names>."
  ],
  'run --config=nlp:debug,losses=xent,logconv --workdir=W/a': [
    "'logconv' is not one of logconf, xent",
  ],
  'run --config=nlp:debug --config.losses=xent,logconv --workdir=W/a': [
    "'logconv' is not one of logconf, xent",
  ],
  'run --config=nlp:debug --config.students=weak>stronk --workdir=W/a': [
    "names 'stronk'; models has strong, weak",
  ],
  'run --config=nlp:debug --config.models.mid.weights=a --workdir=W/a': [
    "no field 'mid'",
    'nlp.py:rungs=NAME, one of bag, minilm-l1, ',
  ],
  'run --config=nlp --config.models.minilm-l3.num_layers=2 --workdir=W/a': [
    "no field 'minilm-l3'",
    'nlp.py:rungs=minilm-l3.',
  ],
  'run --config=reward_modeling --config.models.mid.name=a --workdir=W/a': [
    'reward_modeling.py:rungs=NAME, one of bag',
  ],
  'run --config=nlp:debug --workdir=W/a'
  ' --config.models.strong.weights=bert-base-uncased': [
    'weights=bert-base-uncased: there is no such folder',
    'did you mean hf:bert-base-uncased?',
  ],
  'run --config=nlp:debug --workdir=W/a'
  ' --config.models.strong.weights=minilm-l6': [
    'did you mean asset:minilm-l6?'
  ],
  'run --config=nlp:debug --workdir=W/a --config.models.strong.weights=gpt2': [
    'did you mean hf:gpt2 or random:gpt2?'
  ],
  'run --config=nlp:debug --workdir=W/a --config.data.source=file:W/none/': [
    'The folder W/none does not exist',
    'data.source=file:FOLDER/',
  ],
  'run --config=nlp:debug --workdir=W/a --config.data.source=file:W/none': [
    'No file or folder W/none'
  ],
  'run --config=nlp:debug --workdir=W/a --config.data.source=fiel:a': [
    "unknown kind 'fiel': did you mean 'file'?"
  ],
  'run --config=nlp:debug,adapt=prob --workdir=W/a'
  ' --config.models.strong.adapt.method=prob': [
    "adapt.method='prob' is not one of full, lora, probe"
  ],
  'run --config=nlp:debug --config.seeds=0,0 --workdir=W/a': [
    'seeds=(0, 0): a'
  ],
  'run --config=nlp:debug --workdir=W/a'
  ' --config.models.strong.train.learning_rate=-1': [
    'models.strong.train.learning_rate=-1.0 must be a finite number 0 or more'
  ],
  'sweep --config=nlp:debug --workdir=W/a --jobs=many': ['--jobs=many'],
  'plan --config=nlp:adapt=full --chip=v9': ['--chip=v9 is not one of v4'],
  'report': ['required: WORKDIR'],
  'report W/none': ['W/none: there is no such folder'],
  'report W/stages': ['has no folder stages; is it the --workdir of a run?'],
  'report W': ['results.jsonl not found: no student is trained yet'],
  'show W/student': ["0 stages of W begin with 'student'", 'weak-bag-0123'],
  'export W/none/student W/x': ['W/none: there is no such folder'],
  'doctor rotten_tomatos': ['unknown', "did you mean 'rotten_tomatoes'?"],
  'doctor --get=minilm': ["Unknown asset 'minilm'", "'minilm-l6'?"],
}


def run(*arguments):
  return forked.run('experiments/cli.py', *arguments)


@pytest.mark.parametrize('command', MISTAKES)
def test_a_mistake_is_one_line(command, tmp_path):
  (tmp_path / 'stages' / 'weak-bag-0123').mkdir(parents=True)
  done = run(*(word.replace('W', str(tmp_path)) for word in command.split()))
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: '), line
  for words in MISTAKES[command]:
    assert words.replace('W/', f'{tmp_path}/') in line or (
      words.replace(' W ', f' {tmp_path} ') in line
    ), line
  assert [path.name for path in tmp_path.iterdir()] == ['stages']


def test_the_list_of_commands_is_instant_and_has_examples():
  done = run('--help')
  assert done.returncode == 0
  for name, command in cli.COMMANDS.items():
    assert f'w2s {name} {command.example}'.strip() in done.stdout
    assert importlib.util.find_spec(command.module)
  assert max(map(len, done.stdout.splitlines())) <= 80
  tree = ast.parse((tiny.ROOT / 'experiments' / 'cli.py').read_text())
  imports = [x for x in tree.body if isinstance(x, ast.Import | ast.ImportFrom)]
  names = {alias.name for x in imports for alias in x.names}
  assert names == {'difflib', 'runpy', 'sys', 'NamedTuple'}


def test_help_of_a_run_has_the_tables_of_the_code():
  done = run('run', '--help')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert max(map(len, lines)) <= 80 and len(lines) < 80
  for words in (
    '--workdir=FOLDER',
    '--by',
    'losses          xent, logconf',
    'rungs=',
    'minilm-l6, smollm2',
    'twitter_sentiment',
    'summarize_from_feedback',
    'full, lora, probe',
  ):
    assert words in done.stdout, words
  main = forked.run('experiments/main.py', '--help')
  assert main.stdout == done.stdout


def test_the_package_starts_the_same_command():
  code = (
    'import runpy, sys; sys.argv = ["w2s_jax", "shwo"]; '
    'runpy.run_module("w2s_jax", run_name="__main__")'
  )
  done = forked.run('-c', code)
  assert "error: 'shwo' is not a command; did you mean 'show'?" in done.stderr


def test_commands_hand_on_their_arguments(tmp_path):
  flags = ['--config=nlp:debug', f'--workdir={tmp_path}', '--emit=slurm']
  done = run('sweep', *flags)
  assert done.returncode == 0, done.stderr
  assert '--config=nlp:debug' in done.stdout
  assert json.dumps('--emit') not in done.stdout
