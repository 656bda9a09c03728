"""Writes the report of a workdir again, and prints its tables.

w2s report runs/nlp
w2s report runs/chess --by=Rating,Themes
"""

from experiments import command_line
from experiments import folders
from experiments import main as main_lib


def main(arguments):
  folders.check_is_workdir(arguments.workdir)
  by = [field for field in arguments.by.split(',') if field]
  main_lib.write_report(arguments.workdir, command_line.console(), by)


if __name__ == '__main__':
  parser = folders.Parser(__doc__)
  parser.add_argument('workdir', metavar='WORKDIR')
  parser.add_argument(
    '--by', default='', metavar='FIELDS', help='of the test rows'
  )
  folders.run(main, parser)
