"""Accelerators of this machine, divided among jobs that run side by side."""

import json
import os
import subprocess
import sys

from w2s_jax import errors

# In a process of its own, which then gives the devices back. A chip of some
# TPUs is two devices.
_ASK = """
import json, jax
found = jax.local_devices()
chips = {tuple(getattr(x, 'coords', (x.id,))) for x in found}
print(json.dumps([found[0].platform, len(chips)]))
"""
_SECONDS = 120
_NAMES = {'gpu': 'GPUs', 'tpu': 'TPU chips'}
# Of a host: chips of one process -> their arrangement.
_TPU_BOUNDS = {1: '1,1,1', 2: '1,2,1', 4: '2,2,1', 8: '2,4,1'}
_FIRST_PORT = 8476  # of the processes of a TPU


def found():
  """Returns (platform, number of GPUs or TPU chips) that JAX would use here.

  Raises:
    errors.UserError: JAX finds no devices.
  """
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    return 'cpu', 1
  try:
    done = subprocess.run(
      [sys.executable, '-c', _ASK],
      env=os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
      capture_output=True,
      text=True,
      timeout=_SECONDS,
    )
    reason = (done.stderr.strip().splitlines() or ['no output'])[-1]
  except subprocess.TimeoutExpired:  # one host of a TPU pod waits for others
    done, reason = None, f'no answer in {_SECONDS} s'
  if done is None or done.returncode:
    raise errors.UserError(
      f'--jobs: the devices of this machine are not known ({reason}); '
      '--jobs=1 does not ask for them.'
    )
  return tuple(json.loads(done.stdout.splitlines()[-1]))


def environments(jobs):
  """Returns the environment variables of each of some jobs at a time.

  Accelerators are divided equally among them; one job has them all.

  Args:
    jobs: their number, or None: 2 on the CPU, else 1.

  Raises:
    errors.UserError: there are more jobs than accelerators.
  """
  if jobs is not None and jobs < 1:
    raise errors.UserError(f'--jobs={jobs} must be at least 1.')
  if jobs == 1:
    return [{}]
  platform, count = found()
  if platform == 'cpu':
    return [{}] * (jobs or 2)
  if jobs is None:
    return [{}]
  if jobs > count:
    name = _NAMES.get(platform, platform)
    raise errors.UserError(
      f'--jobs={jobs}: this machine has {count} {name}, and two jobs do not '
      f'fit on one; set it to at most {count}, or leave it out for one at a '
      'time.'
    )
  return [_share(platform, count, jobs, job) for job in range(jobs)]


def _share(platform, count, jobs, job):
  """Environment variables of one job."""
  size = count // jobs
  if platform == 'tpu':
    size = max(x for x in _TPU_BOUNDS if x <= size)
    chips = map(str, range(job * size, (job + 1) * size))
    port = _FIRST_PORT + job
    return {
      'TPU_VISIBLE_CHIPS': ','.join(chips),
      'TPU_CHIPS_PER_PROCESS_BOUNDS': _TPU_BOUNDS[size],
      'TPU_PROCESS_BOUNDS': '1,1,1',
      'TPU_PROCESS_ADDRESSES': f'localhost:{port}',
      'TPU_PROCESS_PORT': str(port),
      'CLOUD_TPU_TASK_ID': '0',
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  names = visible.split(',') if visible else [str(i) for i in range(count)]
  chosen = names[job * size : (job + 1) * size]
  return {'CUDA_VISIBLE_DEVICES': ','.join(chosen)}
