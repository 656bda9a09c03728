"""Fields that every study has, and the parser of `--config=file.py:arg,...`.

Any field can be set from the command line: --config.data.max_length=64
"""

import difflib

from ml_collections import config_dict


def get_config():
  c = config_dict.ConfigDict()
  c.task = ''
  c.seeds = (0, 1)  # each draws its own halves, data order and random init
  c.population = 1  # seeds that train side by side, in one compiled step
  # The models by a name of your choice, and who teaches whom: 'weak>strong', or
  # 'weak>middle>strong', where each labels fresh rows for the next.
  c.models = config_dict.ConfigDict()
  c.students = ('weak>strong',)
  # 'soft', the supervisor's probabilities, or 'hard', its most probable class.
  c.weak_labels = 'soft'
  # Of ten checkpoints of a student the one kept: 'none' is the last;
  # 'weak_labels' agrees best with the supervisor on validation rows;
  # 'ground_truth' is best on the truth, which is cheating.
  c.early_stopping = 'none'
  # A name for a recipe that results would not tell from another: 'lr 1e-4'.
  c.variant = ''
  c.losses = ('xent', 'logconf')  # one student each; see w2s_jax/losses.py
  # Whether generative fine-tuning on the texts of the transfer set, labels
  # unseen, comes first (paper section 5.2.2); (False, True) compares.
  c.generative = (False,)
  c.generative_train = fine_tuning(learning_rate=1e-4, epochs=1, batch_size=8)
  c.loss_args = config_dict.ConfigDict(
    {
      'logconf': {
        'alpha_max': 0.5,  # the paper: 0.75 for its largest students
        'warmup': 0.2,  # share of training over which alpha grows
        'compat': 'paper',  # or 'openai', the public code with its jump
      }
    }
  )
  c.data = config_dict.ConfigDict(
    {
      'source': '',  # '' is the task's own; tfds:, file:, hf:, asset:
      'seed': 0,  # of the test and validation sets, shared by all seeds
      'max_length': 128,  # tokens; longer texts are truncated
      'num_buckets': 8,  # padded lengths, so compiled shapes
      'select': {},  # which rows, where a task leaves a choice
      # Rows of each split; -1 shares what is left. Each step of a chain has a
      # transfer slice of its own.
      'splits': {'weak': -1, 'transfer': -1, 'validation': 500, 'test': 1000},
    }
  )
  # data * fsdp * tensor = devices; -1 takes what is left.
  c.mesh = config_dict.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  c.eval_batch_size = 32
  c.checkpoint_every = 100  # steps
  c.tensorboard = False  # needs the extra 'tensorboard'
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
  """One model of the ladder and how it is fine-tuned."""
  return config_dict.ConfigDict(
    {
      # In tables and folder names; '' is that of the weights, as 'minilm-l6'.
      'name': name,
      'weights': weights,  # asset:NAME, a Hugging Face folder, random:PRESET
      'num_layers': num_layers,  # keeps the first so many; -1 keeps all
      # 'verbalize' scores the next token of a decoder after `prompt`: one of
      # head_tokens for each class.
      'head': 'classify',
      'head_init': 'zero',  # or 'token_rows' of head_tokens
      'head_tokens': ('0', '1'),
      'prompt': '{text}\nAnswer:',
      'dropout': 0.0,
      'dtype': 'float32',  # of the trunk's computation; bfloat16 on TPU and GPU
      'param_dtype': 'float32',
      'remat': False,  # trades time for memory
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
  return config_dict.ConfigDict(
    {
      'epochs': epochs,
      'batch_size': batch_size,
      'accumulate': 1,  # pieces of a batch, one at a time; trades time too
      'learning_rate': learning_rate,
      'warmup': 0.1,  # share of all steps
      'decay': 'linear',  # or 'cosine', 'constant'; to 0
      'weight_decay': 0.01,
      'clip_norm': 1.0,
      'freeze': freeze,  # regex on parameter paths; '' trains all
    }
  )


def adaptation():
  """How a pretrained model is adapted to a task.

  full: fine-tunes by `train`. lora: the same for a change of low rank. probe: a
  linear map of frozen features. lp_ft: probe, then full. prompt: no training,
  but `shots` labelled examples before the question.
  """
  return config_dict.ConfigDict(
    {
      'method': 'full',
      'lora': {
        'rank': 8,
        'alpha': 16.0,
        'targets': 'attention/(query|value)/kernel',  # regex, as for freeze
      },
      'probe': fine_tuning(learning_rate=3e-3, epochs=50, batch_size=128),
      'shots': 4,
    }
  )


def tiny_pair(c, preset):
  """Random models of one layer and of two, for debugging."""
  for key, layers in (('weak', 1), ('strong', 2)):
    c.models[key] = model(
      weights=f'random:{preset}',
      num_layers=layers,
      learning_rate=3e-3,
      epochs=4,
    )


def parse_arg(arg, **defaults):
  """Parses 'debug,task=sst2' into a ConfigDict with the types of defaults.

  A bare name sets a bool to True.

  Raises:
    ValueError: an unknown name or a value of another type.
  """
  values = dict(defaults)
  for part in filter(None, (arg or '').split(',')):
    name, given, text = part.partition('=')
    if name not in defaults:
      raise ValueError(f'config argument {name!r}: {nearest(name, defaults)}')
    kind = type(defaults[name])
    if kind is bool:
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
  """Returns 'did you mean 'task'? Valid: ...' for an unknown name."""
  close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{hint}Valid: {", ".join(sorted(names))}.'


def choose(table, name, *, field):
  """Returns table[name]; raises a ValueError with the nearest entry."""
  if name not in table:
    raise ValueError(f'{field}={name!r}: {nearest(name, table)}')
  return table[name]
