"""Several processes of one study, on the hosts of a TPU pod or elsewhere."""

import faulthandler

from absl import flags

from experiments import command_line

DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One of several processes; a TPU pod needs no more.'
)
COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0; only needed outside TPU pods.'
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Only needed outside TPU pods.'
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Only needed outside TPU pods.'
)

# Seconds without a heartbeat after which a process counts as lost and the
# others exit.
_HEARTBEAT = 60


def join():
  """Connects this process to the others; without the flags it is alone."""
  import jax

  if DISTRIBUTED.value or COORDINATOR.value:
    jax.distributed.initialize(
      COORDINATOR.value,
      NUM_PROCESSES.value,
      PROCESS_ID.value,
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
    if not command_line.TRACEBACK.value:
      faulthandler.disable()  # jax logs why it ends with a lost process
