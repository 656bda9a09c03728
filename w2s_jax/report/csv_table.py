"""The results as CSV: a line for each student over its seeds, unrounded."""

import csv
import io

from w2s_jax import results

_NUMBERS = (
  *(f'{role}_accuracy{end}' for role in results.ROLES for end in ('', '_se')),
  *('pgr', 'pgr_low', 'pgr_high', 'pgr_status', 'gap', 'gap_se'),
  *('weak_label_accuracy', *results.AGREEMENT),
  *(
    f'{role}_{name}'
    for role in results.ROLES
    for name in ('auroc', 'nll', 'ece')
  ),
)


def to_csv(groups) -> str:
  """Returns a CSV with a header; a value that is not known is empty.

  Args:
    groups: of report.aggregate.
  """
  fields = *results.STUDENT, *results.SIZES, 'n_test', 'seeds', *_NUMBERS
  text = io.StringIO()
  writer = csv.DictWriter(
    text, fields, extrasaction='ignore', lineterminator='\n'
  )
  writer.writeheader()
  for group in groups:
    seeds = ' '.join(map(str, group['seeds']))
    writer.writerow(group | {'via': ' '.join(group['via']), 'seeds': seeds})
  return text.getvalue()
