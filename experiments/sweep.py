"""Runs each point of a sweep as a job of its own, all in one workdir.

  w2s sweep --config=nlp --workdir=runs/ladder --jobs=2
  python experiments/sweep.py --config=configs/nlp.py --workdir=runs/l --jobs=2
  python experiments/sweep.py ... --emit=slurm > sweep.sbatch
  python experiments/sweep.py ... --emit=jobset | kubectl apply -f -
  python experiments/sweep.py ... --emit=xmanager > w2s.py
  xmanager launch w2s.py -- --executor=Kubernetes

The points are those of `experiments/main.py --sweep`. A stage that several
points need, such as a ceiling, is trained by one job while the others wait; a
job that dies loses what its last checkpoint does not have, and the same command
resumes it. Jobs divide the accelerators of this machine among them, each its
own; a point that needs all runs with --jobs=1, the default where there are any.
After emitted jobs are done, `main.py --sweep` writes the report.
"""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags

from experiments import command_line
from experiments import devices
from experiments import jobs
from experiments import main as main_lib
from experiments import points
from w2s_jax import errors
from w2s_jax.runtime import workdir_path

JOBS = flags.DEFINE_integer(
  'jobs', None, 'Points that run here at a time; default: 2 on the CPU, else 1.'
)
EMIT = flags.DEFINE_enum(
  'emit', None, list(jobs.KINDS), 'Print such jobs instead of running them.'
)
IMAGE = flags.DEFINE_string(
  'image',
  'w2s_jax',
  'Container of a jobset or of XManager; its working directory is a checkout.',
)
flags.adopt_module_key_flags(main_lib)  # handed on to each point


def main():
  count = len(points.expand(sweep=True))
  command = [
    *('python', 'experiments/main.py', '--sweep'),
    *handed_on(sys.argv[1:]),
  ]
  if EMIT.value:
    print(jobs.KINDS[EMIT.value](command, count, IMAGE.value))
    return
  workdir_path.check(command_line.WORKDIR.value, '--workdir')
  environments = devices.environments(JOBS.value)
  main_file = command_line.ROOT / 'experiments' / 'main.py'
  command[:2] = sys.executable, str(main_file)
  workdir = command_line.WORKDIR.value
  logs = 'jobs' if '://' in workdir else f'{workdir}/jobs'
  failed = run(command, count, pathlib.Path(logs), environments)
  if len(failed) < count:
    subprocess.run(command, check=not failed)  # all is cached: the report
  if failed:
    logs = ', '.join(sorted(map(str, failed))[:3])
    raise errors.UserError(
      f'{len(failed)} of {count} points failed; see {logs}.'
    )


def handed_on(args):
  """Returns the arguments but for the flags of this file and --sweep."""
  args, kept = iter(args), []
  for arg in args:
    name, equals, _ = arg.lstrip('-').partition('=')
    if name in ('jobs', 'emit', 'image'):
      if not equals:
        next(args)  # --jobs 2
    elif name != 'sweep':
      kept.append(arg)
  return kept


def run(command, count, logs, environments):
  """Runs all points; returns the logs of those that failed.

  Args:
    command: that runs a point once `--point=N` is added to it.
    count: of points.
    logs: folder.
    environments: of devices.py, one for each job at a time.
  """
  logs.mkdir(parents=True, exist_ok=True)
  waiting, running, failed, done = list(range(count)), {}, [], 0
  free = list(environments)
  while waiting or running:
    while waiting and free:
      point, environment = waiting.pop(0), free.pop(0)
      log = logs / f'point-{point}.log'
      with log.open('w') as file:
        job = subprocess.Popen(
          [*command, f'--point={point}'],
          stdout=file,
          stderr=file,
          env=os.environ | environment,
        )
      running[job] = log, environment
    job = wait_for_any(running)
    log, environment = running.pop(job)
    free.append(environment)
    done += 1
    if job.returncode:
      failed.append(log)
    status = f'exit {job.returncode}, see {log}' if job.returncode else 'done'
    print(f'[{done}/{count}] {log.stem}: {status}', flush=True)
  return failed


def wait_for_any(running):
  """Returns the first of some processes that ends."""
  while True:
    for job in running:
      try:
        job.wait(timeout=0.2)
        return job
      except subprocess.TimeoutExpired:
        pass


if __name__ == '__main__':
  command_line.run(main)
