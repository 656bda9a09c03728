"""What `pip install` brings: all modules, and all files beside them."""

import runpy

import pytest
import setuptools

from experiments import doctor

import tiny


@pytest.fixture
def given(monkeypatch):
  """What setup.py gives to setuptools."""
  fields = {}
  monkeypatch.chdir(tiny.ROOT)  # as pip does
  monkeypatch.setattr(setuptools, 'setup', fields.update)
  runpy.run_path('setup.py')
  return fields


def test_extras_that_are_named_are_there(given):
  named = {extra for extra, _ in doctor._EXTRAS.values()}
  assert named | {'cuda', 'tpu'} <= given['extras_require'].keys()


def test_all_modules_and_files_are_installed(given):
  for top in ('w2s_jax', 'configs', 'experiments'):
    modules = (tiny.ROOT / top).rglob('*.py')
    folders = {path.parent.relative_to(tiny.ROOT) for path in modules}
    assert {'.'.join(x.parts) for x in folders} <= set(given['packages'])
  package = tiny.ROOT / 'w2s_jax'
  installed = {
    path
    for pattern in given['package_data']['w2s_jax']
    for path in package.glob(pattern)
  }
  files = {
    path
    for path in package.rglob('*')
    if path.is_file() and path.suffix not in ('.py', '.pyc')
  }
  assert files and files <= installed
