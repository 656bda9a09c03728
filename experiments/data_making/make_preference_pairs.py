r"""Makes preference pairs from short texts that people have rated.

  pip download vaderSentiment==0.5 --no-deps
  python experiments/data_making/make_preference_pairs.py \
      --package=vaderSentiment-0.5.zip --out=w2s_jax/data/vader-pairs

The package has snippets of four sources, with the mean of about 20 ratings of
each, from -4 for most negative to 4 for most positive. The better one of a pair
is the one rated as more positive.

Snippets of one source are dealt into small clusters. Neighbours in a cluster
make a pair if their ratings differ clearly, so a snippet is in two pairs at
most, and splits that cut no cluster share no snippet.
"""

import argparse
import csv
import gzip
import html
import io
import itertools
import pathlib
import random
import sys
import tarfile
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from w2s_jax import assets

SOURCES = {
  'tweet': 'tweets',
  'movie': 'movieReviewSnippets',
  'amazon': 'amazonReviewSnippets',
  'nyt': 'nytEditorialSnippets',
}
COLUMNS = 'cluster source text_1 rating_1 text_2 rating_2'.split()
SEED = 0
MAX_LENGTH = 160  # characters
CLUSTER = 3  # snippets
MIN_GAP = 0.3  # between the ratings of a pair


def read_snippets(package: pathlib.Path) -> tuple[dict, bytes]:
  """Returns (text, rating) by source, and the licence of the package."""
  with zipfile.ZipFile(package) as outer:
    root = f'{package.stem}/'
    licence = outer.read(root + 'LICENSE.txt')
    inner = outer.read(root + 'additional_resources/hutto_ICWSM_2014.tar.gz')
  with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
    files = {
      source: archive.extractfile(f'hutto_ICWSM_2014/{name}_GroundTruth.txt')
      for source, name in SOURCES.items()
    }
    return {source: parse(file) for source, file in files.items()}, licence


def parse(file) -> list[tuple[str, float]]:
  snippets = []
  for line in file.read().decode().split('\r\n'):
    if line:
      _, rating, text = line.split('\t')
      text = ' '.join(html.unescape(text).split())
      snippets.append((text, float(rating)))
  return snippets


def choose(snippets: dict) -> dict:
  """Drops duplicates in any source, long texts and texts without letters."""
  seen, chosen = set(), {}
  for source, rows in snippets.items():
    chosen[source] = []
    for text, rating in rows:
      word = any(char.isalpha() for char in text)
      if word and len(text) <= MAX_LENGTH and text.casefold() not in seen:
        seen.add(text.casefold())
        chosen[source].append((text, rating))
  return chosen


def make_pairs(snippets: dict) -> list[tuple]:
  """Returns rows in the order of COLUMNS."""
  rows, cluster = [], 0
  for source, chosen in snippets.items():
    random.Random(f'{SEED}.{source}').shuffle(chosen)
    for start in range(0, len(chosen), CLUSTER):
      cluster += 1
      dealt = chosen[start : start + CLUSTER]
      for (one, rating), (other, other_rating) in itertools.pairwise(dealt):
        if abs(rating - other_rating) >= MIN_GAP:
          ratings = f'{rating:.2f}', f'{other_rating:.2f}'
          rows.append((cluster, source, one, ratings[0], other, ratings[1]))
  return rows


def main():
  parser = argparse.ArgumentParser(description='Makes preference pairs.')
  parser.add_argument('--package', required=True, type=pathlib.Path)
  parser.add_argument('--out', required=True, type=pathlib.Path)
  args = parser.parse_args()
  snippets, licence = read_snippets(args.package)
  chosen = choose(snippets)
  rows = make_pairs(chosen)
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows([COLUMNS, *rows])
  data = gzip.compress(text.getvalue().encode(), 9, mtime=0)
  args.out.mkdir(parents=True, exist_ok=True)
  (args.out / 'pairs.csv.gz').write_bytes(data)
  (args.out / 'LICENSE.txt').write_bytes(licence)
  assets.write_manifest(args.out)
  for source in SOURCES:
    pairs = [row for row in rows if row[1] == source]
    used = {text for row in pairs for text in (row[2], row[4])}
    print(
      f'{source}: {len(snippets[source])} snippets, {len(chosen[source])} '
      f'chosen, {len(used)} in {len(pairs)} pairs'
    )
  print(f'{len(rows)} pairs, {len(data):,} bytes')


if __name__ == '__main__':
  main()
