"""Classifiers and reward models in the form that `transformers` opens.

The stock class of a decoder's family computes what text_heads.Classifier does:
`score`, a linear map without a bias, of the state of the last token. No stock
class of an encoder pools by the mean: its folder gets a module of its own,
which is opened with trust_remote_code=True. A reward model has one score; a
preference is the softmax of the scores of two texts.
"""

import dataclasses
import json
import pathlib
from typing import Any
from typing import NamedTuple

import numpy as np

from w2s_jax import errors
from w2s_jax.models import hf_config
from w2s_jax.models import pretrained
from w2s_jax.models import text_heads
from w2s_jax.models import tokenizers

MODULE = 'modeling_w2s.py'
_SOURCE = pathlib.Path(__file__).parents[1] / 'data' / f'{MODULE}.txt'
_OUTPUT = 'output_embed'
_OWN = 'BertMeanForSequenceClassification'
_STOCK = {'Gemma3': 'Gemma3Text'}  # others keep their names
_EXPORTED = 'classifiers and reward models on texts, of pretrained weights'


class Form(NamedTuple):
  """How `transformers` opens a model."""

  config: Any  # of the trunk, without an output table
  tokenizer: tokenizers.Tokenizer
  architecture: str  # name of the class
  own_code: bool  # it is in MODULE, not in `transformers`


def form(name, network, tokenizer):
  """Returns the Form of a model.

  Args:
    name: of the model, for messages.
    network: a head with its trunk.
    tokenizer: of the model.

  Raises:
    errors.UserError: `transformers` has no such head, trunk or tokenizer.
  """

  def unknown(part, found):
    return errors.UserError(
      f'{name}: `transformers` has no {part} like {found}; what can be '
      f'exported: {_EXPORTED}.'
    )

  if not isinstance(network, text_heads.Classifier | text_heads.RewardModel):
    raise unknown('head', type(network).__name__)
  if isinstance(tokenizer, tokenizers.Prompted):
    tokenizer = tokenizer.as_tokenizer()
  if not isinstance(tokenizer, tokenizers.Tokenizer):
    raise unknown('tokenizer', type(tokenizer).__name__)
  # Without an output table none is tied or untied.
  config = dataclasses.replace(network.config, tied=True)
  try:
    family, _ = hf_config.write(config)
  except errors.UserError:
    raise unknown('trunk', f'its, of {config.num_layers} layers') from None
  if not config.causal:
    return Form(config, tokenizer, _OWN, own_code=True)
  family_name = family.architecture.removesuffix('ForCausalLM')
  family_name = family_name.removesuffix('LMHeadModel')
  family_name = _STOCK.get(family_name, family_name)
  architecture = f'{family_name}ForSequenceClassification'
  return Form(config, tokenizer, architecture, own_code=False)


def save(folder, form, params, *, labels, max_length, keep):
  """Writes weights, config.json, tokenizer and, where it is needed, MODULE.

  Args:
    folder: created if absent.
    form: of the model.
    params: of the whole model; factors of LoRA are added to their kernels.
    labels: names of the classes, or of the one score.
    max_length: of a text, in tokens.
    keep: 'start' or 'end' of a longer text.
  """
  folder = pathlib.Path(folder)
  pad = padding_id(form.tokenizer, form.config.vocab_size)
  fields = {
    'architectures': [form.architecture],
    'id2label': dict(enumerate(labels)),
    'label2id': {label: i for i, label in enumerate(labels)},
    'pad_token_id': pad,
  }
  if form.own_code:
    # Not 'bert', whose stock class would open the folder with a random head.
    fields['model_type'] = 'bert_mean'
    module = MODULE.removesuffix('.py')
    fields['auto_map'] = {
      'AutoConfig': f'{module}.BertMeanConfig',
      'AutoModelForSequenceClassification': f'{module}.{form.architecture}',
    }
  trunk = {k: x for k, x in params['transformer'].items() if k != _OUTPUT}
  kernel_DxC = np.asarray(params['head']['kernel'])
  pretrained.save(
    folder,
    form.config,
    trunk,
    tokenizer=form.tokenizer,
    fields=fields,
    head={'score.weight': np.ascontiguousarray(kernel_DxC.T)},
  )
  if form.own_code:
    (folder / MODULE).write_text(_SOURCE.read_text())
  about_tokenizer = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'pad_token': form.tokenizer.name_of(pad),
    'padding_side': 'right',
    'truncation_side': {'start': 'right', 'end': 'left'}[keep],
    'model_max_length': max_length,
    'clean_up_tokenization_spaces': False,
    'model_input_names': ['input_ids', 'attention_mask'],
  }
  text = json.dumps(about_tokenizer, indent=2) + '\n'
  (folder / 'tokenizer_config.json').write_text(text)


def padding_id(tokenizer, vocab_size):
  """Returns a token to pad with that ends no text.

  Stock classes of decoders take the last token that is another one for the end
  of a text.
  """
  ends = tokenizer.special_ids()[1]
  special = tokenizer.special_tokens()
  named = [i for name, i in special.items() if 'pad' in name.lower()]
  candidates = [*named, tokenizer.end_id(), *special.values(), 0]
  return next(i for i in candidates if i not in ends and i < vocab_size)
