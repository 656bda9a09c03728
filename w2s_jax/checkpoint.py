"""Orbax checkpoints: training in progress, finished parameters, loading back.

A stage in training keeps `checkpoints/<step>/{state, data}`; a finished one
keeps in `params/` what was trained, with everything needed to use the model
beside it (`config.json`, `tokenizer.json`). That is the whole model, or what
LoRA or a probe add to the pretrained one.
"""

import hashlib
import json
from typing import Any
from typing import NamedTuple

from etils import epath
import fsspec
import jax
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

# Other processes write in a bucket, too; gcsfs would not look again at a folder
# that it has listed.
fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False


def absolute(path):
  """The path as Orbax wants it: absolute, with any gs:// left alone."""
  path = epath.Path(path)
  return path if '://' in str(path) else path.expanduser().absolute()


class _Manager(ocp.CheckpointManager):
  """Of Orbax, but leaves the signal to stop to preemption.py.

  All who ask jax for the moment to stop must count in the same way: Orbax would
  ask with the numbers of its steps, and the moment would be missed.
  """

  def reached_preemption(self, step):
    del step
    return False


class Training:
  """Latest checkpoint of a run: state and place in the data, saved together."""

  def __init__(self, folder):
    self._manager = _Manager(
      absolute(folder),
      item_names=('state', 'data'),
      options=ocp.CheckpointManagerOptions(max_to_keep=1),
    )

  def latest_step(self):
    """That of the checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step, state, data_state):
    """Starts an asynchronous save; it is atomic."""
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state)
      ),
    )

  def wait(self):
    """Until what was saved is there."""
    self._manager.wait_until_finished()

  def restore(self, state):
    """(state, data_state) of the latest step, placed like `state`."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(
      self.latest_step(),
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
      ),
    )
    return restored['state'], restored['data']

  def close(self):
    self.wait()
    self._manager.close()


def save_params(folder, params):
  """Writes parameters; until it is done they are not there to `is_saved`."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(absolute(folder), params, force=True)


def is_saved(folder):
  """Whether a folder has parameters, all of them.

  On a disk it appears only then, but in a bucket it grows by and by.
  """
  return ocp.utils.is_checkpoint_finalized(absolute(folder))


def digest(folder):
  """sha256 of a folder: of the names and contents of all that is in it."""
  total = hashlib.sha256()
  for path in sorted(absolute(folder).iterdir()):
    if path.is_dir():
      content = digest(path)
    else:
      with path.open('rb') as f:
        content = hashlib.file_digest(f, 'sha256').hexdigest()
    total.update(f'{path.name} {content}\n'.encode())
  return total.hexdigest()


def load_params(folder, *, mesh=None):
  """Nested dict of parameters, on `mesh` or on the first local device.

  Raises:
    ValueError: the files are not those that a finished stage wrote. Orbax sees
      a file that is too short, but not one whose numbers changed.
  """
  folder = absolute(folder)
  done = folder.parent / 'DONE'
  if jax.process_index() == 0 and done.exists():  # one reads it all
    expected = json.loads(done.read_text())['params_sha256']
    if digest(folder) != expected:
      raise errors.UserError(
        f'{folder} is damaged (its sha256 is not that of DONE); delete its '
        'stage folder and run again.'
      )
  with ocp.StandardCheckpointer() as checkpointer:
    shapes = checkpointer.metadata(folder).item_metadata.tree
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def abstract(path, leaf):
      place = one_device
      if mesh is not None:
        place = sharding.parameter_sharding(
          mesh, sharding.path_string(path), leaf.shape
        )
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return checkpointer.restore(
      folder, jax.tree_util.tree_map_with_path(abstract, shapes)
    )


class Loaded(NamedTuple):
  """A trained model: model.apply({'params': params}, *inputs), see heads.py."""

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
    weights: of the pretrained model, if they lie elsewhere now; read for what
      stands on it only, as LoRA and probes do.

  Raises:
    ValueError: no finished stage, or several, begin with `stage`; the weights
      are not those that it stands on.
  """
  folder = find_stage(workdir, stage)
  config = json.loads((folder / 'config.json').read_text())
  fields = config['model']
  architecture = presets.TransformerConfig(**fields['architecture'])
  kind = heads.HEADS[fields['head']]
  label_ids = {}
  if kind is text_heads.Verbalizer:
    label_ids = {'label_ids': tuple(fields['head_ids'])}
  network = kind(architecture, fields['num_classes'], **label_ids)
  params = load_params(folder / 'params', mesh=mesh)
  if 'transformer' not in params or adapt.is_lora(params):
    base = _pretrained(
      workdir, network, config, mesh=mesh, weights=weights or config['weights']
    )
    params = adapt.merge(params, base)
  return Loaded(
    params=params,
    model=network,
    tokenizer=tokenizers.load(folder),
    config=config,
  )


def _pretrained(workdir, network, config, *, mesh, weights):
  """Parameters that a stage changed some of."""
  fields = config['model']
  folder = model_lib.folder_of(weights)
  if folder and pretrained.fingerprint(folder) != fields['weights']:
    raise errors.UserError(
      f'{weights} holds other weights than those that the stage stands on; '
      'give weights=, the folder of those.'
    )
  mesh = mesh or sharding.make_mesh(devices=jax.local_devices()[:1])
  seed = config.get('seed', 0)
  params = model_lib.initial(network, folder, fields['head_ids'], mesh, seed)
  if 'generative' in fields:
    (stage,) = (absolute(workdir) / 'stages').glob(f'*-{fields["generative"]}')
    params |= load_params(stage / 'params', mesh=mesh)
  return params


def find_stage(workdir, stage):
  """Folder of the one finished stage with parameters that starts with this."""
  stages = absolute(workdir) / 'stages'
  if not stages.exists():
    raise errors.UserError(f'{stages} does not exist; is {workdir} a workdir?')
  finished = sorted(
    path.name
    for path in stages.iterdir()
    if (path / 'DONE').exists() and (path / 'params').exists()
  )
  found = [name for name in finished if name.startswith(stage)]
  if stage in finished:
    found = [stage]
  if len(found) != 1:
    raise errors.UserError(
      f'{len(found)} finished stages of {workdir} begin with {stage!r}; '
      f'name one of: {", ".join(finished)}'
    )
  return stages / found[0]
