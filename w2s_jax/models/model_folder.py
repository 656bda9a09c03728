"""Finds the model folder of the config field `weights`; fetches if absent."""

import pathlib

from etils import epath

from w2s_jax import assets
from w2s_jax import errors
from w2s_jax.models import gguf as gguf_lib
from w2s_jax.models import presets

_FILES = (
  'config.json',
  'tokenizer.json',
  'model.safetensors',
  'model-*.safetensors',
  'model.safetensors.index.json',
)


def folder(weights):
  """Returns the folder of `weights`; fetches it if absent or damaged.

  Args:
    weights: 'asset:NAME', 'hf:OWNER/NAME' or 'hf:OWNER/NAME@REVISION' at
      Hugging Face, or a folder, on a disk or in a bucket (gs://).

  Raises:
    ValueError: unknown asset.
    FileNotFoundError: it cannot be fetched, or the bucket has no such model.
    ImportError: a package that it needs is not installed.
  """
  kind, _, name = weights.partition(':')
  if kind == 'hf':
    return _snapshot(name)
  if '://' in weights:
    return _in_bucket(weights)
  if kind != 'asset':
    return _on_disk(weights)
  found = assets.path(name)
  for file in found.glob('*.gguf'):
    return gguf_lib.converted(file)
  return found


def _on_disk(weights):
  """Returns a folder of this machine; what is none may be another name."""
  folder = pathlib.Path(weights).expanduser()
  if folder.is_dir():
    return folder
  if folder.exists():
    raise errors.UserError(f'weights={weights} is a file; name its folder.')
  hint = f'did you mean hf:{weights}? ' if weights.count('/') < 2 else ''
  if weights in presets.PRESETS:
    hint = f'did you mean hf:{weights} or random:{weights}? '
  if weights in assets.ASSETS or weights in assets.shipped():
    hint = f'did you mean asset:{weights}? '
  raise errors.MissingFileError(
    f'weights={weights}: there is no such folder; {hint}Kinds: asset:NAME, '
    'hf:OWNER/NAME, random:PRESET, or a folder.'
  )


def _in_bucket(weights):
  """Returns a folder of a bucket, after a look whether a model is there."""
  folder = epath.Path(weights)
  try:
    found = (folder / 'config.json').exists()
  except ImportError as error:
    raise errors.MissingPackageError(
      f'weights={weights} needs the package of its kind of bucket, for gs:// '
      f'pip install "w2s_jax[gcs]" ({error}).'
    ) from None
  except Exception as error:  # no rights, no network: clients raise all kinds
    reason = ' '.join(str(error).split())[:200]
    raise errors.MissingFileError(
      f'weights={weights} cannot be read ({reason}); are you signed in to the '
      'bucket?'
    ) from error
  if not found:
    raise errors.MissingFileError(
      f'weights={weights}: no config.json is there; name a folder with '
      'config.json, tokenizer.json and safetensors.'
    )
  return folder


def _snapshot(name):
  """Returns the folder of a Hugging Face model, in huggingface_hub's cache."""
  try:
    import huggingface_hub
  except ModuleNotFoundError as error:
    raise errors.MissingPackageError(
      f'weights=hf:{name} needs the package {error.name}: '
      'pip install "w2s_jax[hf]".'
    ) from None
  repository, _, revision = name.partition('@')
  try:
    found = huggingface_hub.snapshot_download(
      repository, revision=revision or None, allow_patterns=_FILES
    )
  except (OSError, ValueError) as error:
    raise errors.MissingFileError(
      f'weights=hf:{name} cannot be fetched ({error}). Without a network, '
      'name a folder that holds the model.'
    ) from error
  return pathlib.Path(found)
