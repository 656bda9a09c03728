"""Writes experiments/TABLES.md, the tables of tasks and of models.

  python experiments/tables.py

They are made from the tables of the code and from results/zero_shot.csv, whose
figures are those of RESULTS.md. A test compares the file with what is written.
"""

import csv
import dataclasses
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import safetensors

from configs import chess as chess_config
from w2s_jax import assets
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.tasks import nlp
from w2s_jax.tasks import registry
from w2s_jax.tasks import task as task_lib

FILE = pathlib.Path(__file__).with_name('TABLES.md')
_SHIPPED = pathlib.Path(assets.__file__).with_name('data')
ZERO_SHOT = pathlib.Path(__file__).with_name('results') / 'zero_shot.csv'

# Presets of models in packages whose names differ; other assets that are no
# preset are not models.
_PRESET_OF = {'gemma3-270m': 'gemma-3-270m'}

# {start of the names of presets: (where weights are, their licence)}, as their
# publishers state it.
_PUBLISHED = {
  'bert-': ('hf:google-bert/bert-base-uncased', 'Apache-2.0'),
  'gpt2': ('hf:openai-community/gpt2', 'MIT'),
  'pythia-': ('hf:EleutherAI/pythia-70m', 'Apache-2.0'),
  'llama-2-': ('hf:meta-llama/Llama-2-7b-hf', 'Llama 2 Community License'),
  'llama-3-': ('hf:meta-llama/Meta-Llama-3-8B', 'Llama 3 Community License'),
  'llama-3.1-': ('hf:meta-llama/Llama-3.1-8B', 'Llama 3.1 Community License'),
  'llama-3.2-': ('hf:meta-llama/Llama-3.2-1B', 'Llama 3.2 Community License'),
  'mistral-': ('hf:mistralai/Mistral-7B-v0.1', 'Apache-2.0'),
  'qwen1.5-': ('hf:Qwen/Qwen1.5-0.5B', 'Tongyi Qianwen licenses'),
  'qwen2.5-': (
    'hf:Qwen/Qwen2.5-0.5B',
    'Apache-2.0; Qwen licenses for 3B and 72B',
  ),
  'qwen3-': ('hf:Qwen/Qwen3-0.6B-Base', 'Apache-2.0'),
  'gemma-2-': ('hf:google/gemma-2-2b', 'Gemma Terms of Use'),
  'gemma-3-': ('hf:google/gemma-3-270m', 'Gemma Terms of Use'),
  'smollm2-': ('hf:HuggingFaceTB/SmolLM2-135M', 'Apache-2.0'),
}

_COLUMNS = (
  *('task', 'config', 'asks', 'classes', 'tokens', 'weak', 'transfer', 'test'),
  *('paper', 'source'),
)

_HEAD = """# Tasks and models

Written by `python experiments/tables.py` from the code; a test compares.
"""

_TASKS = """
## Tasks

What class 1 answers with yes; of pairs and puzzles, which one is chosen. Sizes
are what a study takes unless its config says otherwise: tokens of a text, rows
of the supervisor, of the transfer set and of the test set. Without a source, a
task needs `--config.data.source`; `python -m w2s_jax.tasks.prepare` makes those
of `tfds:w2s/`.
"""

_MODELS = """
## Models at hand

Shipped, or in pinned packages that are fetched at the first use. Parameters are
those of the trunk, of board models with their head. Zero-shot figures are of
the named section of RESULTS.md, with its command. A classifier whose head
starts at zero is at chance.
"""

_PRESETS = """
## Presets

Sizes of published models: `random:NAME` is one of that size with random
weights, `hf:OWNER/NAME` reads published ones (extra 'hf'). Read the licence at
its publisher.
"""


def main():
  FILE.write_text(text())


def text():
  """Returns the contents of the file."""
  return ''.join(
    (
      _HEAD,
      _TASKS,
      _table(_COLUMNS, tasks()),
      _MODELS,
      _table(
        ('model', 'parameters', 'source', 'licence', 'zero-shot'), models()
      ),
      _PRESETS,
      _table(('presets', 'such as', 'licence'), families()),
    )
  )


def tasks():
  """Returns a row for each task."""
  rows = []
  for name, task in sorted(registry.TASKS.items()):
    sizes = task.sizes or _chess_sizes()
    config = {'text': 'nlp', 'pair': 'reward_modeling', 'position': 'chess'}
    rows.append(
      (
        f'`{name}`',
        config[task.inputs],
        task.asks,
        'legal moves' if task.inputs == 'position' else task.num_classes,
        sizes.max_length,
        *(f'{sizes.splits[x]:,}' for x in ('weak', 'transfer', 'test')),
        'yes' if name in nlp.PAPER else '',
        f'`{task.source}`' if task.source else '',
      )
    )
  return rows


def _chess_sizes():
  data = chess_config.get_config().data
  return task_lib.Sizes(data.max_length, **data.splits)


def models():
  """Returns a row for each model that is shipped or in packages."""
  with open(ZERO_SHOT, newline='') as file:
    measured = list(csv.DictReader(file))
  rows = []
  shipped = sorted(
    (_stored_parameters(folder), folder.name)
    for folder in _SHIPPED.iterdir()
    if (folder / 'model.safetensors').exists()
  )
  for parameters, name in shipped:
    rows.append((name, parameters, 'w2s_jax/data', 'Apache-2.0'))
  for name, asset in assets.ASSETS.items():
    preset = presets.PRESETS.get(_PRESET_OF.get(name, name))
    if preset:
      wheel = asset.wheels[0]
      source = f'{wheel.package} {wheel.version}'
      rows.append((name, num_parameters(preset), source, asset.licence))
  return [
    (
      f'`asset:{name}`',
      f'{parameters:,}',
      *others,
      '; '.join(
        f'{x["measured"]}: {x["value"]} ±{x["error"]} ("{x["section"]}")'
        for x in measured
        if x['model'] == name
      ),
    )
    for name, parameters, *others in rows
  ]


def families():
  """Returns a row for each family of presets of published models."""
  rows = []
  for start, published in _PUBLISHED.items():
    names = [f'`{x}`' for x in presets.PRESETS if x.startswith(start)]
    rows.append((', '.join(names), *published))
  return rows


def num_parameters(config):
  """Counts the parameters of a trunk from those of one layer and of two."""

  def count(num_layers):
    cut = dataclasses.replace(config, num_layers=num_layers)
    return sum(map(math.prod, pretrained.parameter_shapes(cut).values()))

  first = count(1)
  return first + (config.num_layers - 1) * (count(2) - first)


def _stored_parameters(folder):
  with safetensors.safe_open(folder / 'model.safetensors', 'numpy') as file:
    return sum(
      math.prod(file.get_slice(name).get_shape()) for name in file.keys()
    )


def _table(names, rows):
  """Returns a Markdown table."""
  lines = [names, ['---'] * len(names), *rows]
  return '\n' + ''.join(f'| {" | ".join(map(str, x))} |\n' for x in lines)


if __name__ == '__main__':
  main()
