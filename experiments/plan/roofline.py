"""Cost of a compiled program, and its least time on a chip.

The least time of a step is the longest of the times of its arithmetic, its
memory traffic and its communication, each as if it ran alone.
"""

import collections
import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device; `topology` is the number of axes of a TPU slice.

  As published, for bfloat16: Cloud TPU documentation (system architecture of
  each version; v4 has its network by 1.1 PB/s of all-reduce in a pod of 4,096)
  and NVIDIA data sheets (dense, SXM). The network of a GPU is NVLink, which
  joins few of them: between machines it is slower than this.
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
  'h100': Chip(989e12, 80e9, 3.35e12, 450e9),
  'h200': Chip(989e12, 141e9, 4.8e12, 450e9),
}
# By device_kind of JAX. Variants of another power, such as 'NVIDIA H100 PCIe',
# are not in the table.
KINDS = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
}
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2}
COLLECTIVE = re.compile(
  r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|'
  r'collective-permute)(-start)?\((.*)'
)


def chip_of(device_kind):
  """Returns the Chip of an attached device, or None if it is not known."""
  return CHIPS.get(KINDS.get(device_kind))


@dataclasses.dataclass(frozen=True)
class Program:
  """A step of one device: arithmetic, bytes in memory, communication."""

  flops: float
  traffic: float  # of the memory
  temporary: int
  peak: int
  collectives: dict  # kind: (how many, bytes of the whole array of each)
  sent: float

  def seconds(self, chip):
    """Least time: {'arithmetic': ..., 'memory': ..., 'network': ...}."""
    return {
      'arithmetic': self.flops / chip.flops,
      'memory': self.traffic / chip.bandwidth,
      'network': self.sent / chip.network,
    }


def read(compiled, *, pieces=1):
  """Returns the Program of a compiled step.

  The compiler counts the operations in a loop once. All passes through a model
  are in a loop over the `pieces` of an accumulated batch, so its counts are
  multiplied by `pieces`; this overcounts the optimizer.
  """
  cost, stats = compiled.cost_analysis(), compiled.memory_analysis()
  found, sent = communication(compiled.as_text())
  return Program(
    flops=pieces * cost['flops'],
    traffic=pieces * cost.get('bytes accessed', 0.0),
    temporary=stats.temp_size_in_bytes,
    peak=stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes,
    collectives=found,
    sent=sent,
  )


def communication(text):
  """Returns ({kind: (count, bytes)}, bytes sent by a device) of HLO text.

  An operation in a loop counts once per iteration. In a ring of n
  devices (n - 1) / n of an array leave each that gathers or scatters it, and
  twice that where it is reduced for all.
  """
  found, sent = {}, 0.0
  for name, runs, lines in computations(text):
    for match in filter(None, map(COLLECTIVE.search, lines)):
      result, kind, start, rest = match.groups()
      sizes = array_bytes(result)
      # An asynchronous operation gives (what goes in, what comes out, ...).
      size = max(sizes) if start else sum(sizes)
      devices = group_size(rest)
      if kind == 'reduce-scatter':
        size *= devices
      if name.startswith('all-reduce-scatter'):
        kind = 'reduce-scatter'  # as compiled for TPUs
      share = 1.0 if kind == 'collective-permute' else 1 - 1 / devices
      sent += runs * size * share * (2 if kind == 'all-reduce' else 1)
      count, total = found.get(kind, (0, 0))
      found[kind] = count + runs, total + runs * size
  return found, sent


def computations(text):
  """Returns [(name, number of calls, lines)] of the functions of HLO text."""
  functions = {}
  for line in text.splitlines():
    if line.startswith(('%', 'ENTRY')) and line.endswith('{'):
      name = line.removeprefix('ENTRY ').split()[0].lstrip('%')
      functions[name] = lines = []
    elif line.startswith(' '):
      lines.append(line)
  runs = collections.defaultdict(int)
  listed = []
  for name, lines in reversed(functions.items()):  # callers come last in HLO
    runs[name] = runs[name] or 1
    listed.append((name, runs[name], lines))
    for line in lines:
      turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
      for called in re.findall(r'(?:calls|body|to_apply)=%([\w.\-]+)', line):
        runs[called] += runs[name] * (int(turns[1]) if turns else 1)
  return listed


def group_size(text):
  """Returns the group size of a collective; HLO has three notations."""
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
    return 1 + match[1].count(',')
  if match := re.search(r'replica_groups=\[\d+,(\d+)\]', text):
    return int(match[1])
  if match := re.search(r'replica_groups=mesh\[(.*?)\].*?\{(.*?)\}', text):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    return math.prod(int(sizes[x]) for x in re.findall(r"'(\w+)'", match[2]))
  return 1


def array_bytes(text):
  """Returns the bytes of each array in HLO such as 'bf16[8,128]{1,0}'."""
  sizes = []
  for kind, shape in re.findall(r'(\w+)\[([\d,]*)\]', text):
    count = math.prod(int(n) for n in shape.split(',') if n)
    sizes.append(count * BYTES.get(kind, 4))
  return sizes or [0]
