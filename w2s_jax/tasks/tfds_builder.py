"""Builds data sets that TFDS lacks, from upstream files that the user provides.

  python -m w2s_jax.tasks.prepare dream FOLDER

finds the files of DREAM anywhere in FOLDER and makes tfds:w2s/dream, in the
array_record format and without TensorFlow, so that `tfds.data_source` reads it
like any other. Rows have the columns of the data set's Hugging Face version
that a task reads.
"""

from collections.abc import Callable
from collections.abc import Iterator
import csv
import functools
import math
import os
import pathlib
from typing import NamedTuple

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import files

Rows = Iterator[tuple[str, dict]]


def _rows(file: pathlib.Path) -> Rows:
  yield from files.read(str(file), '')


def _dream(file: pathlib.Path) -> Rows:
  """Yields a row per question, from [[turns], [questions], id] per dialogue."""
  for number, parts in enumerate(files.read_json(file), 1):
    origin = f'{file}: item {number}'
    try:
      dialogue, questions, _ = parts
      rows = [{'dialogue': dialogue, **question} for question in questions]
    except (TypeError, ValueError):
      raise errors.UserError(
        f'{origin}: expected [[turns], [questions], id], found '
        f'{cells.short(parts)}.'
      ) from None
    for row in rows:
      yield origin, row


def _quartz(file: pathlib.Path) -> Rows:
  for origin, row in _rows(file):
    choices = range(len(cells.items(row, 'question', 'choices')))
    columns = {
      name: [cells.field(row, 'question', 'choices', i, name) for i in choices]
      for name in ('text', 'label')
    }
    stem = cells.field(row, 'question', 'stem')
    yield origin, {**row, 'question': stem, 'choices': columns}


def _utilitarianism(file: pathlib.Path) -> Rows:
  """Yields rows of a file of two columns and no header."""
  with open(file, encoding='utf-8', newline='') as stream:
    reader = csv.reader(stream)
    for values in reader:
      origin = f'{file}:{reader.line_num}'
      if len(values) != 2:
        raise errors.UserError(f'{origin}: {len(values)} columns, expected 2.')
      yield origin, dict(zip(('baseline', 'less_pleasant'), values))


class DataSet(NamedTuple):
  where: str  # upstream keeps the files
  files: dict[str, str]  # by split; '*' may stand for what differs
  columns: dict  # types of the columns that are kept
  rows: Callable[[pathlib.Path], Rows] = _rows


def _ethics(name: str, columns: dict, rows=_rows) -> DataSet:
  splits = ('train', 'test', 'test_hard')
  names = {split: f'{name}_{split}.csv' for split in splits}
  where = 'ethics.tar of https://github.com/hendrycks/ethics'
  return DataSet(where, names, columns, rows)


def _hub(name: str, names: dict[str, str], columns: dict) -> DataSet:
  where = f'https://huggingface.co/datasets/{name}'
  return DataSet(where, names, columns)


_CHAT = [{'role': str, 'content': str}]
_LABELLED = {'label': int, 'scenario': str}

DATA_SETS = {
  'dream': DataSet(
    'https://github.com/nlpdata/dream, folder data',
    {'train': 'train.json', 'validation': 'dev.json', 'test': 'test.json'},
    {'dialogue': [str], 'question': str, 'choice': [str], 'answer': str},
    _dream,
  ),
  'ethics_justice': _ethics('justice', _LABELLED),
  'ethics_deontology': _ethics('deontology', {**_LABELLED, 'excuse': str}),
  'ethics_virtue': _ethics('virtue', _LABELLED),
  'ethics_utilitarianism': _ethics(
    'util', {'baseline': str, 'less_pleasant': str}, _utilitarianism
  ),
  'ethics_commonsense': _ethics('cm', {'label': int, 'input': str}),
  'quail': DataSet(
    'https://github.com/text-machine-lab/quail, folder quail_v1.3/json',
    {
      'train': 'train.jsonl',
      'validation': 'dev.jsonl',
      'challenge': 'challenge.jsonl',
    },
    {
      'context': str,
      'question': str,
      'answers': [str],
      'correct_answer_id': int,
    },
  ),
  'quartz': DataSet(
    'quartz-dataset-v1-aug2019.zip of https://allenai.org/data/quartz',
    {'train': 'train.jsonl', 'validation': 'dev.jsonl', 'test': 'test.jsonl'},
    {
      'question': str,
      'choices': {'text': [str], 'label': [str]},
      'answerKey': str,
      'para': str,
    },
    _quartz,
  ),
  'sciq': DataSet(
    'SciQ.zip of https://allenai.org/data/sciq',
    {'train': 'train.json', 'validation': 'valid.json', 'test': 'test.json'},
    {
      'question': str,
      'correct_answer': str,
      'distractor1': str,
      'distractor2': str,
      'distractor3': str,
      'support': str,
    },
  ),
  'hh_rlhf': _hub(
    'Anthropic/hh-rlhf, one or more of its folders',
    {'train': 'train.jsonl.gz', 'test': 'test.jsonl.gz'},
    {'chosen': str, 'rejected': str},
  ),
  'shp': _hub(
    'stanfordnlp/SHP, one or more of its folders',
    {
      'train': 'train.json',
      'validation': 'validation.json',
      'test': 'test.json',
    },
    {'history': str, 'human_ref_A': str, 'human_ref_B': str, 'labels': int},
  ),
  'ultrafeedback': _hub(
    'HuggingFaceH4/ultrafeedback_binarized, folder data',
    {
      'train_prefs': 'train_prefs-*.parquet',
      'test_prefs': 'test_prefs-*.parquet',
    },
    {
      'prompt': str,
      'chosen': _CHAT,
      'rejected': _CHAT,
      'score_chosen': float,
      'score_rejected': float,
    },
  ),
  'helpsteer2': _hub(
    'nvidia/HelpSteer2, folder preference',
    {'train': 'preference.jsonl.gz'},
    {
      'prompt': str,
      'response_1': str,
      'response_2': str,
      'three_most_similar_preferences': [{'strength': int}],
    },
  ),
  'helpsteer3': _hub(
    'nvidia/HelpSteer3, folder preference',
    {'train': 'train.jsonl.gz', 'validation': 'validation.jsonl.gz'},
    {
      'context': _CHAT,
      'response1': str,
      'response2': str,
      'individual_preference': [{'score': int}],
    },
  ),
  'alpaca_eval': DataSet(
    'https://github.com/tatsu-lab/alpaca_eval, folders in results',
    {'train': 'annotations.json'},
    {
      'instruction': str,
      'input': str,
      'output_1': str,
      'output_2': str,
      'preference': float,
    },
  ),
  'pandalm': DataSet(
    'https://github.com/WeOpenML/PandaLM, folder data',
    {'test': 'testset-v1.json'},
    {
      'instruction': str,
      'input': str,
      'response1': str,
      'response2': str,
      'annotator1': int,
      'annotator2': int,
      'annotator3': int,
    },
  ),
}


def how_to_get(name: str) -> str:
  """Returns one line on the files of a data set and how to prepare them."""
  data_set = DATA_SETS[name]
  return (
    f'put {", ".join(data_set.files.values())} of {data_set.where} into a '
    f'FOLDER and run `python -m w2s_jax.tasks.prepare {name} FOLDER`, '
    f'which makes tfds:w2s/{name}'
  )


def prepare(name: str, manual_dir: str):
  """Makes tfds:w2s/NAME, in $TFDS_DATA_DIR, from its files.

  Returns:
    The TFDS builder.

  Raises:
    UserError: unknown name, or a damaged file or row.
    MissingFileError: a file is not in `manual_dir`.
  """
  if name not in DATA_SETS:
    raise errors.UserError(
      f'{name!r} is not one of the data sets {", ".join(DATA_SETS)}.'
    )
  folder = pathlib.Path(manual_dir).expanduser()
  _find(name, folder)  # TFDS does not name a missing file
  import tensorflow_datasets as tfds

  builder = _builder_class()(
    config=name,
    data_dir=os.environ.get('TFDS_DATA_DIR'),
    file_format='array_record',
  )
  config = tfds.download.DownloadConfig(manual_dir=str(folder))
  builder.download_and_prepare(download_config=config)
  return builder


def _find(name: str, folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns the files of each split, from anywhere in the folder."""
  patterns = DATA_SETS[name].files
  found = {split: sorted(folder.rglob(p)) for split, p in patterns.items()}
  for split in found:
    if not found[split]:
      raise errors.MissingFileError(
        f'{folder} has no {patterns[split]}: {how_to_get(name)}.'
      )
  return found


@functools.cache
def _builder_class():
  """Defines the class on demand, as TFDS takes seconds to import."""
  import tensorflow_datasets as tfds

  class W2s(tfds.core.GeneratorBasedBuilder):
    """Data sets for weak-to-strong generalization that TFDS lacks."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name=name, description=data_set.where)
      for name, data_set in DATA_SETS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__

    def _info(self):
      data_set = DATA_SETS[self.builder_config.name]
      return tfds.core.DatasetInfo(
        builder=self,
        features=_feature(data_set.columns),
        homepage=data_set.where,
      )

    def _split_generators(self, dl_manager):
      folder = pathlib.Path(dl_manager.manual_dir)
      found = _find(self.builder_config.name, folder)
      return {s: self._generate_examples(f) for s, f in found.items()}

    def _generate_examples(self, found):
      data_set = DATA_SETS[self.builder_config.name]
      for file in found:
        for number, (origin, row) in enumerate(data_set.rows(file), 1):
          # Files in different folders of a data set have the same name.
          key = f'{file.parent.name}/{file.name}/{number}'
          yield key, _fit(row, data_set.columns, origin)

  return W2s


def _feature(kind):
  """Returns the TFDS feature of a type, a list of one, or a dict of them."""
  import numpy as np
  import tensorflow_datasets as tfds

  if isinstance(kind, dict):
    return tfds.features.FeaturesDict({k: _feature(v) for k, v in kind.items()})
  if isinstance(kind, list):
    return tfds.features.Sequence(_feature(kind[0]))
  scalars = {str: tfds.features.Text(), int: np.int32, float: np.float32}
  return scalars[kind]


def _fit(row: dict, columns: dict, origin: str) -> dict:
  """Returns the columns of a row that are kept, in their types.

  TFDS has no missing values: a missing score becomes NaN. What is not a text
  becomes an empty one, which a task counts as a bad row: answers of models were
  parsed upstream, so some are None or True.

  Raises:
    UserError: a value is not of its type.
  """
  try:
    return {
      name: _value({name: row.get(name)}, kind, name)
      for name, kind in columns.items()
    }
  except errors.UserError as error:
    raise errors.UserError(f'{origin}: {error}.') from error


def _value(row: dict, kind, *path):
  """Returns the value at a path of a row in its type."""
  value = cells.field(row, *path)
  if isinstance(kind, list):
    some = () if value is None else cells.items(row, *path)
    return [_value(row, kind[0], *path, i) for i, _ in enumerate(some)]
  if isinstance(kind, dict):
    return {name: _value(row, kind[name], *path, name) for name in kind}
  if kind is str:
    return cells.string(row, *path) if isinstance(value, str) else ''
  if kind is int:
    return cells.label(row, *path)
  missing = value is None or str(value).lower() == 'nan'
  return math.nan if missing else cells.number(row, *path)
