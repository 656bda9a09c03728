"""Writes the model of a finished stage as a Hugging Face folder.

  from w2s_jax import export

  export.export('runs/nlp/student-logconf-minilm-l6', 'exported/nlp')

It holds the whole model, whether a probe, LoRA or all was trained, with its
tokenizer, and README.md, the model card. To publish it:

  huggingface_hub.HfApi().upload_folder(
    folder_path='exported/nlp', repo_id='OWNER/NAME'
  )
"""

import difflib
import pathlib

from w2s_jax import checkpoint
from w2s_jax import errors
from w2s_jax import results
from w2s_jax.models import hf_heads
from w2s_jax.report import model_card
from w2s_jax.runtime import workdir as workdir_lib
from w2s_jax.tasks import class_names


def export(stage_path, folder, *, labels=None, weights=None):
  """Writes weights, config.json, tokenizer and model card of a stage.

  Classifiers and reward models on texts open in `transformers` as
  AutoModelForSequenceClassification with the same logits: decoders as they are,
  encoders with trust_remote_code=True, since they pool by the mean.

  Args:
    stage_path: WORKDIR/STAGE, where STAGE is the beginning of a name under
      WORKDIR/stages; or the folder of the stage.
    folder: that does not exist yet, or is empty.
    labels: names of the classes; by default those of the stage's task, see
      tasks/class_names.py, or 'LABEL_0', ... where it has none.
    weights: of the pretrained model, if they are elsewhere now.

  Raises:
    errors.UserError: there is no such finished stage, `folder` is in use, or
      `transformers` has no such model; raised before weights are read.
  """
  stage = find_stage(stage_path)
  folder = _unused(folder)
  config = workdir_lib.Finished.at(stage).config()
  is_pair = config['model']['head'] == 'RewardModel'
  num_labels = 1 if is_pair else config['model']['num_classes']
  workdir = stage.parent.parent
  if not labels:
    task = results.task_of(workdir, stage.name)
    labels = class_names.or_numbers(task, num_labels, 'LABEL_{}')
  if len(labels) != num_labels:
    raise errors.UserError(
      f'labels={tuple(labels)}: {stage.name} has {num_labels} scores; name '
      'each of them.'
    )
  if config.get('kind') == 'generative':
    raise errors.UserError(
      f'{stage.name} is a language model without a classifier; export a '
      'student that starts from it, or write it by models.pretrained.save, '
      'for AutoModelForCausalLM.'
    )
  form = hf_heads.form(
    stage.name,
    checkpoint.network_of(config['model']),
    checkpoint.load_tokenizer(stage),
  )
  card = model_card.to_markdown(
    workdir, stage, form, labels=labels, is_pair=is_pair
  )
  loaded = checkpoint.load_model(workdir, stage.name, weights=weights)
  hf_heads.save(
    folder,
    form,
    loaded.params,
    labels=labels,
    max_length=config['evaluation']['max_length'],
    keep='end' if is_pair else 'start',
  )
  (folder / 'README.md').write_text(card)


def find_stage(stage_path):
  """Returns the folder of the one finished stage that has parameters.

  Raises:
    errors.UserError: there is none, or there are several.
  """
  path = checkpoint.absolute(stage_path)
  workdir, name = path.parent, path.name
  if workdir.name == 'stages' and not (workdir / 'stages').exists():
    workdir = workdir.parent
  stages = workdir / 'stages'
  if not stages.exists():
    raise errors.MissingFileError(
      f'{stage_path}: {workdir} has no folder stages/; name WORKDIR/STAGE.'
    )
  every = sorted(x.name for x in stages.iterdir() if x.is_dir())
  found = [name] if name in every else [x for x in every if x.startswith(name)]
  able = [x for x in every if (stages / x / 'params').exists()]
  finished = [x for x in found if x in able and (stages / x / 'DONE').exists()]
  if len(finished) == 1:
    return stages / finished[0]
  if len(finished) > 1:
    raise errors.UserError(
      f'{stage_path}: {len(finished)} finished stages begin with {name!r}; '
      f'name one of {_some(finished)}.'
    )
  if not found:
    near = difflib.get_close_matches(name, able, n=3, cutoff=0)
    raise errors.MissingFileError(
      f'{stage_path}: no stage begins with {name!r}; the nearest with a model '
      f'are {_some(near)}.'
    )
  unfinished = [x for x in found if not (stages / x / 'DONE').exists()]
  if unfinished:
    raise errors.UserError(
      f'{stage_path}: {unfinished[0]} is not finished; give the command of the '
      'study again, which resumes it.'
    )
  checkpoint.check_kept(stages / found[0])
  raise errors.UserError(
    f'{stage_path}: {found[0]} holds no parameters; name a stage with a model '
    f'of its own, such as {_some(able)}.'
  )


def _some(names, most=3):
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return (', '.join(names[:most]) or 'none') + more


def _unused(folder):
  """The folder to write, as a path on a disk."""
  if '://' in str(folder):
    raise errors.UserError(
      f'{folder}: models are exported to a disk; name a folder there and copy '
      'it.'
    )
  folder = pathlib.Path(folder).expanduser()
  if folder.is_file():
    raise errors.UserError(f'{folder} is a file; name a new folder.')
  if folder.exists() and any(folder.iterdir()):
    raise errors.UserError(
      f'{folder} exists and is not empty; name a new folder.'
    )
  return folder
