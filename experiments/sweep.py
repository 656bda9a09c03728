"""Runs each point of a sweep as a job of its own, all in one workdir.

  python experiments/sweep.py --config=configs/nlp.py --workdir=runs/l --jobs=2
  python experiments/sweep.py ... --emit=slurm > sweep.sbatch  # or jobset

Points are those of `experiments/main.py --sweep`. What several of them need, a
ceiling for example, one job makes and the others wait for; a job that dies
loses only what its last checkpoint does not have, and the same command goes on
from there. After jobs that were emitted, `main.py --sweep` writes the report.
"""

import pathlib
import shlex
import subprocess
import sys
import textwrap

from absl import flags

import launch
import main as main_lib

JOBS = flags.DEFINE_integer('jobs', 2, 'Points that run here at a time.')
EMIT = flags.DEFINE_enum(
  'emit', None, ['slurm', 'jobset'], 'Print such jobs in place of running them.'
)
IMAGE = flags.DEFINE_string('image', 'w2s_jax', 'Container of a jobset.')


def main():
  flags.FLAGS.sweep = True
  count = len(main_lib.points())
  command = [
    *('python', 'experiments/main.py', '--sweep'),
    *(arg for arg in sys.argv[1:] if is_of_main(arg)),
  ]
  if EMIT.value:
    print({'slurm': slurm, 'jobset': jobset}[EMIT.value](command, count))
    return
  if JOBS.value < 1:
    raise ValueError(f'--jobs={JOBS.value} must be at least 1.')
  command[:2] = sys.executable, str(launch.ROOT / 'experiments' / 'main.py')
  failed = run(command, count, pathlib.Path(launch.WORKDIR.value) / 'jobs')
  if len(failed) < count:
    subprocess.run(command, check=not failed)  # all is cached: the report
  if failed:
    logs = ', '.join(sorted(map(str, failed))[:3])
    raise ValueError(f'{len(failed)} of {count} points failed; see {logs}.')


def is_of_main(arg):
  """Whether a flag is handed on, as those of this file are not."""
  name = arg.lstrip('-').partition('=')[0]
  return name not in ('jobs', 'emit', 'image', 'sweep')


def run(command, count, logs):
  """Runs all points, some at a time; returns the logs of those that failed."""
  logs.mkdir(parents=True, exist_ok=True)
  waiting, running, failed, done = list(range(count)), {}, [], 0
  while waiting or running:
    while waiting and len(running) < JOBS.value:
      point = waiting.pop(0)
      log = logs / f'point-{point}.log'
      with log.open('w') as file:
        job = subprocess.Popen(
          [*command, f'--point={point}'], stdout=file, stderr=file
        )
      running[job] = log
    job = first_to_end(running)
    log = running.pop(job)
    done += 1
    if job.returncode:
      failed.append(log)
    status = f'exit {job.returncode}, see {log}' if job.returncode else 'done'
    print(f'[{done}/{count}] {log.stem}: {status}', flush=True)
  return failed


def first_to_end(running):
  while True:
    for job in running:
      try:
        job.wait(timeout=0.2)
        return job
      except subprocess.TimeoutExpired:
        pass


def slurm(command, count):
  """A job array."""
  return textwrap.dedent(f"""\
    #!/bin/bash
    #SBATCH --job-name=w2s
    #SBATCH --array=0-{count - 1}
    #SBATCH --output=w2s-%A-%a.log
    #SBATCH --requeue
    srun {shlex.join(command)} --point=$SLURM_ARRAY_TASK_ID""")


def jobset(command, count):
  """An indexed job of Kubernetes; add what the cluster asks for."""
  line = f'{shlex.join(command)} --point=$JOB_COMPLETION_INDEX'
  return textwrap.dedent(f"""\
    apiVersion: jobset.x-k8s.io/v1alpha2
    kind: JobSet
    metadata:
      name: w2s
    spec:
      failurePolicy:
        maxRestarts: 10
      replicatedJobs:
      - name: points
        replicas: 1
        template:
          spec:
            completionMode: Indexed
            completions: {count}
            parallelism: {count}
            backoffLimitPerIndex: 10
            template:
              spec:
                restartPolicy: Never
                containers:
                - name: w2s
                  image: {IMAGE.value}
                  command: [bash, -c, {line!r}]""")


if __name__ == '__main__':
  launch.run(main)
