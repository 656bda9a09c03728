"""The long tables of a report: every model, every seed and every stage."""

from w2s_jax import results
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import markdown

_BEYOND_ACCURACY = {
  'auroc': 'AUROC',
  'nll': 'NLL',
  'ece': 'ECE',
  'accepted_accuracy': 'accepted',
  'legal': 'legal',
}


def beyond_accuracy(groups):
  """Each model once, by size; metrics that no model has are left out."""
  shown = {
    name: heading
    for name, heading in _BEYOND_ACCURACY.items()
    if any(
      g[f'{role}_{name}'] is not None for g in groups for role in results.ROLES
    )
  }
  lines = {}
  for group in groups:
    names = {
      'student': f'student of {group["weak_model"]}, '
      f'{groups_lib.method(group)}',
      'ceiling': groups_lib.marked('ceiling', group),
    }
    for role in results.ROLES:
      model = group['weak_model' if role == 'weak' else 'strong_model']
      name = names.get(role, role.replace('_', '-'))
      numbers = (group[f'{role}_{metric}'] for metric in shown)
      line = group['task'], model, name
      lines[line] = [*line, *map(markdown.number, numbers)]
  size = groups_lib.sizes(groups)
  ordered = sorted(lines.values(), key=lambda line: (line[0], size[line[1]]))
  return markdown.table(['task', 'model', 'role', *shown.values()], ordered)


def seeds(rows, groups):
  named = {results.name_of(group): group for group in groups}
  header = ['task', 'weak → strong', 'method', 'seed', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'agreement', 'where right']
  header += ['where wrong']
  agreement = list(results.AGREEMENT)
  if any(row['via'] for row in rows):
    header += ['with teacher', 'teacher right', 'teacher wrong']
    agreement += results.TEACHER_AGREEMENT
  lines = []
  for row in rows:
    group = named[results.name_of(row)]
    percents = [row[f'{role}_accuracy'] for role in results.ROLES]
    if group['zero_shot_is_chance']:
      percents[-1] = group['zero_shot_accuracy']
    percents += [row[name] for name in agreement]
    percents = [markdown.number(x, scale=100, digits=1) for x in percents]
    for i, role in enumerate(results.ROLES):
      if role in groups_lib.GAINING:
        of_seed = [group['seeds'].index(row['seed'])]
        mark = groups_lib.mark(*groups_lib.gain(group, role, of_seed))
        percents[i] = f'{percents[i]} {mark}'.strip()
    percents.insert(4, markdown.number(row['pgr'], digits=2))
    seconds = [
      markdown.number(row.get(name), digits=0)
      for name in ('seconds', 'compile_seconds')
    ]
    names = (
      row['task'],
      groups_lib.pair(row),
      groups_lib.method(row),
      str(row['seed']),
    )
    lines.append([*names, *percents, *seconds])
  return markdown.table([*header, 'seconds', 'compiling'], lines)


def stages(rows):
  """A line of links to the folders of each student and seed."""
  header = ['task', 'weak → strong', 'method', 'seed', 'folders']
  lines = []
  for row in rows:
    names = row['task'], groups_lib.pair(row), groups_lib.method(row)
    links = (
      f'[{role.replace("_", "-")}](stages/{row["stages"][role]}/)'
      for role in results.ROLES
    )
    lines.append([*names, str(row['seed']), ' '.join(links)])
  return markdown.table(header, lines)
