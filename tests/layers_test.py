"""Who may import whom, and that importing does nothing."""

import ast
import graphlib
import subprocess
import sys

import pytest

import tiny

# Imports point downward. A package is one room, without circles inside.
PACKAGES = ('models', 'report', 'runtime', 'tasks')
LAYERS = (
  ('__main__',),
  ('export',),
  ('study', 'report'),
  ('loading',),
  ('steps',),
  ('check_config', 'fine_tune', 'results'),
  ('stages', 'graph', 'early_stopping'),
  ('evaluate', 'population'),
  ('train', 'predict'),
  ('checkpoint', 'weak_labels'),
  ('models', 'runtime'),
  ('accumulate', 'batching', 'adapt', 'optimizer'),
  ('losses',),
  ('tasks', 'sharding', 'metrics'),
  ('assets',),
  ('digests',),
  ('errors',),
)
HEIGHT = {
  name: -number for number, layer in enumerate(LAYERS) for name in layer
}

PACKAGE = sorted((tiny.ROOT / 'w2s_jax').rglob('*.py'))
CONFIGS = sorted((tiny.ROOT / 'configs').glob('*.py'))


def module_name(path):
  """'w2s_jax.tasks.splits' for its file."""
  parts = path.relative_to(tiny.ROOT).with_suffix('').parts
  return '.'.join(parts).removesuffix('.__init__')


def imported(path):
  """Full names of all that a file imports, in functions too."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def room(name):
  """'tasks' for 'w2s_jax.tasks.splits'."""
  return name.split('.')[1]


def test_every_room_has_a_layer():
  rooms = {room(module_name(p)) for p in PACKAGE if p.name != '__init__.py'}
  assert rooms == set(HEIGHT)


@pytest.mark.parametrize('path', PACKAGE, ids=module_name)
def test_imports_point_downward(path):
  own = imported(path)
  assert not {n for n in own if n.split('.')[0] in ('configs', 'experiments')}
  for name in own:
    if name.startswith('w2s_jax.'):
      here, there = room(module_name(path)), room(name)
      inside = here == there and here in PACKAGES
      assert inside or HEIGHT[there] < HEIGHT[here], name


def test_no_circles_inside_a_package():
  names = {module_name(path): path for path in PACKAGE}
  graph = {name: imported(path) & names.keys() for name, path in names.items()}
  tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize('path', CONFIGS, ids=module_name)
def test_configs_import_ml_collections_and_tables_of_tasks_only(path):
  for name in imported(path) - {'w2s_jax.tasks.nlp', 'w2s_jax.tasks.reward'}:
    top = name.split('.')[0]
    allowed = {'configs', 'ml_collections'} | sys.stdlib_module_names
    assert top in allowed, name


def test_importing_configs_brings_no_jax():
  """Else a mistake on the command line would take seconds to be named."""
  imports = '\n'.join(f'import {module_name(p)}' for p in CONFIGS)
  succeeds(f'{imports}\nimport sys\nassert "jax" not in sys.modules')


@pytest.mark.parametrize('path', PACKAGE + CONFIGS, ids=module_name)
def test_no_flags_outside_experiments(path):
  assert not imported(path) & {'absl.app', 'absl.flags'}
  tree = ast.walk(ast.parse(path.read_text()))
  assert 'FLAGS' not in {n.attr for n in tree if isinstance(n, ast.Attribute)}


def test_importing_starts_no_backend():
  """Else jax.distributed and the flags of main.py would come too late."""
  imports = '\n'.join(f'import {module_name(p)}' for p in PACKAGE + CONFIGS)
  check = (
    f'{imports}\nimport sys\nimport jax\n'
    'assert "pandas" not in sys.modules\n'
    'jax.config.update("jax_num_cpu_devices", 3)\n'  # raises if too late
    'assert len(jax.devices()) == 3\n'
  )
  succeeds(check)


def test_importing_the_package_imports_nothing_else():
  succeeds(
    'import sys\n'
    'import w2s_jax\n'
    'assert "jax" not in sys.modules\n'
    'assert {"study", "load_results", "load_model"} <= set(dir(w2s_jax))\n'
    'assert callable(w2s_jax.study.run)\n'
    'assert callable(w2s_jax.load_model)\n'
    'assert not hasattr(w2s_jax, "load_modle")\n'
  )


def succeeds(program):
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=tiny.ROOT,
    env=tiny.environment(),
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
