"""A run of each tracker: one class for each, all with the same methods.

  write(step, values): {name: number}; steps never decrease.
  image(name, png): bytes of a PNG file.
  flush(): makes visible what was written.
  close(finished): `finished` is False of a run that was stopped.

A run that is opened again replaces the one before it, or goes on after its last
step where the tracker keeps runs elsewhere.
"""

import io
import os
import re
import time

from w2s_jax import errors
from w2s_jax.runtime import files


class TensorBoard:
  """WORKDIR/tensorboard/<run>/events...: `tensorboard --logdir` reads it."""

  package = 'tensorboardX'

  def __init__(self, workdir, name, fields):
    """Replaces the events of an earlier run of this name.

    Args:
      fields: hyper-parameters; without any the run is not in their table.
    """
    folder = workdir / 'tensorboard' / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob('*tfevents*'):
      path.unlink()
    self._path, self._fields = folder / 'events', fields
    self._file = self._end = None
    self._waiting = []  # (time, step, values) that are not in the file yet

  @staticmethod
  def check():
    pass

  def write(self, step, values):
    self._waiting.append((time.time(), step, values))

  def image(self, name, png):
    self.flush()
    from tensorboardX.proto import summary_pb2

    image = summary_pb2.Summary.Image(
      width=int.from_bytes(png[16:20]),  # of its header
      height=int.from_bytes(png[20:24]),
      colorspace=4,
      encoded_image_string=png,
    )
    value = summary_pb2.Summary.Value(tag=name, image=image)
    self._add(time.time(), summary_pb2.Summary(value=[value]))

  def flush(self):
    # Not imported for the first step, which half a second would delay.
    from tensorboardX.proto import summary_pb2

    if self._file is None:
      self._open()
    for when, step, values in self._waiting:
      items = [
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in values.items()
      ]
      self._add(when, summary_pb2.Summary(value=items), step)
    self._waiting.clear()
    self._file.flush()

  def close(self, *, finished):
    self.flush()
    if finished and self._end is not None:
      self._add(time.time(), self._end)
    self._file.close()

  def _open(self):
    from tensorboardX import event_file_writer
    from tensorboardX import summary

    self._file = event_file_writer.EventsWriter(str(self._path))
    if self._fields:
      scores = {'final/validation_accuracy': None, 'final/test_accuracy': None}
      experiment, start, self._end = summary.hparams(self._fields, scores)
      self._add(time.time(), experiment)
      self._add(time.time(), start)

  def _add(self, when, summary, step=0):
    from tensorboardX.proto import event_pb2

    event = event_pb2.Event(wall_time=when, step=step, summary=summary)
    self._file.write_event(event)


class WandB:
  """A run of Weights & Biases; its id has the key of the stage.

  The project is that of WANDB_PROJECT, else w2s_jax; WANDB_MODE=offline writes
  to WORKDIR/wandb, for `wandb sync`.
  """

  package = 'wandb'

  def __init__(self, workdir, name, fields):
    import wandb

    run_id = name
    if not re.search('-[0-9a-f]{12}$', name):  # not that of one stage only
      run_id = f'{name}-{files.sha256(str(workdir))[:12]}'
    folder = None  # wandb's own choice
    if '://' not in str(workdir):
      folder = str(workdir)
      for path in (workdir / 'wandb').glob(f'offline-run-*-{run_id}'):
        path.rmtree()
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', 'w2s_jax'),
      group=workdir.name,
      name=name,
      id=run_id,
      config=fields,
      dir=folder,
      resume='allow',
      reinit='create_new',  # models of several seeds train side by side
      settings=wandb.Settings(silent=True, console='off', save_code=False),
    )
    self._first = self._run.step  # after those that it has already

  @staticmethod
  def check():
    """Logs in, before anything is trained."""
    import wandb

    if os.environ.get('WANDB_MODE', 'online') != 'online':
      return
    try:
      wandb.login()
    except Exception as error:
      reason = ' '.join(str(error).split()).rstrip('.')
      raise errors.UserError(
        f"tracker='wandb': {reason}; run `wandb login`, or set "
        'WANDB_MODE=offline.'
      ) from error

  def write(self, step, values):
    if step >= self._first:
      self._run.log(values, step=step)

  def image(self, name, png):
    from PIL import Image
    import wandb

    picture = wandb.Image(Image.open(io.BytesIO(png)))
    self._run.log({f'report/{name}': picture}, step=self._first)

  def flush(self):
    pass  # it sends by itself

  def close(self, *, finished):
    self._run.finish(exit_code=0 if finished else 1)


RUNS = {'tensorboard': TensorBoard, 'wandb': WandB}
