import csv
import gzip
import io
import json
import re

import numpy as np
import pytest

from w2s_jax import errors
from w2s_jax.tasks import cells
from w2s_jax.tasks import registry
from w2s_jax.tasks import sources

ROWS = [
  {'text': f'row é {i}\nof "{i * i}"', 'label': i % 2} for i in range(400)
]


def _jsonl() -> bytes:
  return '\n'.join(map(json.dumps, ROWS)).encode() + b'\n'


def _csv() -> bytes:
  quoted = [row['text'].replace('"', '""') for row in ROWS]
  pairs = zip(quoted, ROWS, strict=True)
  lines = [f'"{text}",{row["label"]}\n' for text, row in pairs]
  return ('text,label\n' + ''.join(lines)).encode()


def _parquet() -> bytes:
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  buffer = io.BytesIO()
  table = pyarrow.Table.from_pylist(ROWS)
  parquet.write_table(table, buffer, row_group_size=150)
  return buffer.getvalue()


def _zst(data: bytes) -> bytes:
  return pytest.importorskip('pyarrow').compress(data, 'zstd', asbytes=True)


FORMATS = {'.jsonl': _jsonl, '.csv': _csv, '.parquet': _parquet}
COMPRESSIONS = {'': bytes, '.gz': gzip.compress, '.zst': _zst}


def _read(file, split='train'):
  return list(sources.read(f'file:{file}', split))


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('form', FORMATS)
def test_every_format_gives_the_rows(tmp_path, form, compression):
  file = tmp_path / f'train{form}{compression}'
  file.write_bytes(COMPRESSIONS[compression](FORMATS[form]()))
  found = _read(tmp_path / ('{split}' + form + compression))
  assert [row['text'] for _, row in found] == [row['text'] for row in ROWS]
  assert [int(row['label']) for _, row in found] == [r['label'] for r in ROWS]
  assert len({origin for origin, _ in found}) == len(ROWS)
  last = {'.jsonl': 400, '.csv': 800, '.parquet': 400}[form]
  assert found[-1][0] == f'{file}:{last}'


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize('compression', ['.gz', '.zst'])
@pytest.mark.parametrize('form', FORMATS)
def test_truncated_compressed_file(tmp_path, form, compression, share):
  data = COMPRESSIONS[compression](FORMATS[form]())
  file = tmp_path / f'train{form}{compression}'
  file.write_bytes(data[: int(len(data) * share)])
  rows = sources.read(f'file:{file}', 'train')
  read = []
  with pytest.raises(ValueError, match='damaged or truncated') as error:
    read.extend(row['text'] for _, row in rows)
  assert str(file) in str(error.value)
  assert read == [row['text'] for row in ROWS[: len(read)]]
  if form == '.jsonl':
    assert f'{file}:{len(read) + 1}:' in str(error.value)


@pytest.mark.parametrize('form', FORMATS)
def test_truncated_plain_file(tmp_path, form):
  file = tmp_path / f'train{form}'
  file.write_bytes(FORMATS[form]()[:-6])
  with pytest.raises(ValueError, match=re.escape(str(file))):
    _read(file)


@pytest.mark.parametrize('place', [0.4, 0.8])
def test_flipped_byte_in_gz(tmp_path, place):
  data = bytearray(gzip.compress(_jsonl()))
  data[int(len(data) * place)] ^= 255
  file = tmp_path / 'train.jsonl.gz'
  file.write_bytes(data)
  with pytest.raises(ValueError, match=f'{file}:[0-9]+: '):
    _read(file)


@pytest.mark.parametrize(
  'name, content, line, message',
  [
    ('a.jsonl', b'{"a": 1}\n{"a": }\n', 2, 'not JSON'),
    ('a.jsonl', b'{"a": 1}\n\n[1]\n', 3, 'not a JSON object'),
    ('a.jsonl', b'{"a": 1}\n{"a": "\xe9"}\n', 2, 'not UTF-8'),
    ('a.csv', b'a,b\n1,2\n"x\ny\nz",2\n1,2,3\n', 6, '3 columns'),
    ('a.csv', b'a,b\n"x\ny",2\n"p\nq"\n', 4, '1 columns'),
    ('a.csv', b'a,b\n1,2\n"never closed,2\n1,2\n', 3, 'unexpected end'),
    ('a.csv', b'a,b\n1,"2"3\n', 2, 'expected after'),
    ('a.csv.gz', b'not gzip at all', 1, 'damaged or truncated'),
    ('a.csv.zst', b'not zstandard at all', 1, 'damaged or truncated'),
  ],
)
def test_bad_row_is_named(tmp_path, name, content, line, message):
  if name.endswith('.zst'):
    pytest.importorskip('pyarrow')
  file = tmp_path / name
  file.write_bytes(content)
  with pytest.raises(ValueError) as error:
    _read(file)
  assert str(error.value).startswith(f'{file}:{line}: ')
  assert message in str(error.value)


def test_csv_row_origin_is_its_first_line(tmp_path):
  file = tmp_path / 'a.csv'
  file.write_bytes(b'\xef\xbb\xbfa,b\r\n"x\r\n\r\ny",1\r\n\r\nz,2\r\n')
  assert _read(file) == [
    (f'{file}:2', {'a': 'x\r\n\r\ny', 'b': '1'}),
    (f'{file}:6', {'a': 'z', 'b': '2'}),
  ]


@pytest.mark.parametrize('seed', range(4))
def test_csv_is_that_of_the_csv_module(tmp_path, seed):
  random = np.random.RandomState(seed)
  file, pieces = tmp_path / 'a.csv', ['a', ',', ',', '"', '\r', '\0', 'é', ' ']
  compared = 0
  for _ in range(300):
    lines = [''.join(random.choice(pieces, 5)) for _ in range(5)]
    text = 'x,y,z\n' + random.choice(['\n', '\r\n']).join(lines)
    file.write_bytes(text.encode())
    lines = (line.decode() for line in io.BytesIO(text.encode()))
    reader = csv.reader(lines, strict=True)
    next(reader)
    expected, found, why = [], [], ''
    try:
      for values in reader:
        if len(values) not in (0, 3):
          raise csv.Error('columns, but the header')
        expected += [values] if values else []
    except csv.Error as error:
      why = str(error)
    try:
      rows = sources.read(f'file:{file}', 'train')
      found.extend([*row.values()] for _, row in rows)
    except errors.UserError as error:
      assert why and why in str(error)
    else:
      assert not why
    assert found == expected
    compared += len(found)
  assert compared > 20


@pytest.mark.parametrize('form', FORMATS)
def test_only_wanted_rows(tmp_path, form):
  file = tmp_path / f'a{form}'
  file.write_bytes(FORMATS[form]())
  found = _read(file)
  wanted = [i in (0, 7, 8) for i in range(len(found) - 2)]
  expected = [
    row if i in (0, 7, 8) or i >= len(wanted) else None
    for i, row in enumerate(found)
  ]
  read = sources.read(f'file:{file}', 'train', iter(wanted))
  assert list(read) == expected
  (tmp_path / 'b.csv').write_text('a,b\n\n1,2\n"p\nq",3\n\n4,5\n')
  read = sources.read(f'file:{tmp_path}/b.csv', 'train', iter([0, 0, 1]))
  assert list(read) == [
    None,
    None,
    (f'{tmp_path}/b.csv:7', {'a': '4', 'b': '5'}),
  ]


def test_missing_file_lists_what_is_there(tmp_path):
  (tmp_path / 'train.jsonl.gz').write_bytes(b'')
  with pytest.raises(FileNotFoundError, match='has train.jsonl.gz'):
    _read(tmp_path / '{split}.jsonl.gz', 'trian')
  with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
    _read(tmp_path / 'nowhere' / 'train.jsonl')


def test_a_folder_is_its_splits(tmp_path):
  (tmp_path / 'README.md').write_text('')
  for split in ('train', 'validation'):
    rows = gzip.compress(json.dumps({'split': split}).encode())
    (tmp_path / f'{split}.jsonl.gz').write_bytes(rows)
  for source in (f'file:{tmp_path}', f'file:{tmp_path}/'):
    assert sources.split_names(source) == ('train', 'validation')
    [(origin, row)] = sources.read(source, 'validation')
    assert row == {'split': 'validation'}
    assert origin == f'{tmp_path}/validation.jsonl.gz:1'
  (tmp_path / 'empty').mkdir()
  with pytest.raises(FileNotFoundError, match='empty has no data file'):
    sources.split_names(f'file:{tmp_path}/empty/')
  with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
    sources.split_names(f'file:{tmp_path}/nowhere/')


def test_unknown_ending(tmp_path):
  (tmp_path / 'train.tsv.gz').write_bytes(b'')
  with pytest.raises(ValueError, match='must end in .jsonl'):
    _read(tmp_path / 'train.tsv.gz')


@pytest.mark.parametrize('indent', [None, 2])
def test_a_json_file_is_a_list_or_lines(tmp_path, indent):
  file = tmp_path / 'a.json'
  file.write_text(json.dumps(ROWS[:3], indent=indent))
  assert [row for _, row in _read(file)] == ROWS[:3]
  file.write_bytes(_jsonl())
  assert [row for _, row in _read(file)] == ROWS
  file.write_text('[{"a": 1}, 2]')
  with pytest.raises(ValueError, match='item 2: not a JSON object'):
    _read(file)
  file.write_text('[{"a": 1},\n{"a": }]')
  with pytest.raises(ValueError, match=f'{file}:2: not JSON'):
    _read(file)


HUGE = 'x' * 10_000_000


@pytest.mark.parametrize(
  'content, message',
  [
    (b'text,label,text\na,1,b\n', ":1: two columns are named 'text'"),
    (b'text,,label\na,b,1\n', ':1: column 2 has no name'),
    (b'text, ,label\na,b,1\n', ':1: column 2 has no name'),
    (b'text,label\n' + HUGE.encode() + b',1\n', ':2: field larger than'),
    (b'text,label\n"a\n' + HUGE.encode(), ':2: field larger than'),
  ],
)
def test_bad_headers_and_huge_fields_of_csv(tmp_path, content, message):
  (tmp_path / 'rows.csv').write_bytes(content)
  with pytest.raises(errors.UserError) as error:
    registry.load('imdb', source=f'file:{tmp_path}/rows.csv')
  assert str(error.value).startswith(f'{tmp_path}/rows.csv{message}')
  assert len(str(error.value)) < 400


def test_long_texts_are_read_from_every_format(tmp_path):
  row = {'text': 'x' * cells.MAX_CHARACTERS, 'label': 1}
  (tmp_path / 'rows.csv').write_text(f'text,label\n{row["text"]},1\n')
  (tmp_path / 'rows.json').write_text(json.dumps([row]))
  for file in ('rows.csv', 'rows.json'):
    pool, _, _ = registry.load('imdb', source=f'file:{tmp_path}/{file}')
    assert pool.inputs == [row['text']]


DEEP = 100_000 * '[' + 100_000 * ']'


@pytest.mark.parametrize(
  'name, content, line',
  [
    ('rows.jsonl', '{"text": "a", "label": 1}\n{"text": %s}\n' % DEEP, 2),
    ('rows.json', '[{"text": "[["},\n{"text":\n%s}]\n' % DEEP, 3),
    ('rows.json', '{"text": %s}\n' % DEEP, 1),
    ('rows.json', '%s\n' % '\n'.join(DEEP), 100_000),
  ],
)
def test_deep_json(tmp_path, name, content, line):
  (tmp_path / name).write_text(content)
  with pytest.raises(errors.UserError) as error:
    registry.load('imdb', source=f'file:{tmp_path}/{name}')
  assert str(error.value) == (
    f'{tmp_path}/{name}:{line}: JSON is nested too deeply.'
  )


def test_a_number_of_too_many_digits(tmp_path):
  file = tmp_path / 'rows.jsonl'
  file.write_text('{"text": "a", "label": 1}\n{"label": %s}\n' % ('9' * 5000))
  with pytest.raises(errors.UserError, match=f'^{file}:2: not JSON: Exceeds'):
    registry.load('imdb', source=f'file:{file}')


@pytest.mark.parametrize('seed', range(60))
def test_damaged_parquet(tmp_path, seed):
  """Damaged bytes give rows or one line that names the file."""
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  random = np.random.RandomState(seed)
  file = tmp_path / 'rows.parquet'
  rows = [{'text': f'é {i} {i * i}', 'label': i % 2} for i in range(3000)]
  parquet.write_table(
    pyarrow.Table.from_pylist(rows),
    file,
    row_group_size=500,
    compression=['none', 'snappy', 'gzip', 'zstd'][seed % 4],
  )
  data = bytearray(file.read_bytes())
  for place in random.randint(4, len(data) - 8, 1 + seed % 5):
    data[place] = random.randint(256)
  file.write_bytes(data if seed % 3 else data[: random.randint(len(data))])
  try:
    registry.load('imdb', source=f'file:{file}')
  except errors.UserError as error:
    [line] = str(error).splitlines()
    assert line.startswith((f'{file}:', f"data.source = 'file:{file}'"))
    assert len(line) < 400


def test_two_columns_of_one_name_in_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  table = pyarrow.Table.from_arrays(
    [pyarrow.array(['a']), pyarrow.array(['b'])], names=['text', 'text']
  )
  file = tmp_path / 'rows.parquet'
  parquet.write_table(table, file)
  with pytest.raises(errors.UserError, match=f'^{file}: two columns are named'):
    registry.load('imdb', source=f'file:{file}')


PGN = """[Event "first"]
[White "A"]
[WhiteElo "1900"]
[Result "0-1"]

1. f3 {weak} e5 2. g4 (2. e4 Nf6) Qh4# 0-1

[Event "second"]
[SetUp "1"]
[FEN "4k3/P7/8/8/8/8/8/R3K3 w Q - 0 1"]

1. a8=N Kd7 2. O-O-O+ *
"""


def test_games_of_a_pgn_are_headers_and_moves(tmp_path):
  file = tmp_path / 'games.pgn.gz'
  file.write_bytes(gzip.compress(PGN.encode()))
  (first, game), (second, other) = _read(file)
  assert (first, second) == (f'{file}: game 1', f'{file}: game 2')
  assert game['moves'] == 'f2f3 e7e5 g2g4 d8h4'
  assert game['Event'] == 'first' and game['WhiteElo'] == '1900'
  assert other['moves'] == 'a7a8n e8d7 e1c1' and other['FEN'][0] == '4'


def test_broken_move_names_its_game(tmp_path):
  file = tmp_path / 'games.pgn'
  file.write_text(PGN.replace('Kd7', 'Kd6'))
  read = []
  with pytest.raises(ValueError, match=f'{file}: game 2: .*Kd6'):
    read.extend(row for _, row in sources.read(f'file:{file}', 'train'))
  assert len(read) == 1
