"""experiments/TABLES.md is what the code and the results say."""

import csv
import math
import re

import pytest

from experiments import tables
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.tasks import registry

import tiny


@pytest.fixture(scope='module')
def text():
  return tables.text()


def test_the_file_is_what_the_command_writes(text):
  assert tables.FILE.read_text() == text, 'run python experiments/tables.py'


def test_every_task_is_in_the_table_once(text):
  names = re.findall(r'^\| `(\w+)` \| (?:nlp|reward|chess)', text, re.MULTILINE)
  assert sorted(names) == sorted(registry.TASKS)


def test_every_row_has_the_columns_of_its_table(text):
  for block in re.findall(r'(?:^\|.*\n)+', text, re.MULTILINE):
    assert len({line.count(' | ') for line in block.splitlines()}) == 1


@pytest.mark.parametrize('name', ['gpt2', 'board-l'])
def test_parameters_are_counted_from_two_layers(name):
  config = presets.PRESETS[name]
  shapes = pretrained.parameter_shapes(config).values()
  assert tables.num_parameters(config) == sum(map(math.prod, shapes))


def test_every_published_preset_is_in_one_family():
  for name in presets.PRESETS:
    if re.match(r'minilm|board|bag|tiny', name):
      continue
    assert sum(name.startswith(start) for start in tables._PUBLISHED) == 1, (
      f'preset {name!r} needs a row of _PUBLISHED in experiments/tables.py'
    )


def test_zero_shot_figures_are_those_of_the_results():
  results = (tiny.ROOT / 'experiments' / 'RESULTS.md').read_text()
  _, *sections = re.split(r'^##+ (.*)\n', results, flags=re.MULTILINE)
  sections = dict(zip(sections[::2], sections[1::2], strict=True))
  with open(tables.ZERO_SHOT, newline='') as file:
    rows = list(csv.DictReader(file))
  assert rows
  for row in rows:
    value, error = map(re.escape, (row['value'], row['error']))
    # In a row of a table, or in a sentence.
    pattern = rf'{value} ±{error}\b|\b{value} nats a\s[^.]*.*?error\s{error}\b'
    assert re.search(pattern, sections[row['section']], re.DOTALL), row
