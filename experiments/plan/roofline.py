"""Cost of a compiled program, and its least time on a chip.

The least time of a step is the longest of the times of its arithmetic, its
memory traffic and its communication, each as if it ran alone.
"""

import collections
import dataclasses
import math
import re

BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2}
COLLECTIVE = re.compile(
  r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|'
  r'collective-permute)(-start)?\((.*)'
)
# Splash attention, see w2s_jax/models/attention.py: its kernels, and how many
# matmuls of queries by keys, or of their size, each computes.
SPLASH = re.compile(
  r'%splash_mha_(fwd|dq|dkv)\S* = .*operand_layout_constraints=\{(.*)'
)
SPLASH_MATMULS = {'fwd': 2, 'dq': 3, 'dkv': 4}


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
    """Least time: {'arithmetic': ..., 'memory': ..., 'network': ...}.

    Args:
      chip: a w2s_jax.runtime.chips.Chip.
    """
    return {
      'arithmetic': self.flops / chip.flops,
      'memory': self.traffic / chip.bandwidth,
      'network': self.sent / chip.network,
    }


def read(compiled, *, pieces=1):
  """Returns the Program of a compiled step.

  The compiler counts the operations in a loop once. All passes through a model
  are in a loop over the `pieces` of an accumulated batch, so its counts are
  multiplied by `pieces`; this overcounts the optimizer. It does not count the
  operations of kernels at all.
  """
  cost, stats = compiled.cost_analysis(), compiled.memory_analysis()
  text = compiled.as_text()
  found, sent = communication(text)
  return Program(
    flops=pieces * cost['flops'] + kernel_flops(text),
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


def kernel_flops(text):
  """Returns the operations of the kernels of splash attention in HLO text.

  Those of scores that a mask hides are counted, also where a kernel skips them.
  """
  total = 0
  for _, runs, lines in computations(text):
    for match in filter(None, map(SPLASH.search, lines)):
      kind, operands = match.groups()
      arrays = re.findall(r'(?:bf16|f32)\[([\d,]+)\]', operands)
      query, keys = ([int(n) for n in x.split(',')] for x in arrays[:2])
      matmul = 2 * math.prod(query) * keys[-2]
      total += runs * SPLASH_MATMULS[kind] * matmul
  return total


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
      for called in re.findall(r'(?:calls|body|to_apply)=%([\w.\-]+)', line):
        runs[called] += runs[name] * turns(line, functions)
  return listed


def turns(line, functions):
  """Returns how often a call runs: 1, or the iterations of a loop.

  XLA for TPUs does not write the number; it is the bound in the condition.
  """
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', line):
    return int(known[1])
  if not (condition := re.search(r'condition=%([\w.\-]+)', line)):
    return 1
  text = '\n'.join(functions[condition[1]])
  bounds = re.findall(r' s32\[\]\S* constant\((\d+)\)', text)
  return int(bounds[0]) if len(bounds) == 1 else 1


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
