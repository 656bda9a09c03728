"""The report in Markdown."""

from w2s_jax import results
from w2s_jax.report import controls as controls_lib
from w2s_jax.report import details
from w2s_jax.report import differences as differences_lib
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import markdown
from w2s_jax.report import readings
from w2s_jax.report import run_lines

_OVER_TASKS = 'median_pgr.png', 'tasks.png'


def _sentences(sentences):
  """Paragraphs, each with the empty line after it."""
  return ''.join(f'{sentence}\n\n' for sentence in sentences)


def _results_table(groups):
  header = ['task', 'weak → strong', 'method', 'labels', 'weak', 'student']
  header += ['ceiling', 'zero-shot', 'PGR', 'seeds']
  lines = []
  for group in groups:
    names = group['task'], groups_lib.pair(group), groups_lib.method(group)
    labels = markdown.number(group['weak_label_accuracy'], scale=100, digits=1)
    numbers = labels, *groups_lib.accuracies(group), groups_lib.pgr_text(group)
    lines.append([*names, *numbers, str(group['n_seeds'])])
  return markdown.table(header, lines)


def _over_tasks_table(medians):
  header = ['weak → strong', 'method', 'tasks', 'weak', 'student', 'ceiling']
  header += ['zero-shot', 'median PGR', 'tasks with PGR', 'left out']
  lines = []
  for median in medians:
    n_tasks, n_defined = median['n_tasks'], median['n_defined']
    names = groups_lib.pair(median), groups_lib.method(median), str(n_tasks)
    numbers = *groups_lib.accuracies(median), groups_lib.pgr_text(median)
    counts = str(n_defined), str(n_tasks - n_defined)
    lines.append([*names, *numbers, *counts])
  return markdown.table(header, lines)


def _differences_table(differences):
  """In the order of the groups; with ceilings where some of them differ."""
  ceilings = any(difference['ceiling'] for difference in differences)
  header = ['task', 'weak → strong', 'method', 'compared with', 'seeds']
  header += ['student', *(['ceiling'] if ceilings else [])]
  lines = []
  for difference in differences:
    names = difference['task'], groups_lib.pair(difference)
    method = groups_lib.method(difference), difference['than']
    numbers = [differences_lib.text(difference['student'])]
    if ceilings:
      numbers.append(differences_lib.text(difference['ceiling']))
    lines.append([*names, *method, str(difference['n_seeds']), *numbers])
  return markdown.table(header, lines)


def _differences(differences):
  """A section, '' where no two methods differ in one field only."""
  if not differences:
    return ''
  return f"""## Paired differences

{_differences_table(differences)}

Student accuracy of the method minus that of the same method with one part of it
plain, in points, on the same test examples and seeds. In brackets is the 95 %
interval from resampling both; with one seed it leaves out the noise of
training. Ceilings are compared where the two methods have different ones.

"""


def _median_differences(differences):
  """A table for the section over tasks, '' without differences."""
  medians = differences_lib.over_tasks(differences)
  if not medians:
    return ''
  header = ['weak → strong', 'method', 'compared with', 'tasks']
  header += ['median difference', 'above 0', 'below 0']
  lines = [
    [
      *(groups_lib.pair(median), groups_lib.method(median), median['than']),
      *(str(median['n_tasks']), differences_lib.text(median['student'])),
      *(str(median['above']), str(median['below'])),
    ]
    for median in medians
  ]
  return f"""{markdown.table(header, lines)}

Paired differences in student accuracy, in points: their median over tasks, its
95 % interval from resampling tasks, and on how many tasks the interval of the
task's own difference is above or below 0.

"""


def _links(groups):
  """A section on each step of the chains, '' without chains."""
  if not any(group['via'] and group['links'] for group in groups):
    return ''
  header = ['task', 'method', 'chain', 'teacher', 'student', 'repeated']
  header += ['corrected', 'lost']
  lines = {}  # a link that begins several chains is shown once
  for group in groups:
    models = group['weak_model'], *group['via'], group['strong_model']
    method = groups_lib.method(group | {'via': ()})
    for i, link in enumerate(group['links']):
      name = group['task'], method, ' → '.join(models[: i + 2])
      shares = (markdown.number(x, 100, 1) for x in link.values())
      lines[name] = [*name, *shares]
  return f"""## Links

{markdown.table(header, lines.values())}

Each step of a chain: the last model named is the student of the one before it.
Accuracies of both in %, means over seeds. Of the teacher's errors on test
examples the share, in %, that the student repeated, which is the same wrong
answer, and that it corrected; of the teacher's right answers the share that it
lost. A student that repeats nearly all errors imitates its teacher.

"""


def _over_tasks(groups, differences, captions):
  """A section, '' where each student is of one task only."""
  medians = groups_lib.over_tasks(groups)
  if not medians:
    return ''
  return f"""## Over tasks

{_over_tasks_table(medians)}

Medians. Accuracies, in %, are over all tasks, ± their standard error from
resampling tasks. PGR is over only those tasks where it is defined, which is
where the ceiling is more than 2 standard errors above the weak model; the
others are counted as left out. In brackets is its 95 % interval from resampling
tasks; of fewer than six tasks there is none.

{_sentences(readings.legend(medians))}{_median_differences(differences)}\
{markdown.bullets(map(readings.over_tasks, medians))}

{markdown.images(captions, _OVER_TASKS)}

"""


def _controls(groups):
  """A section, '' without controls."""
  found = controls_lib.read(groups)
  if not found:
    return ''
  header = ['task', 'weak → strong', 'method', 'labels', 'student']
  header += ['compared with', 'difference', 'expected', 'seeds']
  lines = []
  for control in found:
    names = control['task'], groups_lib.pair(control)
    labels = markdown.number(control['weak_label_accuracy'], 100, 1)
    student = groups_lib.accuracies(control)[results.ROLES.index('student')]
    verdict = '' if control['holds'] else ': NOT SO'
    lines.append(
      [
        *(*names, groups_lib.method(control), labels, student),
        *(control['than'], differences_lib.text(control['difference'])),
        *(control['expected'] + verdict, str(control['n_seeds'])),
      ]
    )
  return f"""## Controls

{markdown.table(header, lines)}

The same students, of other labels of the same rows: shuffled among them, their
mean for every row, with as many errors in rows drawn at random, or the truth.
Labels is their accuracy in %, the difference is in points, with its 95 %
interval. What is expected is denied where the interval excludes it.

{_sentences(controls_lib.sentences(found))}"""


def _by_field(field, binned):
  """A section on results by a field of the test rows."""
  header = ['task', 'weak → strong', 'method', field, 'rows', 'weak']
  header += ['student', 'ceiling', 'zero-shot', 'PGR']
  lines = []
  for group in binned:
    names = group['task'], groups_lib.pair(group), groups_lib.method(group)
    bin_ = group['bin'], f'{group["n_test"]:,}'
    numbers = *groups_lib.accuracies(group), groups_lib.pgr_text(group)
    lines.append([*names, *bin_, *numbers])
  return f"""## By {field}

{markdown.table(header, lines)}

{_sentences(readings.legend(binned))}{_BY_FIELD}"""


def to_markdown(rows, groups, captions, run=None, by=None):
  """Returns the report; html_page.py knows the kinds of blocks used here.

  Args:
    rows: of results.read. groups: of report.aggregate.
    captions: {file name: caption} of the figures.
    run: the record of the latest run, or None.
    by: {field: groups of by_field.aggregate}, or None.
  """
  every = groups
  groups, _ = controls_lib.split(every)
  differences = differences_lib.paired(groups)
  tests = (f'{g["task"]} {g["n_test"]:,}' for g in groups)
  models = (f'{m} ({n:,})' for m, n in groups_lib.sizes(groups).items())
  seeds = sorted({seed for g in groups for seed in g['seeds']})
  others = [name for name in captions if name not in _OVER_TASKS]
  notes = _sentences(readings.legend(groups) + readings.rows_truncated(groups))
  sentences = f'{markdown.bullets(map(readings.of_student, groups))}\n\n'
  if groups_lib.many_tasks(groups):
    sentences = ''  # the table must do
  by_fields = ''.join(_by_field(*item) for item in (by or {}).items())
  via = _VIA if any(g['via'] for g in groups) else ''
  generative = _GENERATIVE if any(g['generative'] for g in groups) else ''
  accepted = any(g['student_accepted_accuracy'] is not None for g in groups)
  return f"""# Weak-to-strong generalization

{run_lines.text(run)}- Test examples: {', '.join(dict.fromkeys(tests))}
- Models and their parameters: {', '.join(models)}
- Methods: {'; '.join(dict.fromkeys(map(groups_lib.method, groups)))}
- Seeds: {', '.join(map(str, seeds))}

{_over_tasks(groups, differences, captions)}## Results

{_results_table(groups)}

{notes}Test accuracy in % ± its standard error over examples and seeds. The
student is the strong model trained on labels of the weak one, the ceiling is
the same model trained on the truth, zero-shot is the model before any
fine-tuning; labels is the accuracy, in %, of the student's training labels.
PGR = (student - weak) / (ceiling - weak): 0 is no better than the supervisor,
1 is the ceiling. In brackets is its 95 % interval, from resampling seeds and
examples.

{via}{generative}{sentences}{markdown.images(captions, others)}

{_differences(differences)}{_controls(every)}{_links(groups)}{by_fields}\
## Beyond accuracy

{details.beyond_accuracy(groups)}

{_ACCEPTED if accepted else ''}## Every seed

{details.seeds(rows, every)}

Agreement: share of test examples, in %, on which the student predicts what the
weak model does; then only those where the weak model is right, and where it is
wrong. With teacher: the same for the model that labelled the student's rows,
the last but one of a chain. A PGR of – is undefined. Seconds: training and
evaluating the student; compiling: those of them in which it waited for
compilation, which later students of the same shapes do not need.

## Stages

{details.stages(rows)}

The folder of each stage: its config, metrics, predictions and parameters.
{run_lines.config(run)}"""


_VIA = """A method with via is bootstrapping: the weak model teaches the first
model named, each model labels fresh rows for the next, and the last one is the
student. So it is trained on the transfer slice after those of the chain before
it, on labels of the model just before it; weak is still the start of the chain.
Its ceiling is the one of the same model on the first transfer slice.

"""

_BY_FIELD = """As under Results, of the test examples with these values alone.
Numbers are in bins of about equally many; an example with several values is in
the line of each; values of few examples are left out.

"""

_GENERATIVE = """A method with + generative has unsupervised generative
fine-tuning (section 5.2.2 of the paper): before they saw labels, the student,
its ceiling and the models in between were trained as language models on the
texts of the first transfer slice. Weak and zero-shot are as without it.

"""

_ACCEPTED = """Accepted is accuracy where a move that mates at once also counts
as right; legal is the share of answers that are legal moves.

"""
