"""Tests of the shipped preference pairs and of the program that makes them."""

import csv
import gzip
import io
import pathlib
import re
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from experiments.data_making import make_preference_pairs
from w2s_jax import assets
from w2s_jax.tasks import registry
from w2s_jax.tasks import splits


def _read(file) -> list[dict]:
  with gzip.open(file, 'rt', encoding='utf-8', newline='') as lines:
    return list(csv.DictReader(lines))


def _package(folder) -> pathlib.Path:
  """Writes a package of 42 snippets per source, some of them unusable."""
  inner = io.BytesIO()
  with tarfile.open(fileobj=inner, mode='w:gz') as archive:
    for source, name in make_preference_pairs.SOURCES.items():
      texts = [f'{source} &amp;  “{i}”' for i in range(38)]
      texts += ['Wow.', f'{source} & “0”', '...', 'x' * 161]
      ratings = [i / 10 for i in range(-19, 23)]
      lines = (
        f'{i}\t{r}\t{t}\r\n' for i, (r, t) in enumerate(zip(ratings, texts))
      )
      data = ''.join(lines).encode()
      info = tarfile.TarInfo(f'hutto_ICWSM_2014/{name}_GroundTruth.txt')
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  package = folder / 'pack-1.zip'
  with zipfile.ZipFile(package, 'w') as outer:
    path = 'pack-1/additional_resources/hutto_ICWSM_2014.tar.gz'
    outer.writestr(path, inner.getvalue())
    outer.writestr('pack-1/LICENSE.txt', 'Yours.')
  return package


def test_maker_deals_snippets_into_clusters_of_one_source(
  tmp_path, monkeypatch, capsys
):
  package = _package(tmp_path)
  for out in ('one', 'two'):
    command = ['make', f'--package={package}', f'--out={tmp_path / out}']
    monkeypatch.setattr(sys, 'argv', command)
    make_preference_pairs.main()
  made = [
    (tmp_path / out / 'pairs.csv.gz').read_bytes() for out in ('one', 'two')
  ]
  assert made[0] == made[1]
  assert (tmp_path / 'one' / 'LICENSE.txt').read_text() == 'Yours.'
  assert 'amazon: 42 snippets, 38 chosen' in capsys.readouterr().out
  cluster_of = {}
  for row in _read(tmp_path / 'one' / 'pairs.csv.gz'):
    assert abs(float(row['rating_1']) - float(row['rating_2'])) > 0.29
    for text in (row['text_1'], row['text_2']):
      assert text == 'Wow.' or re.fullmatch(rf'{row["source"]} & “\d+”', text)
      assert cluster_of.setdefault(text, row['cluster']) == row['cluster']
  sizes = np.unique(list(cluster_of.values()), return_counts=True)[1]
  assert set(sizes.tolist()) <= {2, 3}


@pytest.fixture(scope='module')
def shipped():
  return registry.load('vader_pairs')


def test_shipped_pairs(shipped):
  pool, test, counts = shipped
  assert test is None
  assert counts['train'] == {
    'rows': 11949,
    'bad': 0,
    'examples': 11949,
    'duplicates': 0,
    'conflicting': 0,
  }
  second_N = pool.label_probs_NxC[:, 1] > 0.5
  assert abs(second_N.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(pool))
  assert max(len(text) for pair in pool.inputs for text in pair.texts) == 160
  assert (assets.path('vader-pairs') / 'LICENSE.txt').exists()


def test_shipped_ratings_differ_and_snippets_are_in_two_pairs_at_most():
  source, count = {}, {}
  for row in _read(assets.path('vader-pairs') / 'pairs.csv.gz'):
    assert abs(float(row['rating_1']) - float(row['rating_2'])) > 0.29
    for text in (row['text_1'], row['text_2']):
      count[text] = count.get(text, 0) + 1
      assert source.setdefault(text, row['source']) == row['source']
  assert max(count.values()) == 2


def test_splits_of_shipped_pairs_share_no_snippet(shipped):
  pool, *_ = shipped
  group_of = {}
  for pair, group in zip(pool.inputs, pool.groups, strict=True):
    for text in pair.texts:
      assert group_of.setdefault(text, group) == group
  sizes = {'test': 2000, 'validation': 500, 'weak': -1, 'transfer': -1}
  named = {
    name: pool.take(rows)
    for name, rows in splits.split(pool, sizes, seed=0).items()
  }
  splits.check_disjoint(named)
  assert sum(map(len, named.values())) > len(pool) - 5
  snippets = [
    {text for pair in split.inputs for text in pair.texts}
    for split in named.values()
  ]
  assert sum(map(len, snippets)) == len(set().union(*snippets))
