"""Eight simulated devices, strict ranks, the repository on the path."""

import os
import pathlib
import platform
import shutil
import sys
import tempfile

# Programs run only a few times here, so compiling fast matters most: the flags
# make it three times as fast. Processes that tests start inherit them.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
  ]
)
if platform.machine() == 'x86_64':  # `matmul_dtype=auto` is the same for all.
  os.environ['XLA_FLAGS'] += ' --xla_cpu_max_isa=AVX512'

import jax

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config):
  config.option.loadscopereorder = False  # of pytest-xdist: see FIRST
  if 'W2S_TESTS' not in os.environ:  # else it is that of the process above
    os.environ['W2S_TESTS'] = tempfile.mkdtemp(prefix='w2s-tests-')
    config.add_cleanup(
      lambda: shutil.rmtree(os.environ.pop('W2S_TESTS'), ignore_errors=True)
    )
  config.addinivalue_line(
    'markers', 'slow: left out unless -m selects it, as in pytest -m slow'
  )


# The modules that take longest, so that no worker ends with one of them.
FIRST = (
  *('distributed', 'resume', 'sweep', 'population', 'colab', 'run_record'),
  *('pretrain', 'study', 'adapt', 'train', 'checkpoint', 'generator'),
)


def pytest_collection_modifyitems(config, items):
  place = {f'{name}_test': i for i, name in enumerate(FIRST)}
  items.sort(key=lambda item: place.get(item.module.__name__, len(FIRST)))
  if config.getoption('-m'):
    return
  slow = [item for item in items if item.get_closest_marker('slow')]
  config.hook.pytest_deselected(items=slow)
  items[:] = [item for item in items if item not in slow]
