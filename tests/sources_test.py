import importlib.util
import json

import numpy as np
import pytest

from w2s_jax.tasks import sources

ROWS = [
  {'text': f'row é {i}\nof "{i * i}"', 'label': i % 2} for i in range(400)
]


def _jsonl() -> bytes:
  return '\n'.join(map(json.dumps, ROWS)).encode() + b'\n'


def test_unknown_kind():
  with pytest.raises(ValueError, match="did you mean 'file'"):
    sources.read('fiel:train.jsonl', 'train')


def test_only_some_sources_have_splits(tmp_path):
  for single in ('file:a/b.csv', 'asset:movie-reviews/a.csv', 'synthetic:'):
    assert sources.split_names(single) is None
  for split in ('train', 'test_hard'):
    (tmp_path / f'{split}.csv').write_text('a\n1\n')
    (tmp_path / split).mkdir()
    (tmp_path / split / 'rows.csv').write_text('a\n2\n')
  names = ('test_hard', 'train')
  assert sources.split_names(f'file:{tmp_path}/{{split}}.csv') == names
  assert sources.split_names(f'file:{tmp_path}/{{split}}/rows.csv') == names
  assert sources.split_names(f'file:{tmp_path}/{{split}}.jsonl') == ()


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
  tfds = pytest.importorskip('tensorflow_datasets')

  class W2sTinyReviews(tfds.core.GeneratorBasedBuilder):
    """A data set that TFDS does not have."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      features = {
        'nested': {'text': tfds.features.Text()},
        'answers': tfds.features.Sequence(tfds.features.Text()),
        'label': tfds.features.ClassLabel(num_classes=2),
        'truth': np.bool_,
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for i in range(6):
        yield (
          i,
          {
            'nested': {'text': f'é {i}'},
            'answers': ['yes', 'nö'],
            'label': i % 2,
            'truth': i % 2 == 1,
          },
        )

  folder = tmp_path_factory.mktemp('tfds')
  builder = W2sTinyReviews(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  return folder


def test_tfds_rows_are_plain_python(tfds_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tfds_dir))
  found = list(sources.read('tfds:w2s_tiny_reviews', 'train'))
  assert sorted(row['nested']['text'] for _, row in found) == [
    f'é {i}' for i in range(6)
  ]
  origin, row = found[3]
  assert origin == 'tfds:w2s_tiny_reviews[train]:4'
  assert row['answers'] == ['yes', 'nö']
  assert int(row['label']) == int(row['truth'])


@pytest.mark.parametrize(
  'name, split, reason',
  [
    ('w2s_no_such_thing', 'train', 'not found'),
    ('glue/sst2', 'train', 'Dataset glue not found'),
  ],
)
def test_tfds_failure_is_one_sentence(
  tfds_dir, monkeypatch, name, split, reason
):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tfds_dir))
  with pytest.raises(ValueError) as error:
    list(sources.read(f'tfds:{name}', split))
  assert reason in str(error.value)
  assert f'tfds build {name} --file_format=array_record' in str(error.value)
  assert len(str(error.value)) < 400


def test_splits_of_tfds(tfds_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tfds_dir))
  assert sources.split_names('tfds:w2s_tiny_reviews') == ('train',)
  with pytest.raises(ValueError, match="no split 'test'; there are train"):
    list(sources.read('tfds:w2s_tiny_reviews', 'test'))


def test_hf_reads_a_data_set(tmp_path, monkeypatch):
  datasets = pytest.importorskip('datasets')
  monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
  folder = tmp_path / 'reviews'
  folder.mkdir()
  (folder / 'train.jsonl').write_bytes(_jsonl())
  assert sources.split_names(f'hf:{folder}') == ('train',)
  found = list(sources.read(f'hf:{folder}', 'train'))
  assert [row for _, row in found] == ROWS
  assert found[1][0] == f'hf:{folder}[train]:2'
  with pytest.raises(ValueError, match="no split 'test'"):
    list(sources.read(f'hf:{folder}', 'test'))


def test_hf_reads_a_folder_of_a_data_set(tmp_path, monkeypatch):
  datasets = pytest.importorskip('datasets')
  monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
  for folder, rows in (('one', ROWS[:1]), ('two', ROWS[1:])):
    (tmp_path / 'data' / folder).mkdir(parents=True)
    lines = (json.dumps(row) + '\n' for row in rows)
    (tmp_path / 'data' / folder / 'train.jsonl').write_text(''.join(lines))
  for name in ('data:two/', 'data@main:two/'):
    found = list(sources.read(f'hf:{tmp_path}/{name}', 'train'))
    assert [row for _, row in found] == ROWS[1:]


def test_hf_without_the_library_says_what_to_install():
  if importlib.util.find_spec('datasets'):
    pytest.skip('the datasets library is installed')
  with pytest.raises(ImportError, match='pip install datasets'):
    list(sources.read('hf:allenai/sciq', 'train'))


def test_synthetic_is_always_the_same():
  first = list(sources.read('synthetic:', 'train'))
  assert first == list(sources.read('synthetic:', 'test'))
  assert first[0] == (
    'synthetic:1',
    {'text': 'that good that war', 'label': 1},
  )
  labels = np.array([row['label'] for _, row in first])
  assert abs(labels.mean() - 0.5) < 0.02
  lengths = [len(row['text'].split()) for _, row in first]
  assert (min(lengths), max(lengths)) == (4, 40)


def test_the_size_of_csv_files_only(tmp_path):
  (tmp_path / 'train.csv').write_text('a,b\n1,2\n')
  (tmp_path / 'rows.jsonl').write_text('{"a": 1}\n')
  assert sources.csv_bytes(f'file:{tmp_path}/train.csv', 'train') == 8
  assert sources.csv_bytes(f'file:{tmp_path}/{{split}}.csv', 'train') == 8
  assert sources.csv_bytes(f'file:{tmp_path}/{{split}}.csv', 'test') == 0
  assert sources.csv_bytes(f'file:{tmp_path}/rows.jsonl', 'train') == 0
  assert sources.csv_bytes('asset:chess-puzzles/puzzles.csv.gz', 'train') > 0
  assert sources.csv_bytes('synthetic:', 'train') == 0
