"""`python -m w2s_jax ...` is `w2s ...`.

The commands are in the folder experiments/, beside this package in a checkout
and where pip installs it. The package does not depend on them: the folder is
found by its name, and only here.
"""

import pathlib
import runpy
import sys

if __name__ == '__main__':
  # In place of the current folder, which may have a configs/ of its own.
  sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])
  runpy.run_module('experiments.cli', run_name='__main__', alter_sys=True)
