"""Prepares data sets of tfds_builder.py from upstream files in a folder.

  python -m w2s_jax.tasks.prepare NAME ... FOLDER

Without arguments it lists the data sets and where to get their files. The
result goes to $TFDS_DATA_DIR, else to ~/tensorflow_datasets.
"""

import sys

from w2s_jax.tasks import tfds_builder


def main(arguments: list[str]):
  *names, folder = arguments or ['']
  if not names:
    for name in tfds_builder.DATA_SETS:
      print(f'{name}: {tfds_builder.how_to_get(name)}.')
    sys.exit('Give names and a folder.' if folder else 0)
  try:
    for name in names:
      tfds_builder.prepare(name, folder)
  except (ValueError, FileNotFoundError, ImportError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main(sys.argv[1:])
