"""What --help prints: the flags of a command, and what --config can be.

Names of tasks, models and losses come from the tables of the code. absl's own
list, of every flag there is, is --helpfull.
"""

import importlib
import sys
import textwrap

from absl import flags

_FLAGS = {
  '--config=NAME:ARGUMENTS': 'A config of the table below, or a file.',
  '--workdir=FOLDER': 'Of results, local or gs://; the same one resumes.',
  '--config.FIELD=VALUE': 'Any field, as --config.models.strong.train.epochs=3',
}
_STUDIES = 'nlp', 'reward_modeling', 'chess'
_WIDTH = 80


def answer(argv):
  """Prints the help and exits, if argv asks for it."""
  if not {'--help', '-help', '-h'} & set(argv):
    return
  main = sys.modules['__main__']
  print(of_command(main.__doc__, flags.FLAGS.get_key_flags_for_module(argv[0])))
  sys.exit(0)


def of_command(doc, key_flags):
  """Returns the help of a command: its docstring, flags and the tables."""
  lines = [doc.strip(), '', 'Flags']
  own = {f'--{flag.name}': flag.help or '' for flag in key_flags}
  for name, text in {**_FLAGS, **own}.items():
    lines += _entry(name, ' '.join(text.split()), column=28)
  return '\n'.join([*lines, '', *tables()])


def tables():
  """Returns lines: arguments, tasks, models, losses and the like."""
  from w2s_jax import check_config
  from w2s_jax import losses
  from w2s_jax import weak_labels
  from w2s_jax.tasks import nlp
  from w2s_jax.tasks import reward

  configs = {x: importlib.import_module(f'configs.{x}') for x in _STUDIES}
  lines = ['Arguments after the colon, as --config=nlp:task=cola,adapt=probe']
  for name, config in configs.items():
    given = [
      key if value is False else f'{key}={_text(value)}'
      for key, value in config.ARGUMENTS.items()
    ]
    lines += _entry(name, ', '.join(given))
  lines += ['', 'Names']
  fields = {
    'task (nlp)': (x for x in nlp.TASKS if x not in nlp.PAPER),
    'task (paper)': nlp.PAPER,
    'task (reward)': reward.TASKS,
    'weak, strong': configs['nlp'].MODELS,
    'weak (chess)': configs['chess'].LADDER[:-1],
    'adapt': check_config.METHODS,
    'losses': losses.LOSSES,
    'weak_labels': weak_labels.TRANSFORMS,
  }
  for name, values in fields.items():
    lines += _entry(name, ', '.join(values))
  return [
    *lines,
    '',
    'Own rows   --config.data.source=file:data/cola/{split}.jsonl',
    'Own model  --config.models.strong.weights=hf:NAME, or a folder',
    'Of several losses or seeds: --config.losses=xent,logconf',
    'All fields with their meaning are in configs/base.py.',
  ]


def _entry(name, text, column=18):
  """Returns '  name  text', wrapped under text."""
  return textwrap.wrap(
    f'  {name}'.ljust(column) + text,
    _WIDTH,
    subsequent_indent=' ' * column,
    break_on_hyphens=False,
    break_long_words=False,
  )


def _text(value):
  return ','.join(value) if isinstance(value, tuple) else value
