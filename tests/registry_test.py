"""Fields of the rows that examples are made of."""

import json

from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import registry
from w2s_jax.tasks import study_splits


def load(folder, rows, name='rotten_tomatoes'):
  path = folder / 'rows.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return registry.load(name, source=f'file:{path}')[0]


def test_short_columns_of_a_row_are_kept(tmp_path):
  row = {
    'label': 1,
    'Rating': 1534,
    'score': 0.5,
    'Themes': ['mate', 'short'],
    'opening': 'Sicilian Defense',
    'nothing': None,
    'nested': {'a': 1},
    'long': 'x' * 201,
    'many': list(range(31)),
    'lines': 'a\nb',
    'broken': '\ud800',  # cannot be written as UTF-8
  }
  rows = [row | {'text': f'a text {i} ' * 40} for i in range(3)]
  pool = load(tmp_path, rows)
  assert [json.loads(fields) for fields in pool.fields] == 3 * [
    {name: row[name] for name in ('label', 'Rating', 'score', 'Themes')}
    | {'opening': 'Sicilian Defense'}
  ]


def test_all_examples_of_a_row_have_its_fields(tmp_path):
  rows = [
    {
      'question': f'question {i}',
      'choices': {'text': list('abcd'), 'label': list('ABCD')},
      'answerKey': 'A',
      'grade': i,
    }
    for i in range(20)
  ]
  pool = load(tmp_path, rows, 'ai2_arc_easy')
  assert len(pool) == 40  # a right and a wrong answer of each
  for text, fields in zip(pool.inputs, pool.fields):
    assert f'question {json.loads(fields)["grade"]}\n' in f'{text}\n'


def test_fields_follow_their_rows_but_not_to_students(tmp_path):
  rows = [{'text': f'text {i}', 'label': i % 2, 'i': i} for i in range(10)]
  pool = load(tmp_path, rows)
  taken = pool.take([7, 3])
  assert [json.loads(x)['i'] for x in taken.fields] == [7, 3]
  assert taken.without_labels().fields is None  # they hold the label
  assert examples_lib.union([taken]).fields is None
  shown, _ = study_splits.as_rows(taken, 'test')
  assert shown['fields'] == {'text': 'text 7', 'label': 1, 'i': 7}
  assert shown['label'] == 1 and shown['split'] == 'test'
