"""Tests that upstream files give the same examples through TFDS."""

import csv
import gzip
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import reward_test

from w2s_jax.tasks import registry
from w2s_jax.tasks import sources
from w2s_jax.tasks import tfds_builder

import tiny
import tiny_rows

DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'
pytest.importorskip('tensorflow_datasets')


def _rows(name):
  """Returns a few rows in the columns of the Hugging Face version."""
  if name in tiny_rows.ROWS:
    return tiny_rows.rows(name, 6)
  return [
    reward_test._row(f'é {i}', f'No {i}', second=i % 2 == 1)[name]
    for i in range(6)
  ]


def _dream(rows):
  questions = ('question', 'choice', 'answer')
  return json.dumps(
    [[r['dialogue'], [{k: r[k] for k in questions}], 'id'] for r in rows]
  )


def _quartz(rows):
  for row in rows:
    choices = zip(row['choices']['text'], row['choices']['label'], strict=True)
    question = {
      'stem': row['question'],
      'choices': [{'text': text, 'label': key} for text, key in choices],
    }
    yield {**row, 'question': question}


def _csv(rows, *, header=True):
  stream = io.StringIO()
  writer = csv.DictWriter(stream, rows[0])
  if header:
    writer.writeheader()
  writer.writerows(rows)
  return stream.getvalue()


def _upstream(name, file, rows) -> bytes:
  """Returns the content of a file in the format of upstream."""
  if name == 'dream':
    text = _dream(rows)
  elif name == 'quartz':
    text = '\n'.join(map(json.dumps, _quartz(rows)))
  elif file.endswith('.csv'):
    text = _csv(rows, header=name != 'ethics_utilitarianism')
  elif file.endswith('.parquet'):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()
  elif (
    file.endswith('.json') and name != 'shp'
  ):  # its .json files are JSON lines
    text = json.dumps(rows, indent=1)
  else:
    text = ''.join(json.dumps(row) + '\n' for row in rows)
  return gzip.compress(text.encode()) if file.endswith('.gz') else text.encode()


def _place(folder, name, rows):
  """Writes the files of each split into a nested folder, as archives do."""
  inner = folder / 'v1' / 'data'
  inner.mkdir(parents=True)
  for pattern in tfds_builder.DATA_SETS[name].files.values():
    file = pattern.replace('*', '00000-of-00001')
    (inner / file).write_bytes(_upstream(name, file, rows))


def _same_examples(one, other):
  assert sorted(one.ids) == sorted(other.ids)
  order, other_order = np.argsort(one.ids), np.argsort(other.ids)
  np.testing.assert_array_equal(
    one.label_probs_NxC[order], other.label_probs_NxC[other_order]
  )
  assert (
    one.take(order).groups.tolist() == other.take(other_order).groups.tolist()
  )


@pytest.mark.parametrize('name', tfds_builder.DATA_SETS)
def test_files_become_the_same_examples(tmp_path, monkeypatch, name):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  rows = _rows(name)
  _place(tmp_path / 'manual', name, rows)
  tfds_builder.prepare(name, str(tmp_path / 'manual'))
  splits = set(tfds_builder.DATA_SETS[name].files)
  assert set(sources.split_names(f'tfds:w2s/{name}')) == splits

  (tmp_path / 'rows.jsonl').write_text(
    ''.join(json.dumps(r) + '\n' for r in rows)
  )
  expected, _, _ = registry.load(name, source=f'file:{tmp_path}/rows.jsonl')
  pool, test, _ = registry.load(name, source=f'tfds:w2s/{name}')
  _same_examples(pool, expected)
  if registry.TASKS[name].test:
    _same_examples(test, expected)


def test_the_data_set_of_a_task_is_its_own_or_an_alternative():
  for name in tfds_builder.DATA_SETS:
    source = registry.TASKS[name].source
    assert source == f'tfds:w2s/{name}' or source.startswith('hf:')
    assert f'prepare {name} FOLDER' in registry.how_to_get(name)
  made = {
    task.source.removeprefix('tfds:w2s/')
    for task in registry.TASKS.values()
    if task.source.startswith('tfds:w2s/')
  }
  assert made <= tfds_builder.DATA_SETS.keys()


def test_real_votes_survive(tmp_path, monkeypatch):
  file = DATA / 'pandalm_human' / 'test.jsonl.gz'
  if not file.is_file():
    pytest.skip(f'no {file}')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  rows = [row for _, row in sources.read(f'file:{file}', '')]
  _place(tmp_path / 'manual', 'pandalm', rows)
  tfds_builder.prepare('pandalm', str(tmp_path / 'manual'))
  pool, _, _ = registry.load('pandalm')
  _same_examples(pool, registry.load('pandalm', source=f'file:{file}')[0])


def _run(code_or_module, *arguments, folder):
  return subprocess.run(
    [sys.executable, *code_or_module, *arguments],
    cwd=tiny.ROOT,
    env=tiny.environment() | {'TFDS_DATA_DIR': str(folder / 'tfds')},
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_the_command_and_a_process_that_knows_no_builder(tmp_path):
  _place(tmp_path / 'manual', 'sciq', _rows('sciq'))
  prepare = ('-m', 'w2s_jax.tasks.prepare')
  done = _run(prepare, 'sciq', tmp_path / 'manual', folder=tmp_path)
  assert done.returncode == 0, done.stderr
  code = """
import sys, tensorflow_datasets as tfds
rows = tfds.data_source('w2s/sciq', split='test', data_dir=sys.argv[1],
                        builder_kwargs={'file_format': 'array_record'})
print(len(rows), 'tensorflow' in sys.modules)
"""
  done = _run(('-c', code), tmp_path / 'tfds', folder=tmp_path)
  assert done.stdout == '6 False\n', done.stderr


def test_the_command_lists_what_there_is_and_says_what_is_missing(tmp_path):
  prepare = ('-m', 'w2s_jax.tasks.prepare')
  listed = _run(prepare, folder=tmp_path).stdout.splitlines()
  names = [line.partition(':')[0] for line in listed]
  assert names == list(tfds_builder.DATA_SETS)
  done = _run(prepare, 'dream', tmp_path, folder=tmp_path)
  assert done.returncode == 1
  [line] = done.stderr.splitlines()
  assert line.startswith(f'error: {tmp_path} has no train.json: put train.json')
  assert 'https://github.com/nlpdata/dream' in line


def test_mistakes_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  with pytest.raises(ValueError, match="'dreem' is not one of .* dream,"):
    tfds_builder.prepare('dreem', str(tmp_path))
  rows = [{'label': 'maybe', 'scenario': 'a'}]
  _place(tmp_path / 'manual', 'ethics_justice', rows)
  with pytest.raises(ValueError, match="csv:2: label 'maybe' is not a whole"):
    tfds_builder.prepare('ethics_justice', str(tmp_path / 'manual'))
  with pytest.raises(ValueError, match='w2s/quail cannot be read.*put train'):
    registry.load('quail', source='tfds:w2s/quail')
