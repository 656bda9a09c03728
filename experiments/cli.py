"""The command `w2s`: starts one of the commands of this folder.

  w2s run --config=nlp --workdir=runs/nlp

is `python experiments/main.py` with the same flags. A module is imported only
when its command is chosen.
"""

import difflib
import runpy
import sys
from typing import NamedTuple


class Command(NamedTuple):
  """What the list of commands says of one."""

  module: str
  does: str
  example: str


COMMANDS = {
  'run': Command(
    'experiments.main',
    'Trains what a study needs, resumes it, and writes its report.',
    '--config=nlp:task=cola,losses=xent,logconf --workdir=runs/cola',
  ),
  'sweep': Command(
    'experiments.sweep',
    "Runs every point of a config's sweep() as a job.",
    '--config=nlp --workdir=runs/ladder --jobs=2',
  ),
  'plan': Command(
    'experiments.plan.plan',
    'Memory and time of a study on chips that are not at hand.',
    '--config=nlp:adapt=full --chip=v5p --devices=64',
  ),
  'report': Command(
    'experiments.report',
    'Writes the report of a workdir again, and prints its tables.',
    'runs/cola --by=label',
  ),
  'show': Command(
    'experiments.show',
    'What a stage was trained on, and how well it does; or all stages.',
    'runs/cola/student-logconf',
  ),
  'export': Command(
    'experiments.export',
    'Writes the model of a stage as a Hugging Face folder.',
    'runs/cola/student-logconf exported/cola',
  ),
  'doctor': Command(
    'experiments.doctor',
    'Devices, speed, disk, data and models that are at hand.',
    '',
  ),
}


def main(argv=None):
  argv = sys.argv if argv is None else argv
  name, rest = (argv[1] if len(argv) > 1 else '--help'), argv[2:]
  if name in ('--help', '-h', 'help'):
    print(listing())
    return
  if name == '--version':
    import w2s_jax

    print(w2s_jax.__version__)
    return
  if name not in COMMANDS:
    sys.exit(f'error: {unknown(name)}')
  sys.argv = [argv[0], *rest]  # run_module puts the path of the file first
  runpy.run_module(COMMANDS[name].module, run_name='__main__', alter_sys=True)


def listing():
  """Returns all commands, each with an example."""
  lines = ['Weak-to-strong generalization: w2s COMMAND ...', '']
  for name, command in COMMANDS.items():
    lines += [f'  {name:<8}{command.does}']
    lines += [f'          w2s {name} {command.example}'.rstrip()]
  return '\n'.join(
    [
      *lines,
      '',
      '`w2s run --help` has the arguments, tasks, models and losses.',
    ]
  )


def unknown(name):
  """Returns why a name is not a command, with the nearest one."""
  if name.startswith('-'):
    return f'{name} needs a command before it, as `w2s run {name}`.'
  close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{name!r} is not a command; {hint}Commands: {", ".join(COMMANDS)}.'


if __name__ == '__main__':
  main()
