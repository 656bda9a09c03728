"""The test rows on which a student and its supervisor disagree most, in HTML.

Shapes: N test examples, C classes, R rows shown.
"""

import html

import numpy as np

from w2s_jax import weak_labels
from w2s_jax.report import boards
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import row_files
from w2s_jax.tasks import class_names

_MOST_ROWS = 20  # of a student
_MOST_STUDENTS = 40
_MOST_CHARACTERS = 1_500_000  # of all students
_LONGEST_TEXT = 500
_ROLES = 'student', 'weak', 'ceiling'
_SHOWN_APART = {'id', 'group', 'split', 'label', 'fields', 'moves'}


def draw(workdir, rows, groups, load) -> str:
  """Returns a section of the page; '' without groups.

  Args:
    rows: of results.read. The first seed of each student is shown.
    groups: of report.aggregate, without controls.
    load: from the name of a stage to (file, predictions, ground truth).
  """
  of_files = row_files.read_test(workdir)
  stages = {}
  for row in rows:
    stages.setdefault(_name(row), (row['seed'], row['stages']))
  drawn, room = {}, _MOST_CHARACTERS
  for i in _in_turn(groups)[:_MOST_STUDENTS]:
    group = groups[i]
    seed, of_roles = stages[_name(group)]
    content = _student(group, of_roles, load, of_files)
    room -= len(content)
    if drawn and room < 0:
      break
    drawn[i] = seed, content
  return _page(groups, dict(sorted(drawn.items()))) if drawn else ''


def _name(row):
  return row['task'], groups_lib.pair(row), groups_lib.method(row)


def _in_turn(groups):
  """Places of the groups: the largest student of each task comes first."""
  places = {}
  for i, group in enumerate(groups):
    places.setdefault(group['task'], []).append(i)
  turns = []
  for of_task in places.values():
    # Stable: of equally large students the naive one that is not stopped early
    # is first.
    of_task.sort(
      key=lambda i: (
        -groups[i]['strong_parameters'],
        groups[i]['early_stopping'] != 'none',
      )
    )
    turns += enumerate(of_task)
  return [i for _, i in sorted(turns, key=lambda turn: turn[0])]


def most(student_NxC, weak_NxC):
  """Places of the rows with the largest differences, the largest first.

  A difference is the total variation distance of the two predictions: half the
  sum over classes of how much their probabilities differ.
  """
  distance_N = np.abs(student_NxC - weak_NxC).sum(-1) / 2
  return np.argsort(-distance_N, kind='stable')[:_MOST_ROWS]


def _student(group, stages, load, of_files):
  ids_N = group['test_ids']
  probs = {
    role: weak_labels.join(ids_N, load(stages[role])[1]).probs_NxC
    for role in _ROLES
  }
  truth = weak_labels.join(ids_N, load(stages['student'])[2]).probs_NxC
  ids = set(ids_N.tolist())
  texts = next((rows for rows in of_files if rows.keys() == ids), {})
  shown_R = most(probs['student'], probs['weak'])
  return '\n'.join(
    _row(
      texts.get(str(ids_N[i]), {}),
      {role: probs_NxC[i] for role, probs_NxC in probs.items()},
      truth[i],
      group,
    )
    for i in shown_R
  )


def _row(row, probs, truth_C, group):
  """A card: what was asked, the truth, and what each model answered."""
  if 'fen' in row:
    moves = boards.moves(row['fen'])
    classes = [*moves, *['no legal move'] * (len(truth_C) - len(moves))]
  else:
    classes = class_names.or_numbers(group['task'], len(truth_C))
  best = int(truth_C.argmax())
  lines = ''
  for role in _ROLES:
    answer = int(probs[role].argmax())
    look, mark = ('yes', '✓') if answer == best else ('no', '✗')
    model = group['weak_model' if role == 'weak' else 'strong_model']
    lines += (
      f'<tr><td title="{html.escape(model)}">{role}</td>'
      f'<td class="{look}">{html.escape(classes[answer])} {mark}</td>'
      f'<td>{probs[role][answer]:.2f}</td>'
      f'<td>{probs[role][best]:.2f}</td></tr>'
    )
  verdict = 'right' if int(probs['student'].argmax()) == best else 'wrong'
  arrows = {role: int(probs[role].argmax()) for role in ('weak', 'student')}
  board = boards.draw(row['fen'], best, **arrows) if 'fen' in row else ''
  return (
    f'<div class="row {verdict}">{board}{_texts(row)}'
    f'<div>truth: {html.escape(classes[best])}</div>'
    f'<table><thead><tr><th></th><th>answer</th><th>p</th><th>p of truth</th>'
    f'</tr></thead>{lines}</table></div>'
  )


def _texts(row):
  """All texts of a row's inputs, escaped and of bounded length."""
  if 'fen' in row:
    fen = html.escape(row['fen'])
    side = 'black' if ' b ' in fen else 'white'
    lines = fen.replace('/', '/<wbr>')  # where it may be broken
    return f'<p class="soft">{side} to move: {lines}</p>'
  texts = {k: x for k, x in row.items() if k not in _SHOWN_APART and x}
  named = len(texts) > 1
  shown = ''
  for name, text in texts.items():
    text = str(text)
    if len(text) > _LONGEST_TEXT:
      text = f'{text[:_LONGEST_TEXT]} … (truncated)'
    label = f'<span class="soft">{html.escape(name)}: </span>' if named else ''
    shown += f'<blockquote>{label}{html.escape(text)}</blockquote>'
  return shown


def _page(groups, drawn):
  """All students, with a choice of one and of right or wrong."""
  options, students = '', ''
  first = next(i for i in _in_turn(groups) if i in drawn)
  for i, (seed, content) in drawn.items():
    group = groups[i]
    title = html.escape(f'{": ".join(_name(group)[:2])}, {_name(group)[2]}')
    selected = ' selected' if i == first else ''
    options += f'<option value="student-{i}"{selected}>{title}</option>'
    n_right = content.count('<div class="row right">')
    students += (
      f'<div id="student-{i}"><p class="soft">{title}, seed {seed}: the '
      f'student is right in {n_right} of these rows.</p>'
      f'<div class="rows">{content}</div></div>\n'
    )
  left = len(groups) - len(drawn)
  left_out = f' Students left out for their number: {left}.' if left else ''
  has_boards = 'class="board"' in students
  arrows = (
    ' Arrows: the truth green, the student blue, its supervisor orange; one '
    'where moves are equal, in the first of these colours.'
    if has_boards
    else ''
  )
  return f"""<p>The {_MOST_ROWS} test rows on which the probabilities of student
and supervisor differ most (half the sum of differences over classes), of the
first seed.{left_out}{arrows}</p>
<div class="tools" data-script hidden><select id="student"
aria-label="student">{options}</select> <select id="which"
aria-label="right or wrong"><option value="all">all rows</option><option
value="right">student right</option><option value="wrong">student
wrong</option></select></div>
{boards.pieces() if has_boards else ''}{students}"""
