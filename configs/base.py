"""Fields common to all studies, and the parser of `--config=file.py:arg,...`.

Any field can be set on the command line: --config.data.max_length=64
"""

import difflib

from ml_collections import config_dict


def get_config():
  """Returns the fields of a study without models."""
  c = config_dict.ConfigDict()
  c.task = ''
  c.seeds = (0, 1)  # each draws its own halves, data order and random init
  c.population = 1  # number of seeds trained side by side in one step
  # Models by a key of your choice, and chains of these keys: 'weak>strong', or
  # 'weak>middle>strong' for bootstrapping (paper section 4.3.1), where each
  # model labels fresh rows for the next.
  c.models = config_dict.ConfigDict()
  c.students = ('weak>strong',)
  # 'soft': the supervisor's probabilities; 'hard': its most probable class.
  c.weak_labels = 'soft'
  # Whether students of shuffled, constant, randomly wrong and true labels are
  # trained too, see CONTROLS of weak_labels.py; the report reads them.
  c.controls = False
  # The checkpoint of a student that is kept. 'none': the last; 'weak_labels':
  # the one that agrees best with the supervisor on validation rows;
  # 'ground_truth': the most accurate there, which is cheating (paper section
  # 5.1.1). Checkpoints considered: NUM_CANDIDATES of early_stopping.py.
  c.early_stopping = 'none'
  # Names a recipe whose results have no other field to tell it from another,
  # such as 'lr 1e-4' in a sweep over learning rates.
  c.variant = ''
  c.losses = ('xent', 'logconf')  # a student for each; see w2s_jax/losses.py
  # Whether students and ceilings start from unsupervised generative fine-tuning
  # on the texts of the transfer set (paper section 5.2.2); (False, True) trains
  # both kinds.
  c.generative = (False,)
  c.generative_train = fine_tuning(learning_rate=1e-4, epochs=1, batch_size=8)
  c.loss_args = config_dict.ConfigDict(
    {
      'logconf': {
        'alpha_max': 0.5,  # in the paper 0.75 for its largest students
        # alpha grows between these shares of training, see losses.py.
        'start': 0.0,
        'warmup': 0.2,
        'compat': 'paper',  # or 'openai', as in the public code
        'jump': 0.1,  # of 'openai', in place of a warm-up: where alpha jumps up
      }
    }
  )
  c.data = config_dict.ConfigDict(
    {
      # tfds:, file:, hf: or asset:, see w2s_jax/tasks/sources.py; '' is the
      # task's own source.
      'source': '',
      'seed': 0,  # draws the test and validation sets, shared by all seeds
      'max_length': 128,  # tokens; longer texts are truncated
      # Padded lengths; each is a shape to compile. -1 weighs that against
      # padding, see batching.count_buckets.
      'num_buckets': -1,
      'select': {},  # arguments of the task that select rows, if it has any
      # Rows of each split; splits of -1 share the remaining rows equally. Each
      # step of a chain has a transfer split of its own.
      'splits': {'weak': -1, 'transfer': -1, 'validation': 500, 'test': 1000},
    }
  )
  # data * fsdp * tensor = devices; -1 takes the remaining ones.
  c.mesh = config_dict.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  c.eval_batch_size = 32
  c.checkpoint_every = 100  # steps
  # Whether the parameters of students and ceilings stay in the workdir. False
  # removes them when all results are there: no model is left to load or export.
  c.keep_params = True
  c.eval_every = (
    0  # steps of a learning curve of students and ceilings; 0: none
  )
  # Where curves, hyper-parameters and figures are shown: 'tensorboard', 'wandb'
  # or several, as 'tensorboard,wandb'; '' is nowhere. 'auto': TensorBoard where
  # tensorboardX is installed. See w2s_jax/runtime/trackers.py.
  c.tracker = config_dict.FieldReference('auto', field_type=object)
  return c


def model(
  name='',
  *,
  weights,
  num_layers=-1,
  learning_rate=1e-4,
  epochs=2,
  batch_size=32,
  freeze='',
):
  """Returns the fields of a model of the ladder and of its fine-tuning."""
  return config_dict.ConfigDict(
    {
      # For tables and folders; '' is the name of the weights, as 'minilm-l6'.
      'name': name,
      'weights': weights,  # asset:NAME, hf:NAME, a folder, or random:PRESET
      'num_layers': num_layers,  # keeps the first num_layers; -1 keeps all
      # 'classify' adds a linear head; 'verbalize' compares the logits of a
      # decoder for head_tokens, one token per class.
      'head': 'classify',
      # 'zero', or 'token_rows': the embeddings of head_tokens (paper appendix
      # A.1).
      'head_init': 'zero',
      'head_tokens': (),  # (): '0', '1', ... as the tokenizer writes them
      # Around each text, as 'Review: {text}\nSentiment:'. '' is the text alone
      # for 'classify', and '{text}\nAnswer:' for 'verbalize'.
      'prompt': '',
      'dropout': 0.0,
      'dtype': 'float32',  # of activations; use bfloat16 on TPU and GPU
      'param_dtype': 'float32',
      # 'bfloat16' rounds what the matmuls of the layers read and sums in
      # float32, as a TPU does by default; '' does not. 'auto' does on CPUs with
      # instructions for it (avx512_bf16 in /proc/cpuinfo), where it is faster.
      'matmul_dtype': 'auto',
      # 'nothing_saveable' computes all activations of a layer again in the
      # backward pass: less memory, more time; see REMAT of models/presets.py.
      'remat': '',
      # 'einsum'; 'cudnn', a kernel for NVIDIA GPUs, not for float32; 'splash',
      # one for TPUs; or 'auto': that of the device if it can, else einsum.
      'attention': 'auto',
      'adapt': adaptation(),
      'train': fine_tuning(
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        freeze=freeze,
      ),
    }
  )


def fine_tuning(*, learning_rate, epochs, batch_size, freeze=''):
  """Returns the fields of a training recipe, see w2s_jax/optimizer.py."""
  return config_dict.ConfigDict(
    {
      'epochs': epochs,
      'batch_size': batch_size,
      'accumulate': 1,  # gradient accumulation over so many pieces of a batch
      'learning_rate': learning_rate,  # at the end of the warm-up
      'warmup': 0.1,  # share of all steps
      'decay': 'linear',  # or 'cosine', both to 0; or 'constant'
      'weight_decay': 0.01,
      'clip_norm': 1.0,
      'freeze': freeze,  # regex on parameter paths; '' trains all
    }
  )


def adaptation():
  """Returns the fields of how a pretrained model is adapted to the task.

  Methods:
    full: fine-tunes all parameters that `freeze` leaves, by the recipe `train`.
    lora: fine-tunes low-rank updates and the head, by the recipe `train`.
    probe: trains a linear head on frozen features, by the recipe `probe`.
    lp_ft: probe, then full from there.
    prompt: trains nothing; `shots` labelled examples precede each question.
  """
  return config_dict.ConfigDict(
    {
      'method': 'full',
      'lora': {
        'rank': 8,
        'alpha': 16.0,
        'targets': 'attention/(query|value)/kernel',  # regex, as in freeze
      },
      'probe': fine_tuning(learning_rate=3e-3, epochs=50, batch_size=128),
      'shots': 4,  # number of examples in the prompt
    }
  )


def tiny_pair(c, preset):
  """Adds randomly initialized models of one and two layers, for debugging."""
  for key, layers in (('weak', 1), ('strong', 2)):
    c.models[key] = model(
      weights=f'random:{preset}',
      num_layers=layers,
      learning_rate=3e-3,
      epochs=4,
    )


_SHORT = {'loss': 'losses'}  # config arguments


def parse_arg(arg, **defaults):
  """Parses 'debug,task=sst2' into a ConfigDict with the types of `defaults`.

  A bare name sets a bool to True. A tuple takes the bare words after it, too,
  as in 'losses=xent,logconf'; 'loss' is short for 'losses'.

  Raises:
    ValueError: a name is unknown, or a value has another type.
  """
  values, last = dict(defaults), None
  for part in filter(None, (arg or '').split(',')):
    name, given, text = part.partition('=')
    name = _SHORT.get(name, name)
    if not given and name not in defaults and last:
      values[last] += (part,)
      continue
    if name not in defaults:
      raise ValueError(f'config argument {name!r}: {nearest(name, defaults)}')
    kind, last = type(defaults[name]), None
    if kind is tuple:
      if not text:
        raise ValueError(f'config argument {part!r}: needs {name}=<names>.')
      values[name], last = (text,), name
    elif kind is bool:
      text = text if given else 'true'
      if text not in ('true', 'false'):
        raise ValueError(f'config argument {part!r}: must be true or false.')
      values[name] = text == 'true'
    else:
      try:
        values[name] = kind(text)
      except ValueError:
        text = ''
      if not text:
        raise ValueError(
          f'config argument {part!r}: needs {name}=<{kind.__name__}>.'
        )
  return config_dict.ConfigDict(values)


def nearest(name, names):
  """Returns "did you mean 'task'? Valid: ..." for an unknown name."""
  close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{hint}Valid: {", ".join(sorted(names))}.'


def choose(table, name, *, field, to_add=''):
  """Returns table[name].

  Raises:
    ValueError: there is none; names the field and the nearest entry, and ends
      with `to_add`.
  """
  if name not in table:
    raise ValueError(f'{field}={name!r}: {nearest(name, table)}{to_add}')
  return table[name]


def set_task(c, name, tasks, file):
  """Sets the task of a config, and the sizes of its entry in `tasks`.

  Args:
    c: the config.
    name: of the task.
    tasks: the table TASKS of `file`.
    file: for the message if there is no such task.
  """
  to_add = f' To add a data set: an entry of TASKS in {file}.'
  sizes = choose(tasks, name, field='task', to_add=to_add).sizes
  c.task = name
  c.data.max_length = sizes.max_length
  c.data.splits.update(sizes.splits)
