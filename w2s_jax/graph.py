"""A study as a graph: descriptions of stages, their keys, and the runner.

A `Stage` computes nothing. It holds the function that makes it and all that
decides the outcome: numbers, rows, models, the stages that it reads. Its key is
a hash of just that, so the same stage asked for twice is made once, in this run
or in an earlier one, and a changed field makes other stages.

  weak = Stage('weak-bag', make=fine_tune, fields={'rows': rows, ...})
  labels = Call(mean, (predicted_by_weak, predicted_by_other))
  student = Stage('student', make=fine_tune, fields={'labels': labels, ...})

A `Call` is a cheap function of what stages left, such as a transform of weak
labels: computed when it is needed, not stored. Functions are part of a key by
their source. `Runner.make` makes a stage and all that it reads.
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
from typing import Callable

import numpy as np

from w2s_jax.models import model as model_lib
from w2s_jax.runtime import files
from w2s_jax.runtime import overview
from w2s_jax.runtime import preemption
from w2s_jax.tasks import examples as examples_lib

# Part of every key; raised when the same fields come to mean something else.
FORMAT = 8
# Fields that tell stages apart but not what results mean: a learning curve is
# measured on the way and changes none.
_NOT_OF_A_RECIPE = ('seed', 'curve')


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
  """One step of a study.

  Attributes:
    name: for people; its folder is <name>-<key>.
    make: (job, **fields) -> summary, a JSON dict; leaves files in job.folder.
      In the fields that it is given a Stage is a workdir.Finished, and a Call
      is its value.
    fields: all that decides the outcome, see `canonical`.
    make_together: None, or ([job, ...], [fields, ...]) -> summaries, for stages
      that differ in nothing but their seed.
  """

  name: str
  make: Callable
  fields: dict
  make_together: Callable | None = None

  @functools.cached_property
  def spec(self):
    """The fields as JSON; stages that it reads by their keys."""
    return {
      'format': FORMAT,
      'kind': self.make.__name__,
      **canonical(self.fields),
    }

  @functools.cached_property
  def key(self):
    return files.sha256(files.to_json(self.spec))[:12]

  @functools.cached_property
  def recipe(self):
    """The fields as JSON but for seeds, and so those of what it reads."""
    return {'kind': self.make.__name__, **canonical(self.fields, recipe=True)}

  @functools.cached_property
  def reads(self):
    """The stages among its fields, in their order, each once."""
    return tuple({x.key: x for x in _stages_in(self.fields)}.values())

  @property
  def folder_name(self):
    return f'{files.safe_name(self.name)}-{self.key}'


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
  """function(*arguments), computed when a stage that reads it is made.

  Stages among the arguments become workdir.Finished, calls their values.
  """

  function: Callable
  arguments: tuple


def canonical(value, *, recipe=False):
  """JSON of all that decides a value.

  Rows are a hash of ids and labels, models their identity, functions their
  source, stages their key. With `recipe` nothing that depends on a study's seed
  is in it: rows are how they were drawn, stages their own recipe. Nor are other
  fields that do not change a result.

  Raises:
    TypeError: it is of a kind that has no such JSON.
  """
  again = functools.partial(canonical, recipe=recipe)
  match value:
    case Stage():
      return value.recipe if recipe else value.key
    case Call():
      return {
        'function': again(value.function),
        'arguments': again(value.arguments),
      }
    case examples_lib.Examples():
      return value.origin if recipe else value.fingerprint
    case model_lib.Model():
      return again(value.identity)
    case dict():
      return {
        name: again(x)
        for name, x in value.items()
        if not (recipe and name in _NOT_OF_A_RECIPE)
      }
    case list() | tuple():
      return [again(x) for x in value]
    case functools.partial():
      return again([value.func, value.args, value.keywords])
    case types.FunctionType():
      return {'name': value.__qualname__, 'source': source_hash(value)}
    case np.generic():
      return value.item()
    case None | bool() | int() | float() | str():
      return value
    case _ if hasattr(value, 'to_dict'):  # of a config
      return again(value.to_dict())
    case _ if dataclasses.is_dataclass(value):
      return {
        field.name: again(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.compare
      }
  raise TypeError(f'{value!r} cannot be a field of a stage.')


@functools.cache
def source_hash(function):
  """Hash of a function and of those of its module that it calls.

  Comments, docstrings and layout do not count.
  """
  sources, waiting = {}, [function]
  while waiting:
    found = waiting.pop()
    if found.__qualname__ in sources:
      continue
    sources[found.__qualname__] = _plain_source(found)
    for name in _names(found.__code__):
      other = inspect.unwrap(found.__globals__.get(name, len))
      if getattr(other, '__module__', None) == function.__module__:
        if isinstance(other, types.FunctionType):
          waiting.append(other)
  constants = [
    canonical(x)
    for x in (function.__defaults__, function.__kwdefaults__)
    if x is not None
  ]
  return files.sha256(files.to_json([sources, constants]))[:16]


def _plain_source(function):
  try:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
  except (OSError, SyntaxError):  # typed at a prompt, or a lambda in a call
    code = function.__code__
    return code.co_code.hex() + repr([x for x in code.co_consts if x])
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
      node.body = body[1:] or [ast.Pass()]
  return ast.unparse(tree)


def _names(code):
  inner = [x for x in code.co_consts if isinstance(x, types.CodeType)]
  return {*code.co_names, *(name for x in inner for name in _names(x))}


def _stages_in(value):
  match value:
    case Stage():
      yield value
    case Call():
      yield from _stages_in(value.arguments)
    case dict():
      yield from _stages_in(list(value.values()))
    case list() | tuple() if not isinstance(value, model_lib.Model):
      for x in value:
        yield from _stages_in(x)


def in_order(stages):
  """The stages and all that they read, each once, inputs first."""
  found = {}

  def visit(stage):
    if stage.key not in found:
      for other in stage.reads:
        visit(other)
      found[stage.key] = stage

  for stage in stages:
    visit(stage)
  return list(found.values())


class Runner:
  """Makes stages in the folders of a workdir."""

  def __init__(self, runtime):
    self.runtime = runtime
    self._finished = {}  # key -> workdir.Finished
    self._discarded = set()  # keys

  def announce(self, stages):
    """Prints which stages there are and how long they take, see overview."""
    stages = in_order(stages)
    names = [stage.folder_name for stage in stages]
    self.runtime.positions.update({name: i for i, name in enumerate(names, 1)})
    for line in overview.stages(stages, self.runtime):
      self.runtime.print(line)

  def make(self, *stages):
    """Makes stages that differ in their seed alone, side by side if they can.

    Inputs that are missing are made first. What an earlier run left damaged is
    made again.

    Returns:
      A workdir.Finished for each.
    """
    if len(stages) > 1 and not all(stage.make_together for stage in stages):
      return [self.make(stage)[0] for stage in stages]
    while True:
      for stage in stages:
        for other in stage.reads:
          self.make(other)
      try:
        return self._make_these(stages)
      except files.DamagedError as error:
        self._discard(error, stages)

  def _make_these(self, stages):
    waiting = {
      stage.folder_name: stage
      for stage in stages
      if stage.key not in self._finished
    }
    if waiting and preemption.stop_requested():
      raise preemption.Preempted(f'stopped before {next(iter(waiting))}')

    def build(jobs):
      chosen = [waiting[job.folder.name] for job in jobs]
      fields = [self.value(stage.fields) for stage in chosen]
      if len(jobs) > 1:
        return chosen[0].make_together(jobs, fields)
      return [chosen[0].make(jobs[0], **fields[0])]

    requests = [(name, _config(stage)) for name, stage in waiting.items()]
    made = self.runtime.make(requests, build)
    for stage, finished in zip(waiting.values(), made, strict=True):
      self._finished[stage.key] = finished
    return [self._finished[stage.key] for stage in stages]

  def value(self, field):
    """A field as a stage is given it: stages finished, calls computed."""
    match field:
      case Stage():
        return self._finished[field.key]
      case Call():
        return field.function(*map(self.value, field.arguments))
      case dict():
        return {name: self.value(x) for name, x in field.items()}
      case model_lib.Model():
        return field
      case list() | tuple():
        return type(field)(map(self.value, field))
    return field

  def read(self, stages, function):
    """function(*what the stages left); damage is repaired first."""
    while True:
      finished = [self.make(stage)[0] for stage in stages]
      try:
        return function(*finished)
      except files.DamagedError as error:
        self._discard(error, stages)

  def _discard(self, error, stages):
    """Marks the stage that a damaged file belongs to as not done."""
    for stage in in_order(stages):
      folder = self.runtime.folder(stage.folder_name)
      if folder in error.path.parents and stage.key not in self._discarded:
        self.runtime.discard(stage.folder_name, error)
        self._discarded.add(stage.key)  # once: a disk may be broken
        self._finished.pop(stage.key, None)
        return
    raise error


def _config(stage):
  """config.json of a stage: its spec, and where weights are, for loading."""
  model = stage.fields.get('model')
  return stage.spec | ({'weights': model.weights} if model else {})
