"""The splits of a study: validation and test rows, and the slices of a seed.

Validation and test sets depend on data.seed alone and are shared by all seeds;
each seed draws its own weak half and transfer slices from what is left, by
group. A chain of models needs one transfer slice for each of its steps.
"""

import dataclasses
import itertools
import json
from typing import NamedTuple

import numpy as np

from w2s_jax import errors
from w2s_jax.tasks import candidates
from w2s_jax.tasks import examples as examples_lib
from w2s_jax.tasks import registry
from w2s_jax.tasks import splits

_HELD_OUT = 'validation', 'test'


class Slices(NamedTuple):
  """Rows of one seed."""

  weak: examples_lib.Examples  # for the supervisor, with ground truth
  transfer: tuple  # Examples for each step of a chain, labelled by its teacher


def load(task, data, *, seeds, num_transfer, pools=None):
  """Reads a task and draws all splits.

  Args:
    task: name of the task.
    data: the `data` fields of a config.
    num_transfer: transfer slices of a seed.
    pools: a dict in which what was read is kept for the next call; that of
      another source replaces it.

  Returns:
    {'validation': Examples, 'test': Examples} and {seed: Slices}.

  Raises:
    errors.UserError: too few rows, or as registry.load.
  """
  sizes = data.splits
  for name, size in sizes.items():
    if size == 0:
      raise errors.UserError(
        f'data.splits.{name}=0: it needs rows; -1 shares what is left.'
      )
  select = data.select.to_dict()
  key = json.dumps([task, data.source, select], sort_keys=True, default=list)
  pools = {} if pools is None else pools
  if key not in pools:
    pools.clear()
    pools[key] = registry.open_pool(task, source=data.source, select=select)
  pool, test_pool = pools[key]
  wanted = _slice_sizes(sizes, num_transfer)

  def draw(pool):
    return _draw(pool, test_pool, data, seeds, wanted)

  if isinstance(pool, candidates.Candidates):
    chosen = candidates.draw(pool, draw)
    drawn = {key: candidates.examples(part) for key, part in chosen.items()}
  else:
    chosen = drawn = draw(pool)
  evaluated = {
    name: dataclasses.replace(
      drawn[name], origin={name: drawn[name].fingerprint}
    )
    for name in _HELD_OUT
  }
  # Of all rows that could be drawn, whichever proved bad: for any seeds.
  rest = _without(pool, [chosen[name] for name in _HELD_OUT])
  origin = {'pool': rest.fingerprint, 'data_seed': data.seed}
  slices = {}
  for seed in seeds:
    parts = {
      name: dataclasses.replace(
        drawn[seed, name], origin=origin | _drawn_as(name, wanted)
      )
      for name in wanted
    }
    splits.check_disjoint({**evaluated, **parts})
    weak, *transfer = parts.values()
    slices[seed] = Slices(weak, tuple(transfer))
  return evaluated, slices


def _draw(pool, test_pool, data, seeds, wanted):
  """Returns {name: rows}, and {(seed, name): rows} of the slices of a seed."""
  sizes = data.splits
  held_out = {'validation': sizes.validation}
  if test_pool is None:
    held_out = {'test': sizes.test, **held_out}
    chosen = splits.split(pool, held_out, seed=data.seed)
    test = pool.take(chosen['test'])
  else:
    chosen = splits.split(test_pool, {'test': sizes.test}, seed=data.seed)
    test = test_pool.take(chosen['test'])
    pool = splits.exclude_groups(pool, test.groups)
    chosen = splits.split(pool, held_out, seed=data.seed)
  drawn = {'validation': pool.take(chosen['validation']), 'test': test}
  rest = _without(pool, drawn.values())
  for seed in seeds:
    chosen = splits.split(rest, wanted, seed=f'{data.seed}/{seed}')
    drawn |= {(seed, name): rest.take(x) for name, x in chosen.items()}
  return drawn


def _without(pool, parts):
  """Returns the rows of a pool that are in no group of some splits."""
  groups = np.concatenate([part.groups for part in parts])
  return splits.exclude_groups(pool, groups)


def outline(data, *, num_transfer):
  """As `load`, of one seed, without any data: rows that can only be counted.

  A split that shares what is left counts as empty.
  """
  wanted = _slice_sizes(data.splits, num_transfer)
  sizes = {
    'validation': data.splits.validation,
    'test': data.splits.test,
    **wanted,
  }
  found = {}
  for name, size in sizes.items():
    ids = np.array([f'{name} {i}' for i in range(max(size, 0))])
    found[name] = examples_lib.Examples(
      ids=ids,
      groups=ids,
      inputs=[None] * len(ids),
      label_probs_NxC=None,
      origin={'data': data.to_dict() | {'splits': {}}, 'name': name}
      | _drawn_as(name, sizes),
    )
  evaluated = {name: found.pop(name) for name in ('validation', 'test')}
  weak, *transfer = found.values()
  return evaluated, Slices(weak, tuple(transfer))


def _slice_sizes(sizes, num_transfer):
  names = ['transfer', *(f'transfer_{i}' for i in range(2, num_transfer + 1))]
  return {'weak': sizes.weak, **dict.fromkeys(names, sizes.transfer)}


def _drawn_as(name, sizes):
  """All sizes that decide which rows a slice gets, see splits.split."""
  names = list(sizes)
  fixed = [other for other in names if sizes[other] >= 0]
  if sizes[name] >= 0:
    fixed = fixed[: fixed.index(name) + 1]
    return {'slice': {other: sizes[other] for other in fixed}}
  shared = [other for other in names if sizes[other] == -1]
  return {
    'slice': {other: sizes[other] for other in fixed},
    'share': [shared.index(name), len(shared)],
  }


def as_rows(examples, split):
  """Yields examples as JSON: inputs, group, split, label, fields of the row."""
  label_probs_NxC = examples.label_probs_NxC
  columns = zip(
    examples.ids.tolist(),
    examples.inputs,
    examples.groups.tolist(),
    label_probs_NxC.argmax(axis=1).tolist(),
    examples.fields or itertools.repeat('{}'),
  )
  for i, (id_, inputs, group, label, fields) in enumerate(columns):
    shown = {'text': inputs} if isinstance(inputs, str) else inputs._asdict()
    label_C = label_probs_NxC[i]
    yield {
      'id': id_,
      **shown,
      'group': group,
      'split': split,
      'label': label if label_C[label] == 1 else label_C.tolist(),
      'fields': json.loads(fields),
    }
