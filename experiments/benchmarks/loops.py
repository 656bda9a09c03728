"""Compares a study with plain loops of PyTorch and transformers."""

import contextlib
import importlib.util
import itertools
import json
import pathlib
import tempfile

import numpy as np

from experiments.benchmarks import own_process
from experiments.benchmarks import small_study
from experiments.benchmarks import table
from experiments.benchmarks import torch_loops

# {what: (arguments of torch_loops.study, target once our programs are compiled,
# target of whole processes, which compile them)}
_LOOPS = {
  'one row at a time': (dict(padded=False), 3.0, 2.0),
  'padded batches': (dict(padded=True), 2.0, 1.4),
  'padded batches, bfloat16 autocast': (
    dict(padded=True, autocast=True),
    None,
    None,
  ),
}


def rows(options, console):
  if not all(map(importlib.util.find_spec, ('torch', 'transformers'))):
    console.print("    left out: it needs pip install '.[torch]'")
    return
  config = small_study.config_of(
    options.rows, tables=options.tables, matmul_dtype=options.matmul_dtype
  )
  work = small_study.fetched(config)
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def side(run, **arguments):
      environment = {'JAX_PLATFORMS': 'cpu', **small_study.fresh_cache(folder)}
      process = own_process.Process(run, environment=environment, **arguments)
      return stack.enter_context(process)

    cold = side(study, config=config, folder=folder / 'cold')
    whole = {'ours': cold.next().cpu + cold.next().cpu}
    cold.stop()
    sides = {'ours': side(study, config=config, folder=folder / 'warm')}
    for name, (how, *_) in _LOOPS.items():
      sides[name] = side(torch_loops.study, **how, **work)
    started = {name: process.next().cpu for name, process in sides.items()}
    sides['ours'].next()  # loads what was compiled
    turns = [
      {name: process.next() for name, process in sides.items()}
      for _ in range(options.repeats)
    ]
  for name, taken in turns[-1].items():
    console.print(f'    {name}: {outcome_text(taken.value)}', soft_wrap=True)
  for name in _LOOPS:
    whole[name] = started[name] + turns[0][name].cpu
  seconds = {name: [turn[name].cpu for turn in turns] for name in sides}
  outcomes = {name: taken.value for name, taken in turns[-1].items()}
  trained = 'all' if options.tables else 'all but embeddings'
  work = f'2 layers teach 6, {options.rows} rows a half, {trained} trained'
  if options.matmul_dtype:
    work += f'; our matmuls in {options.matmul_dtype}'
  yield from compared(seconds, whole, outcomes, work)


def compared(seconds, whole, outcomes, work):
  ours = np.array(seconds['ours'])
  for name, (_, compiled, empty) in _LOOPS.items():
    theirs = np.array(seconds[name])
    yield table.Row(
      'c',
      f'CPU seconds of a PyTorch study, {name}, over ours',
      (theirs / ours).tolist(),
      'x',
      f'{np.median(theirs):.0f} s over {np.median(ours):.0f} s, when all is '
      f'compiled: {work}',
      target=compiled,
      details={'seconds': seconds, 'outcomes': outcomes},
    )
    yield table.Row(
      'c',
      f'whole processes, {name}: ours compiles its programs, too',
      [whole[name] / whole['ours']],
      'x',
      f'{whole[name]:.0f} s over {whole["ours"]:.0f} s',
      target=empty,
      details={'seconds': whole},
    )


def study(*, config, folder):
  """Yields None after the imports, then the results of each study."""
  import rich.console

  from experiments import command_line
  from w2s_jax import study as study_lib

  command_line.keep_memory()
  command_line.keep_compiled_programs()
  console = rich.console.Console(quiet=True)
  yield None
  for number in itertools.count():
    workdir = pathlib.Path(folder) / str(number)
    study_lib.run(config, workdir, console=console)
    (row,) = (workdir / 'results.jsonl').read_text().splitlines()
    yield json.loads(row)


def outcome_text(outcome):
  """'weak 70.0 %, nll 0.610; ...' on the test rows."""
  roles = ('zero_shot', 'weak', 'student', 'ceiling')
  return '; '.join(
    f'{role} {outcome[f"{role}_accuracy"]:.1%}, nll '
    f'{outcome[f"{role}_nll"]:.3f}'
    for role in roles
  )
