"""Writes the model of a finished stage as a Hugging Face folder.

w2s export runs/nlp/student-logconf-minilm-l6-probe-by-weak-seed0 exported/nlp
"""

from experiments import folders


def main(arguments):
  workdir, _ = folders.split_stage(arguments.stage)
  folders.check_is_workdir(workdir)
  from w2s_jax import export

  export.export(arguments.stage, arguments.folder)
  print(f'Written: {arguments.folder}')


if __name__ == '__main__':
  parser = folders.Parser(__doc__)
  parser.add_argument(
    'stage', metavar='WORKDIR/STAGE', help='or the beginning of its name'
  )
  parser.add_argument('folder', metavar='FOLDER', help='to write')
  folders.run(main, parser)
