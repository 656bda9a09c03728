import json
import pathlib
import re

import numpy as np
import pytest

from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import nlp
from w2s_jax.tasks import registry

import tiny_rows

DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


def _write(folder, rows, *, split='train') -> str:
  """Writes rows to a file; returns the source string for the folder."""
  lines = (json.dumps(row) + '\n' for row in rows)
  (folder / f'{split}.jsonl').write_text(''.join(lines))
  return f'file:{folder}/{{split}}.jsonl'


def _pool(folder, rows, name) -> examples_lib.Examples:
  _write(folder, rows)
  return registry.load(name, source=f'file:{folder}/train.jsonl')[0]


BOOLQ = {'question': 'is it so', 'passage': 'It is so.', 'answer': True}
OPENBOOKQA = {
  'question_stem': 'what melts?',
  'choices': {'text': ['snow', 'sand', 'salt'], 'label': list('ABC')},
  'answerKey': 'A',
}


def _real(name) -> pathlib.Path:
  if not (DATA / name).is_dir():
    pytest.skip(f'no {DATA / name}')
  return DATA / name


# Numbers of examples for training and testing; None for a single pool.
REAL = {
  'boolq': (3270, None),
  'cosmos_qa': (4770, None),
  'ethics_justice': (21782, 2704),
  'ethics_deontology': (18162, 3596),
  'ethics_virtue': (4826, 1990),
  'ethics_utilitarianism': (13616, 4802),
  'cola': (8521, 1036),
  'sst2': (6911, 872),
  'hellaswag': (20036, None),
  'mc_taco': (4450, 1718),
  'openbookqa': (10760, 1000),
  'quail': (4322, None),
  'piqa': (3676, None),
  'social_i_qa': (3858, None),
  'multirc': (20462, 3450),
  'wic': (5428, 638),
  'imdb': (10980, 3995),
  'boolq_question_only': (9427, 3270),
  'ai2_arc_easy': (4502, 4748),
  'ai2_arc_challenge': (2236, 2344),
  'clickbait': (32000, None),
  'comve': (19867, 1996),
  'creak': (10173, 1371),
  'customer_reviews': (3765, None),
  'ethics_commonsense': (3885, None),
  'rte': (2488, 277),
  'subj': (10000, None),
  'tweet_eval_hate': (8985, 2966),
  'tweet_eval_irony': (2862, 784),
  'tweet_eval_offensive': (11877, 848),
  'tweet_eval_sentiment': (6347, None),
  'winogrande': (2534, None),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', REAL)
def test_real_folders_load(name):
  source = f'file:{_real(name).parent}/{{task}}/'
  pool, test, counts = registry.load(name, source=source)
  assert (len(pool), test and len(test)) == REAL[name]
  parts = {'train': pool} | ({'test': test} if test else {})
  assert parts.keys() == counts.keys()
  for split, part in parts.items():
    count = counts[split]
    dropped = count['duplicates'] + count['conflicting']
    dropped += count.get('uneven', 0) + count.get('in_test', 0)
    assert count['examples'] == len(part) + dropped
    assert count['bad'] < 10
    assert set(part.label_probs_NxC.ravel().tolist()) == {0, 1}
    assert part.label_probs_NxC.dtype == np.float32
    if registry.TASKS[name].question:
      assert part.label_probs_NxC[:, 1].mean() == 0.5


def test_every_task_has_a_test_row():
  assert tiny_rows.ROWS.keys() == nlp.TASKS.keys() - {'synthetic'}
  with pytest.raises(AssertionError, match='ROWS of tests/tiny_rows'):
    tiny_rows.rows('tabloids', 1)


def test_there_are_the_papers_22():
  assert len(nlp.PAPER) == 22
  for name in nlp.PAPER:
    task = nlp.PAPER[name]
    assert task.source.startswith(('tfds:', 'hf:'))
    assert task.num_classes == 2 and task.balanced and task.inputs == 'text'


def test_as_many_right_as_wrong_answers_of_each_question(tmp_path):
  rows = []
  for question, labels in {'x': '1000', 'y': '11', 'z': '0110'}.items():
    for i, label in enumerate(labels):
      row = {'sentence': 'p', 'question': question, 'answer': f'a{i}'}
      rows.append({**row, 'label': int(label)})
  _write(tmp_path, rows)
  source = f'file:{tmp_path}/train.jsonl'
  pool, _, counts = registry.load('mc_taco', source=source)
  asked = [text.split('\n')[0] for text in pool.inputs]
  assert sorted(asked) == ['Q: x'] * 2 + ['Q: z'] * 4
  assert pool.label_probs_NxC.sum(axis=0).tolist() == [3, 3]
  assert counts['train']['uneven'] == 4
  _write(tmp_path, rows[::-1])
  same, *_ = registry.load('mc_taco', source=source)
  assert sorted(same.ids) == sorted(pool.ids)


def test_splits_by_the_names_that_a_source_has(tmp_path, caplog):
  def rows(n):
    return [
      {'premise': f'p{i}', 'hypothesis': 'h', 'label': 0} for i in range(n)
    ]

  for split, n in {'train_r2': 2, 'test_r2': 3, 'dev_r2': 4}.items():
    _write(tmp_path, rows(n), split=split)
  pool, test, _ = registry.load('anli_r2', source=f'file:{tmp_path}')
  assert (len(pool), len(test)) == (2, 3)

  (tmp_path / 'train_r2.jsonl').unlink()
  pool, test, _ = registry.load('anli_r2', source=f'file:{tmp_path}')
  assert (len(pool), test) == (3, None)
  assert 'has no split train_r2|train: all comes from test_r2' in caplog.text

  (tmp_path / 'test_r2.jsonl').rename(tmp_path / 'train.jsonl')
  with pytest.raises(
    FileNotFoundError, match='dev_r2, train; .*needs train_r2'
  ):
    registry.load('anli_r2', source=f'file:{tmp_path}')


def test_a_pattern_without_files_names_the_first(tmp_path):
  file = f'{tmp_path}/train_r2.csv'
  with pytest.raises(FileNotFoundError, match=f'there is no {file}, nor'):
    registry.load('anli_r2', source=f'file:{tmp_path}/{{split}}.csv')


def test_no_input_is_for_training_and_in_another_group_for_testing(tmp_path):
  def row(*sentences):
    return {'sent0': sentences[0], 'sent1': sentences[1], 'label': 0}

  _write(tmp_path, [row('a', 'b'), row('c', 'd')])
  _write(tmp_path, [row('e', 'b'), row('c', 'd')], split='test')
  pool, test, counts = registry.load('comve', source=f'file:{tmp_path}')
  # c and d are one group, which is excluded if the test set has any of it.
  assert sorted(pool.inputs) == ['a', 'c', 'd']
  assert len(test) == 4
  assert counts['train']['in_test'] == 1


def test_what_is_missing_says_how_to_get_it(tmp_path):
  for name, way in {
    'dream': 'put train.json, dev.json, test.json of .*prepare dream FOLDER',
    'cola': 'tfds build glue/cola --file_format=array_record',
    'sciq': 'data.source=hf:allenai/sciq; or put train.json, valid.json',
    'comve': 'put your own train, test, as .jsonl.* data.source=file:FOLDER/',
    'imdb': 'data.source=asset:',
  }.items():
    with pytest.raises(
      FileNotFoundError, match=f'{name} does not exist.*{way}'
    ):
      registry.load(name, source=f'file:{tmp_path}/{{task}}/')


def test_ids_depend_on_the_inputs_alone(tmp_path):
  rows = [{'sentence': f'é {i}', 'label': i % 2, 'idx': i} for i in range(9)]
  first = _pool(tmp_path, rows, 'sst2')
  second = _pool(tmp_path, rows[::-1], 'cola')
  assert first.ids.tolist() == second.ids.tolist()[::-1]
  reviews = [{'text': f'é {i} ', 'label': 1 - i % 2} for i in range(9)]
  assert _pool(tmp_path, reviews, 'imdb').ids.tolist() == first.ids.tolist()
  assert first.ids[0] == '4d69747f30444aaa'


def test_duplicates_once_and_contradictions_never(tmp_path):
  texts = ['a', 'a', 'b', 'b ', 'b', 'c']
  labels = [1, 1, 0, 1, 0, 1]
  pairs = zip(texts, labels, strict=True)
  source = _write(tmp_path, [{'sentence': t, 'label': y} for t, y in pairs])
  pool, _, counts = registry.load('sst2', source=source.format(split='train'))
  assert pool.inputs == ['a', 'c']
  assert pool.label_probs_NxC.tolist() == [[0, 1], [0, 1]]
  assert counts['train'] == {
    'rows': 6,
    'bad': 0,
    'examples': 6,
    'duplicates': 3,
    'conflicting': 1,
  }


def test_a_single_file_is_one_pool(tmp_path):
  rows = [{'sentence': f'{i}', 'label': i % 2} for i in range(4)]
  source = _write(tmp_path, rows)
  _write(tmp_path, rows[:2], split='validation')
  pool, test, _ = registry.load('sst2', source=source)
  assert (len(pool), len(test)) == (4, 2)
  pool, test, _ = registry.load('sst2', source=f'file:{tmp_path}/train.jsonl')
  assert (len(pool), test) == (4, None)


@pytest.mark.parametrize(
  'name, row, message',
  [
    ('sst2', {'text': 'a', 'label': 1}, "column 'sentence'; there are 'text'"),
    ('sst2', {'sentence': None, 'label': 1}, 'expected a text, found None'),
    ('sst2', {'sentence': 'a', 'label': 2}, 'label 2 is not in 0..1'),
    ('sst2', {'sentence': 'a', 'label': 0.5}, 'label 0.5 is not a whole'),
    ('sst2', {'sentence': 'a', 'label': None}, 'label None is not a whole'),
    ('sst2', {'sentence': 'a', 'label': -1}, 'hidden labels'),
    ('openbookqa', {**OPENBOOKQA, 'answerKey': 'E'}, "answer 'E' is not"),
    (
      'openbookqa',
      {**OPENBOOKQA, 'choices': 'text'},
      "choices: expected 'label' in it, found 'text'",
    ),
    ('boolq', {**BOOLQ, 'answer': 'maybe'}, "answer 'maybe' is not a whole"),
    ('wic', {'word': 'a'}, "column 'sentence1'; there are 'word'"),
  ],
)
def test_bad_row_is_named(tmp_path, name, row, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    _pool(tmp_path, [row], name)
  assert str(error.value).startswith(f'{tmp_path}/train.jsonl:1: ')


def test_empty_texts_are_counted(tmp_path, caplog):
  rows = [{'sentence': text, 'label': 1} for text in ('a', '  ', 'b')]
  _write(tmp_path, rows)
  source = f'file:{tmp_path}/train.jsonl'
  pool, _, counts = registry.load('sst2', source=source)
  assert (len(pool), counts['train']['bad']) == (2, 1)
  assert 'train.jsonl:2: ' in caplog.text
  with pytest.raises(ValueError, match='all are bad, the first at .*jsonl:1: '):
    _pool(tmp_path, rows[1:2], 'sst2')


def test_no_rows_and_no_such_task(tmp_path):
  with pytest.raises(ValueError, match="no rows for task 'imdb'"):
    _pool(tmp_path, [{'text': 'a', 'label': 1, 'source': 'else'}], 'imdb')
  with pytest.raises(
    ValueError, match="did you mean 'openbookqa'.*TASKS in w2s_jax/tasks/nlp.py"
  ):
    registry.load('openbook_qa')


def test_synthetic_labels_follow_the_cues():
  pool, test, _ = registry.load('synthetic')
  assert test is None
  assert len(pool) > 9900
  praise = np.array(['good' in text.split() for text in pool.inputs])
  negated = np.array(['not good' in text for text in pool.inputs])
  labels = pool.label_probs_NxC[:, 1]
  assert labels[praise & ~negated].mean() > 0.6 > 0.5 > labels[negated].mean()


def test_take_keeps_columns_together():
  pool, *_ = registry.load('synthetic')
  few = pool.take([5, 2])
  assert few.ids.tolist() == [pool.ids[5], pool.ids[2]]
  assert few.inputs == [pool.inputs[5], pool.inputs[2]]
  mask = np.arange(len(pool)) < 3
  assert pool.take(mask).groups.tolist() == pool.groups[:3].tolist()
