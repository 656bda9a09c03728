"""Orbax checkpoints: training in progress, finished parameters, loading back.

A stage in training keeps `checkpoints/<step>/{state, data}`; a finished one
keeps its trained parameters in `params/`, with everything needed to use the
model beside them (`config.json`, `tokenizer.json`). What was frozen is not
among them, as with a probe, LoRA or `freeze`: it is read again from the
pretrained weights, whose digest config.json has. All are stored with a digest
that is verified when they are read.
"""

import glob
import logging
from typing import Any
from typing import NamedTuple

from etils import epath
import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp

from w2s_jax import adapt
from w2s_jax import errors
from w2s_jax import sharding
from w2s_jax.models import heads
from w2s_jax.models import model as model_lib
from w2s_jax.models import presets
from w2s_jax.models import pretrained
from w2s_jax.models import text_heads
from w2s_jax.models import tokenizers
from w2s_jax.runtime import array_digests
from w2s_jax.runtime import files
from w2s_jax.runtime import workdir as workdir_lib

_MOST_NAMES = 8  # of stages in an error

# Other processes write to the bucket, too, but gcsfs caches its listings.
fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False


def absolute(path):
  """Returns an absolute path, which Orbax needs; gs:// is left alone."""
  path = epath.Path(path)
  return path if '://' in str(path) else path.expanduser().absolute()


class _Manager(ocp.CheckpointManager):
  """Orbax's manager, without its own reaction to SIGTERM.

  jax agrees on the step to stop at by counting calls: if Orbax asked, too, with
  its own step numbers, preemption.py would miss the step.
  """

  def reached_preemption(self, step):
    del step
    return False


class Training:
  """Checkpoints of a run: state and place in the data, saved together.

  The newest two are kept, each with a digest of its arrays. One that is damaged
  is removed, and the run resumes from the one before.
  """

  def __init__(self, folder, before_save=lambda: None):
    self._folder = absolute(folder)
    self._before_save = before_save
    self._manager = _Manager(
      self._folder,
      item_names=('state', 'data'),
      options=ocp.CheckpointManagerOptions(max_to_keep=2),
    )

  def save(self, step, state, data_state):
    """Starts an asynchronous save; it is atomic."""
    self._before_save()
    record = files.sealed(
      {'data': data_state, 'digest': array_digests.digest(state)}
    )
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(record)
      ),
    )

  def wait(self):
    """Blocks until what was saved is on the disk."""
    self._manager.wait_until_finished()

  def restore(self, state):
    """(step, state, data_state) of the newest whole checkpoint, or None.

    Args:
      state: arrays of the same shapes, placed as the restored ones will be.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    for step in sorted(self._manager.all_steps(), reverse=True):
      path = self._folder / str(step)
      try:
        restored = self._manager.restore(
          step,
          args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract),
            data=ocp.args.JsonRestore(),
          ),
        )
        record = files.unsealed(restored['data'], path)
        if record['digest'] != array_digests.digest(restored['state']):
          raise files.DamagedError(path, 'its digest is wrong')
        return step, restored['state'], record['data']
      except Exception as error:  # Orbax and TensorStore raise all kinds
        if jax.process_count() > 1 and not isinstance(error, errors.UserError):
          raise  # the others may have read it well
        logging.warning(
          '%s is damaged (%s); going back to the checkpoint before it.',
          path,
          str(error).split('\n')[0][:200],
        )
        self._manager.delete(step)
    return None

  def close(self):
    self.wait()
    self._manager.close()


def save_params(folder, params, *, name):
  """Writes parameters and their digest; without it they are not there.

  Raises:
    errors.DivergedError: one is not finite; `name` is that of the stage.
  """
  if not workdir_lib.all_agree(
    all(
      np.isfinite(array).all()
      for x in jax.tree.leaves(params)
      for array, _ in array_digests.own_shards(x)
    )
  ):
    raise errors.DivergedError(
      f'{name}: parameters are not finite after the last step; lower '
      'train.learning_rate or use dtype float32.'
    )
  folder = absolute(folder)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder, params, force=True)
  record = {'digest': array_digests.digest(params)}
  if jax.process_index() == 0:
    files.save_record(_digest_file(folder), record)
  workdir_lib.barrier(f'{name}-params')


def _digest_file(folder):
  return folder.with_name(f'{folder.name}.digest')


def remove_params(folder):
  """Removes what `save_params` wrote for the finished stage of a folder.

  The digest stays, and tells `check_kept` that they were there.
  """
  if jax.process_index() == 0:
    (absolute(folder) / 'params').rmtree(missing_ok=True)


def check_kept(folder):
  """Raises errors.UserError if `remove_params` was called on a stage."""
  params = absolute(folder) / 'params'
  if _digest_file(params).exists() and not params.exists():
    raise errors.UserError(
      f'{folder.name}: its parameters were removed, since its study had '
      f'keep_params=False; to train it again remove {folder} and give the '
      'command of the study with --config.keep_params=True.'
    )


def load_if_saved(folder, *, mesh):
  """Parameters that `save_params` wrote in full, or None.

  A killed or damaged save is removed, so that the stage trains on.
  """
  folder = absolute(folder)
  if not workdir_lib.agreed(folder.exists()):
    return None
  try:
    return load_params(folder, mesh=mesh)
  except files.DamagedError:
    workdir_lib.barrier('damaged-params')
    if jax.process_index() == 0:
      folder.rmtree()
    workdir_lib.barrier('removed-params')
    return None


def load_params(folder, *, mesh=None):
  """Nested dict of parameters, on `mesh` or on the first local device.

  Raises:
    files.DamagedError: the parameters are not those that were saved.
  """
  folder = absolute(folder)
  if not folder.exists():
    raise files.DamagedError(folder, 'it is missing')
  expected = files.load_record(_digest_file(folder))['digest']
  one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def abstract(path, leaf):
    placed = one_device
    if mesh is not None:
      path = sharding.path_string(path)
      placed = sharding.parameter_sharding(mesh, path, leaf.shape)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)

  try:
    with ocp.StandardCheckpointer() as checkpointer:
      shapes = checkpointer.metadata(folder).item_metadata.tree
      params = checkpointer.restore(
        folder, jax.tree_util.tree_map_with_path(abstract, shapes)
      )
  except Exception as error:  # Orbax and TensorStore raise all kinds
    reason = str(error).split('\n')[0][:200]
    raise files.DamagedError(folder, reason) from error
  if array_digests.digest(params) != expected:
    raise files.DamagedError(folder, 'its digest is wrong')
  return params


class Loaded(NamedTuple):
  """A trained model: model.apply({'params': params}, *inputs)."""

  params: Any
  model: Any
  tokenizer: Any
  config: dict


def load_model(workdir, stage, *, mesh=None, weights=None):
  """Params, model, tokenizer and config of a finished stage, in one call.

  Args:
    workdir: folder of a study, local or gs://.
    stage: name of a folder under `workdir/stages`, or the beginning of one.
    mesh: placed on it, else on one device, whatever the study ran on.
    weights: of the pretrained model, if they are elsewhere now; read only if
      some of its parameters were frozen.

  Raises:
    errors.UserError: no finished stage, or several, begin with `stage`; a file
      is damaged; the weights are not those that the stage was trained from.
  """
  folder = find_stage(workdir, stage)
  config = workdir_lib.Finished.at(folder).config()
  network = network_of(config['model'])
  params = load_params(folder / 'params', mesh=mesh)
  if adapt.needs_base(params, heads.parameter_shapes(network)):
    base = _base_params(
      workdir, network, config, mesh=mesh, weights=weights or config['weights']
    )
    params = adapt.merge(params, base)
  return Loaded(
    params=params,
    model=network,
    tokenizer=load_tokenizer(folder),
    config=config,
  )


def network_of(fields):
  """The head with its trunk, by the field `model` of a stage's config.json."""
  # The device of the study is not that of its reader.
  recorded = {**fields['architecture'], 'attention': 'auto'}
  architecture = presets.TransformerConfig(**recorded)
  kind = heads.HEADS[fields['head']]
  label_ids = {}
  if kind is text_heads.Verbalizer:
    label_ids = {'label_ids': tuple(fields['head_ids'])}
  return kind(architecture, fields['num_classes'], **label_ids)


def load_tokenizer(folder):
  """The tokenizer of a finished stage, its files verified."""
  for name in ('tokenizer.json', 'prompt.json'):
    if (folder / name).exists():
      workdir_lib.verified(folder, name)
  return tokenizers.load(folder)


def _base_params(workdir, network, config, *, mesh, weights):
  """Parameters that a stage started from, of which it stores no frozen one."""
  fields = config['model']
  folder = model_lib.folder_of(weights)
  if folder and pretrained.fingerprint(folder) != fields['weights']:
    raise errors.UserError(
      f'{weights} holds other weights than those that the stage was trained '
      'from; give weights=, their folder.'
    )
  mesh = mesh or sharding.make_mesh(devices=jax.local_devices()[:1])
  seed = config.get('seed', 0)
  params = model_lib.initial(network, folder, fields['head_ids'], mesh, seed)
  for key in config.get('start', ()):
    found = [*(absolute(workdir) / 'stages').glob(f'*-{key}')]
    if not found:
      raise errors.UserError(
        f'{workdir}/stages has no stage *-{key}, which this one was trained '
        'on top of; copy it there, or run the study again.'
      )
    started = load_params(found[0] / 'params', mesh=mesh)
    params = adapt.merge(started, params)
  return params


def find_stage(workdir, stage, holding='params'):
  """Folder of the one finished stage whose name begins with `stage`.

  Args:
    holding: a file or folder that it must hold.
  """
  stages = absolute(workdir) / 'stages'
  if not stages.exists():
    raise errors.UserError(f'{stages} does not exist; is {workdir} a workdir?')
  finished = sorted(
    path.name
    for path in stages.iterdir()
    if (path / 'DONE').exists() and (path / holding).exists()
  )
  found = [name for name in finished if name.startswith(stage)]
  if stage in finished:
    found = [stage]
  if not found:
    for folder in sorted(stages.glob(f'{glob.escape(stage)}*')):
      check_kept(folder)
  if len(found) != 1:
    names = found or finished
    more = f' ({len(names)} in all)' if len(names) > _MOST_NAMES else ''
    raise errors.UserError(
      f'{len(found)} finished stages of {workdir} with {holding} begin with '
      f'{stage!r}; name one of{more}: {", ".join(names[:_MOST_NAMES])}'
    )
  return stages / found[0]
