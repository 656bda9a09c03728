"""Packaging of w2s_jax; lower bounds are versions that were tested."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
  r"__version__ = '(.*)'", (ROOT / 'w2s_jax' / '__init__.py').read_text()
).group(1)

GCS = 'gcsfs>=2025.2'  # locks need its create-only-if-absent write
PANDAS = 'pandas>=2.2'
TEST = [
  GCS,
  'gguf>=0.19',
  'ipykernel>=6',
  'nbclient>=0.10',
  'nbformat>=5.10',
  PANDAS,
  'pyarrow>=15',
  'pytest>=8',
  'pytest-xdist>=3.6',
  'ruff>=0.17',
]

setuptools.setup(
  name='w2s_jax',
  version=VERSION,
  description='Weak-to-strong generalization in JAX.',
  long_description=(ROOT / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  # Configs import `configs`, as they do in a checkout.
  packages=setuptools.find_packages(
    include=['w2s_jax*', 'configs', 'experiments*']
  ),
  entry_points={'console_scripts': ['w2s = experiments.cli:main']},
  package_data={
    'w2s_jax': ['data/*', 'data/*/*', 'report/*.css', 'report/*.js']
  },
  python_requires='>=3.11',
  install_requires=[
    'absl-py>=2.1',
    'chess>=1.11',
    'etils[epath]>=1.9',
    'flax>=0.12.8',
    'fsspec>=2025.2',
    'grain>=0.2.18',
    'importlib_resources>=6',  # tensorflow-datasets needs it, undeclared
    'jax>=0.10.2',
    'markdown-it-py>=3.0',
    'matplotlib>=3.9',
    'ml-collections>=1.1',
    'numpy>=2.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8',
    'pip>=23.0',  # downloads the pinned packages with weights and data
    'rich>=13.7',
    'safetensors>=0.5',
    'scipy>=1.13',
    'tensorboardX>=2.6.5',
    'tensorflow-datasets>=4.9.10',
    'tokenizers>=0.21',
  ],
  extras_require={
    'cuda': ['jax[cuda13]'],
    'gcs': [GCS],
    'gguf': ['gguf>=0.19'],  # reads GGUF weights, as asset:smollm2-135m
    'hf': ['datasets>=3.0', 'huggingface_hub>=0.25'],
    'notebook': [PANDAS],  # tables of the Python API
    'parquet': ['pyarrow>=15'],  # reads .parquet and .zst
    'tensorboard': ['tensorboard>=2.21'],  # the viewer; the core writes
    'test': TEST,
    'torch': ['torch>=2.4', 'transformers>=4.56'],  # opens exported models
    'tpu': ['jax[tpu]'],
    'wandb': ['wandb>=0.31'],
  },
)
