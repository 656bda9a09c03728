"""Results by a field of the test rows, such as a puzzle's rating.

Shapes: S seeds, N test examples.
"""

import numpy as np

from w2s_jax import errors
from w2s_jax.report import controls
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import row_files

_FEWEST_ROWS = 20  # of a bin
_MOST_BINS = 5  # of a field of numbers
_FEW_VALUES = 12  # up to here each value is a bin


def check(field, fields):
  """Raises UserError unless a field is among those of some test rows."""
  if field not in fields:
    raise errors.UserError(
      f'--by={field}: the test rows have no such field; they have '
      f'{", ".join(sorted(fields)) or "none"}.'
    )


def aggregate(workdir, groups, field) -> list[dict]:
  """Returns a dict for each group and each bin of a field.

  Like a group of `report.aggregate`, of the test examples in the bin alone;
  `bin` is its name and `n_test` their number. Bins of numbers are quantiles;
  an example is in the bin of each item of a list, or word of a text. Bins of
  few examples are left out, and so are tasks without the field, and controls.

  Raises:
    errors.UserError: no test row has the field, or it has too many values.
  """
  groups, _ = controls.split(groups)
  of_files = [
    {id_: row.get('fields', {}) for id_, row in rows.items()}
    for rows in row_files.read_test(workdir)
  ]
  binned, names = [], set()
  for group in groups:
    ids = group['test_ids'].tolist()
    fields = next((x for x in of_files if x.keys() == set(ids)), {})
    names |= {name for row in fields.values() for name in row}
    values_N = [fields.get(id_, {}).get(field) for id_ in ids]
    for name, in_bin_N in bins(values_N).items():
      binned.append(
        group
        | {'bin': name, 'n_test': int(in_bin_N.sum())}
        | groups_lib.scores(
          {role: x[:, in_bin_N] for role, x in group['correct'].items()},
          n_classes=group['n_classes'],
          zero_shot_is_chance=group['zero_shot_is_chance'],
        )
      )
  if not names:  # written before rows had fields, or in another workdir
    raise errors.UserError(
      f'--by={field}: {workdir}/rows has no fields of the test rows; delete '
      f'{workdir}/rows and run again: finished stages are not repeated.'
    )
  check(field, names)
  if not binned:
    raise errors.UserError(
      f'--by={field}: no value of it is that of {_FEWEST_ROWS} test rows.'
    )
  return binned


def bins(values_N) -> dict[str, np.ndarray]:
  """{name: bool [N]} of the bins of a field; None is a row without it."""
  found = [value for value in values_N if value not in (None, '')]
  numbers_N = np.array([_number(value) for value in values_N])
  few = len(set(map(str, found))) <= _FEW_VALUES
  if not few and np.isfinite(numbers_N).sum() == len(found):
    return _quantiles(numbers_N)
  named = {}
  for i, value in enumerate(values_N):
    for name in _names(value, whole=few):
      named.setdefault(name, np.zeros(len(values_N), bool))[i] = True
  kept = {x: in_N for x, in_N in named.items() if in_N.sum() >= _FEWEST_ROWS}
  if few and np.isfinite(numbers_N).sum() == len(found):
    return dict(sorted(kept.items(), key=lambda item: float(item[0])))
  return dict(sorted(kept.items(), key=lambda item: (-item[1].sum(), item[0])))


def _number(value):
  """A number, also from its spelling in a file of texts; else nan."""
  try:
    return np.nan if isinstance(value, list | None) else float(value)
  except ValueError:
    return np.nan


def _names(value, *, whole):
  """The bins of a value: it, its items or its words."""
  if value in (None, ''):
    return []
  if isinstance(value, list):
    return dict.fromkeys(map(str, value))
  return [str(value)] if whole else dict.fromkeys(str(value).split())


def _quantiles(numbers_N):
  """Bins of about equally many rows; equal numbers are in one bin."""
  known_N = np.isfinite(numbers_N)
  count = min(_MOST_BINS, known_N.sum() // _FEWEST_ROWS)
  if not count:
    return {}
  ends = np.quantile(numbers_N[known_N], np.arange(1, count) / count)
  place_N = np.searchsorted(np.unique(ends), numbers_N)
  found = {}
  for place in range(count):
    in_N = known_N & (place_N == place)
    if in_N.any():
      low, high = numbers_N[in_N].min(), numbers_N[in_N].max()
      found[f'{low:g} to {high:g}' if high > low else f'{low:g}'] = in_N
  return found
