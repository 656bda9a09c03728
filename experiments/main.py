"""Runs a weak-to-strong study.

  python experiments/main.py --config=configs/nlp.py --workdir=runs/nlp
  w2s run --config=nlp --workdir=runs/nlp       the same, without a checkout

`--config=FILE.py:arg,...` passes arguments to the config file; any field is
set with `--config.a.b=value`. The same command again resumes or, where all is
done, only rewrites the report: with --by=Rating,Themes also by such fields of
the test rows. At SIGTERM or ctrl-C it saves a checkpoint and exits with 75 or
130: start it again. A second signal ends it at once.

`--profile=student-xent:10-19` traces these steps of the first student with that
loss. Open the folder profile/ of its stage in TensorBoard (`pip install xprof`)
or the file in it that ends in trace.json.gz on ui.perfetto.dev.
"""

import contextlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags

from experiments import command_line
from experiments import points
from experiments import processes
from w2s_jax import errors
from w2s_jax.runtime import preemption
from w2s_jax.runtime import workdir_path

SWEEP = flags.DEFINE_bool(
  'sweep', False, "Run every point of the config file's sweep() in one workdir."
)
POINT = flags.DEFINE_integer(
  'point', None, 'Run the point of this number only, and write no report.'
)
BY = flags.DEFINE_list(
  'by', [], 'Also report by these fields of the test rows, such as Rating.'
)
PROFILE = flags.DEFINE_string(
  'profile',
  None,
  'STAGE:FIRST-LAST: trace these steps of the first stage to be run whose name '
  'begins with STAGE, to WORKDIR/stages/.../profile.',
)
flags.adopt_module_key_flags(processes)


def main():
  workdir_path.check(command_line.WORKDIR.value, '--workdir')
  processes.join()
  with preemption.exit_on_peer_failure():
    run()


def run():
  with command_line.many_imports():
    import jax

    from w2s_jax import study
    from w2s_jax.runtime import profiling
    from w2s_jax.runtime import run_record

  profile = None
  if PROFILE.value is not None:
    profile = profiling.parse(PROFILE.value)
  workdir = command_line.WORKDIR.value
  primary = jax.process_index() == 0
  console = command_line.console(quiet=not primary)
  configs = points.expand(sweep=SWEEP.value, point=POINT.value)
  if profile and len(configs) > 1:
    raise errors.UserError(
      f'{profile}: there are {len(configs)} studies; choose one with --point.'
    )
  for line in points.notes_on_weights(configs):
    console.print(line, highlight=False, soft_wrap=True)
  record = contextlib.nullcontext()
  if primary:
    fields = run_record.describe(sys.argv, configs, point=POINT.value)
    record = run_record.keep(workdir, fields)
  with record:
    studies = points.with_data(configs, console)
    for config, splits in points.check_fields(BY.value, studies):
      study.run(
        config,
        workdir,
        console=console,
        splits=splits,
        profile=profile,
        as_frame=False,
      )
    if primary and POINT.value is None:
      write_report(workdir, console, BY.value)
      show_figures(configs, workdir, console)


def write_report(workdir, console, by):
  from w2s_jax.report import by_field
  from w2s_jax.report import console as console_lib
  from w2s_jax.report import report  # brings matplotlib, only needed here

  groups = report.write(workdir, by)
  console.print(console_lib.tables(groups))
  for field in by:
    binned = by_field.aggregate(workdir, groups, field)
    console.print(console_lib.by_field(field, binned))
  console.print(f'Report: {workdir}/report.html')


def show_figures(configs, workdir, console):
  from w2s_jax import checkpoint
  from w2s_jax.runtime import trackers

  names = [name for c in configs for name in trackers.parse(c.tracker)]
  trackers.Tracking(
    dict.fromkeys(names), checkpoint.absolute(workdir), console
  ).show_figures()


if __name__ == '__main__':
  preemption.listen()  # before slow imports, and before jax.distributed
  command_line.run(main)
