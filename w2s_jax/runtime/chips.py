"""Published figures of accelerators."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device; `topology` is the number of axes of a TPU slice.

  As published, for bfloat16. Of TPUs by cloud.google.com/tpu/docs/v4, v5e, v5p
  and v6e (v4 has its network by 1.1 PB/s of all-reduce in a pod of 4,096). Of
  NVIDIA GPUs by their data sheets, dense: nvidia.com/en-us/data-center/a100,
  h100 (SXM) and h200. The network of a GPU is NVLink, which joins few of them:
  between machines it is slower than this.
  """

  flops: float  # a second
  memory: float  # bytes
  bandwidth: float  # of the memory, bytes a second
  network: float  # bytes a second that leave it, all links together
  topology: int = 0


CHIPS = {
  'v4': Chip(275e12, 32 * 2**30, 1.228e12, 270e9, topology=3),
  'v5e': Chip(197e12, 16 * 2**30, 0.819e12, 200e9, topology=2),
  'v5p': Chip(459e12, 95 * 2**30, 2.765e12, 600e9, topology=3),
  'v6e': Chip(918e12, 32 * 2**30, 1.64e12, 400e9, topology=2),
  'a100-40gb': Chip(312e12, 40e9, 1.555e12, 300e9),
  'a100': Chip(312e12, 80e9, 2.039e12, 300e9),
  'h100': Chip(989e12, 80e9, 3.35e12, 450e9),
  'h200': Chip(989e12, 141e9, 4.8e12, 450e9),
}
# By device_kind of JAX. Variants of another power, such as 'NVIDIA H100 PCIe',
# are not in the table.
_KINDS = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
  'NVIDIA A100-SXM4-40GB': 'a100-40gb',
  'NVIDIA A100-SXM4-80GB': 'a100',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
}


def chip_of(device_kind):
  """Returns the Chip of an attached device, or None if it is not known."""
  return CHIPS.get(_KINDS.get(device_kind))


def peak_flops(devices):
  """Returns the bfloat16 FLOPs a second of all devices; None if not known."""
  chips = [chip_of(device.device_kind) for device in devices]
  return None if None in chips else sum(chip.flops for chip in chips)
