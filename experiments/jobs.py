"""Jobs of a cluster, one for each point of a sweep, as text.

Each kind takes the command that runs a point once `--point=N` is added to it,
and the number of points.
"""

import json
import shlex
import string
import textwrap

from w2s_jax.runtime import preemption


def slurm(command, count, image):
  """A job array; a point that was asked to stop is queued again."""
  del image  # jobs run in the checkout that they are submitted from
  return _fill(
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


def jobset(command, count, image):
  """An indexed job of Kubernetes; add the resources that the cluster needs."""
  line = f'{shlex.join(command)} --point=$JOB_COMPLETION_INDEX'
  line = line.replace('$', '$$')  # Kubernetes makes one dollar of two
  return _fill(
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
    image=image,
    line=json.dumps(line, ensure_ascii=False),  # a JSON string is YAML, too
  )


def xmanager(command, count, image):
  """A launch script of XManager, with a work unit for each point.

  The image must have no entry point: the arguments of a job are its command.
  """
  return _fill(
    """\
    from absl import app
    from absl import flags
    from xmanager import xm
    from xmanager import xm_local

    EXECUTOR = flags.DEFINE_enum(
      'executor', 'Vertex', ['Vertex', 'Kubernetes', 'Local'], 'Where jobs run.'
    )
    # Of each job: add what it needs, such as a100=1.
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
    image=repr(image),
    count=count,
  )


def _fill(template, **fields):
  # Dedented before it is filled in: a field may have lines of its own.
  return string.Template(textwrap.dedent(template)).substitute(fields)


KINDS = {'slurm': slurm, 'jobset': jobset, 'xmanager': xmanager}
