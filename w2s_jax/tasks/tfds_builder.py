"""Data sets that TFDS lacks, from upstream files that you put in place.

  python -m w2s_jax.tasks.prepare dream FOLDER

makes the files of DREAM that are anywhere in FOLDER into tfds:w2s/dream, in the
array_record format and without TensorFlow, so that `tfds.data_source` serves it
as any other. Rows have the columns of the data set's Hugging Face version, as
far as a task reads them.
"""

from collections.abc import Callable
from collections.abc import Iterator
import csv
import functools
import os
import pathlib
from typing import NamedTuple

from w2s_jax import errors
from w2s_jax.tasks import files


def _rows(file: pathlib.Path) -> Iterator[dict]:
  for _, row in files.read(str(file), ''):
    yield row


def _dream(file: pathlib.Path) -> Iterator[dict]:
  """[[turns], [questions], id] of each dialogue."""
  for dialogue, questions, _ in files.read_json(file):
    for question in questions:
      yield {'dialogue': dialogue, **question}


def _quartz(file: pathlib.Path) -> Iterator[dict]:
  for row in _rows(file):
    choices = row['question']['choices']
    names = ('text', 'label')
    columns = {name: [choice[name] for choice in choices] for name in names}
    yield {**row, 'question': row['question']['stem'], 'choices': columns}


def _utilitarianism(file: pathlib.Path) -> Iterator[dict]:
  """Two columns and no header."""
  with open(file, encoding='utf-8', newline='') as stream:
    for better, worse in csv.reader(stream):
      yield {'baseline': better, 'less_pleasant': worse}


class DataSet(NamedTuple):
  where: str  # upstream has the files
  files: dict[str, str]  # by split; '*' may stand for what differs
  columns: dict  # types of what is kept
  rows: Callable[[pathlib.Path], Iterator[dict]] = _rows


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
  """One line on the files of a data set and the command that prepares them."""
  data_set = DATA_SETS[name]
  return (
    f'put {", ".join(data_set.files.values())} of {data_set.where} into a '
    f'FOLDER and run `python -m w2s_jax.tasks.prepare {name} FOLDER`, '
    f'which makes tfds:w2s/{name}'
  )


def prepare(name: str, manual_dir: str):
  """Makes tfds:w2s/NAME, in $TFDS_DATA_DIR, out of its files.

  Returns the builder.

  Raises:
    ValueError: unknown name, or a damaged file or row.
    FileNotFoundError: a file is not in `manual_dir`.
  """
  if name not in DATA_SETS:
    raise errors.UserError(
      f'{name!r} is not one of the data sets {", ".join(DATA_SETS)}.'
    )
  folder = pathlib.Path(manual_dir).expanduser()
  _find(name, folder)  # TFDS would say of a missing file only where it failed
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
  """The files of each split, anywhere in the folder."""
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
  """Defined on demand, for TFDS takes seconds to import."""
  import tensorflow_datasets as tfds

  class W2s(tfds.core.GeneratorBasedBuilder):
    """What studies of weak-to-strong generalization use and TFDS lacks."""

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
        for number, row in enumerate(data_set.rows(file), 1):
          origin = f'{file}: row {number}'
          # Folders of one data set have files of one name.
          key = f'{file.parent.name}/{file.name}/{number}'
          yield key, _fit(row, data_set.columns, origin)

  return W2s


def _feature(kind):
  """The TFDS feature of a type, a list of one, or a dict of them."""
  import numpy as np
  import tensorflow_datasets as tfds

  if isinstance(kind, dict):
    return tfds.features.FeaturesDict({k: _feature(v) for k, v in kind.items()})
  if isinstance(kind, list):
    return tfds.features.Sequence(_feature(kind[0]))
  scalars = {str: tfds.features.Text(), int: np.int32, float: np.float32}
  return scalars[kind]


def _fit(value, kind, origin: str):
  """A value as its feature takes it.

  What is no text becomes an empty one, which a task counts as a bad row; a
  missing score becomes NaN.

  Raises:
    ValueError: it is no number.
  """
  if isinstance(kind, list):
    return [_fit(item, kind[0], origin) for item in value or ()]
  if isinstance(kind, dict):
    return {k: _fit(value.get(k), v, f'{origin}, {k}') for k, v in kind.items()}
  if kind is str:
    return value if isinstance(value, str) else ''
  if value is None and kind is float:
    return float('nan')
  try:
    return kind(value)
  except (TypeError, ValueError) as error:
    raise errors.UserError(
      f'{origin}: {value!r} is no {kind.__name__}.'
    ) from error
