"""Stored tensors to parameters and back: rows of the tables of hf_families.py.

A row lists the parameters that one stored tensor holds, and its layout.
"""

from typing import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
  """How one stored tensor holds its parameters."""

  split: Callable  # (tensor, config) -> an array for each parameter
  join: Callable  # (arrays, config) -> tensor
  # (tensor, index) -> that part of the one parameter that it holds; None where
  # the tensor has to be read whole.
  part: Callable | None = None


def _split_heads(tensor, config):
  """Splits GPT-NeoX: query, key and value of the first head, of the second."""
  by_head = tensor.reshape(config.num_heads, 3, -1, *tensor.shape[1:])
  return [by_head[:, i].reshape(-1, *tensor.shape[1:]).T for i in range(3)]


def _join_heads(arrays, config):
  parts = [x.T.reshape(config.num_heads, -1, *x.T.shape[1:]) for x in arrays]
  return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[2:])


AS_IS = Layout(
  lambda x, config: [x],
  lambda arrays, config: arrays[0],
  part=lambda x, index: x[index],
)
TRANSPOSED = Layout(
  lambda x, config: [x.T],
  lambda arrays, config: arrays[0].T,
  part=lambda x, index: x[index[::-1]].T,
)
THIRDS = Layout(
  lambda x, config: np.split(x, 3, axis=-1),
  lambda arrays, config: np.concatenate(arrays, axis=-1),
)
HEADS = Layout(_split_heads, _join_heads)


class Row(NamedTuple):
  """One stored tensor; names may hold '{i}', the number of a layer."""

  stored: str
  paths: tuple
  layout: Layout = AS_IS


def embedding(stored, path):
  """Returns the rows of an embedding table."""
  return (Row(f'{stored}.weight', (f'{path}/embedding',)),)


def norm(stored, path, bias=True, layout=AS_IS):
  """Returns the rows of a norm."""
  scale = Row(f'{stored}.weight', (f'{path}/scale',), layout)
  return (scale, Row(f'{stored}.bias', (f'{path}/bias',)))[: 1 + bias]


def linear(stored, path, bias=True, layout=TRANSPOSED):
  """Returns the rows of a linear layer.

  torch.nn.Linear stores [out, in], the Conv1D of GPT-2 [in, out] (AS_IS).
  """
  kernel = Row(f'{stored}.weight', (f'{path}/kernel',), layout)
  return (kernel, Row(f'{stored}.bias', (f'{path}/bias',)))[: 1 + bias]


def fused(stored, layout):
  """Returns the rows of query, key and value in one tensor."""
  return tuple(
    Row(
      f'{stored}.{name}',
      tuple(
        f'layer_{{i}}/attention/{part}/{leaf}'
        for part in ('query', 'key', 'value')
      ),
      layout,
    )
    for name, leaf in (('weight', 'kernel'), ('bias', 'bias'))
  )
