"""Runs each point of a sweep as a job of its own, all in one workdir.

  python experiments/sweep.py --config=configs/nlp.py --workdir=runs/l --jobs=2
  python experiments/sweep.py ... --emit=slurm > sweep.sbatch
  python experiments/sweep.py ... --emit=jobset | kubectl apply -f -
  python experiments/sweep.py ... --emit=xmanager > w2s.py
  xmanager launch w2s.py -- --executor=Kubernetes

Points are those of `experiments/main.py --sweep`. What several of them need, a
ceiling for example, one job makes and the others wait for; a job that dies
loses only what its last checkpoint does not have, and the same command goes on
from there. After jobs that were emitted, `main.py --sweep` writes the report.
"""

import json
import pathlib
import shlex
import string
import subprocess
import sys
import textwrap

from absl import flags
import main as main_lib

from w2s_jax.runtime import preemption

import launch

JOBS = flags.DEFINE_integer('jobs', 2, 'Points that run here at a time.')
EMIT = flags.DEFINE_enum(
  'emit',
  None,
  ['slurm', 'jobset', 'xmanager'],
  'Print such jobs in place of running them.',
)
IMAGE = flags.DEFINE_string(
  'image',
  'w2s_jax',
  'Container of a jobset or of XManager; its working directory is a checkout.',
)


def main():
  flags.FLAGS.sweep = True
  count = len(main_lib.points())
  command = [
    *('python', 'experiments/main.py', '--sweep'),
    *handed_on(sys.argv[1:]),
  ]
  if EMIT.value:
    jobs = {'slurm': slurm, 'jobset': jobset, 'xmanager': xmanager}
    print(jobs[EMIT.value](command, count))
    return
  if JOBS.value < 1:
    raise ValueError(f'--jobs={JOBS.value} must be at least 1.')
  command[:2] = sys.executable, str(launch.ROOT / 'experiments' / 'main.py')
  workdir = launch.WORKDIR.value
  logs = 'jobs' if '://' in workdir else f'{workdir}/jobs'
  failed = run(command, count, pathlib.Path(logs))
  if len(failed) < count:
    subprocess.run(command, check=not failed)  # all is cached: the report
  if failed:
    logs = ', '.join(sorted(map(str, failed))[:3])
    raise ValueError(f'{len(failed)} of {count} points failed; see {logs}.')


def handed_on(args):
  """Arguments but for the flags of this file, as --jobs=2 or --jobs 2."""
  args, kept = iter(args), []
  for arg in args:
    name, equals, _ = arg.lstrip('-').partition('=')
    if name in ('jobs', 'emit', 'image'):
      if not equals:
        next(args)
    elif name != 'sweep':
      kept.append(arg)
  return kept


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
  """A job array; what is asked to stop before its end goes on later."""
  return filled(
    """\
    #!/bin/bash
    #SBATCH --job-name=w2s
    #SBATCH --array=0-$last
    #SBATCH --output=w2s-%A-%a.log
    #SBATCH --open-mode=append
    #SBATCH --requeue
    #SBATCH --signal=TERM@120
    srun $command --point=$$SLURM_ARRAY_TASK_ID
    status=$$?
    if [ $$status = $stopped ]; then
      scontrol requeue $$SLURM_JOB_ID
    fi
    exit $$status""",
    last=count - 1,
    command=shlex.join(command),
    stopped=preemption.EXIT_CODE,
  )


def jobset(command, count):
  """An indexed job of Kubernetes; add what the cluster asks for."""
  line = f'{shlex.join(command)} --point=$JOB_COMPLETION_INDEX'
  line = line.replace('$', '$$')  # Kubernetes makes one dollar of two
  return filled(
    """\
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
            completions: $count
            parallelism: $count
            backoffLimitPerIndex: 10
            template:
              spec:
                restartPolicy: Never
                containers:
                - name: w2s
                  image: $image
                  command: [bash, -c, $line]""",
    count=count,
    image=IMAGE.value,
    line=json.dumps(line, ensure_ascii=False),  # so it is YAML, too
  )


def xmanager(command, count):
  """A launch script of XManager, with a work unit for each point.

  The image must have no entry point: the arguments of a job are its command.
  """
  return filled(
    """\
    from absl import app
    from absl import flags
    from xmanager import xm
    from xmanager import xm_local

    EXECUTOR = flags.DEFINE_enum(
      'executor', 'Vertex', ['Vertex', 'Kubernetes', 'Local'], 'Where jobs run.'
    )
    # Of each job: add what it asks for, such as a100=1.
    REQUIREMENTS = xm.JobRequirements(cpu=8, ram=32 * xm.GiB)
    COMMAND = (
    $command
    )


    def main(argv):
      del argv
      executor = getattr(xm_local, EXECUTOR.value)(requirements=REQUIREMENTS)
      if EXECUTOR.value == 'Local':  # all at once, without a container
        program = xm.binary(executor.Spec(), '/usr/bin/env')
      else:
        program = xm.container(executor.Spec(), $image)
      with xm_local.create_experiment('w2s') as experiment:
        [executable] = experiment.package([program])
        for point in range($count):
          args = [*COMMAND, f'--point={point}']
          job = xm.Job(executable, executor, name=f'point-{point}', args=args)
          experiment.add(job)


    if __name__ == '__main__':
      app.run(main)""",
    command=textwrap.indent(',\n'.join(map(repr, command)), '  ') + ',',
    image=repr(IMAGE.value),
    count=count,
  )


def filled(template, **fields):
  """Indentation goes first: a field may have lines of its own."""
  return string.Template(textwrap.dedent(template)).substitute(fields)


if __name__ == '__main__':
  launch.run(main)
