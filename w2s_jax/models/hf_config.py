"""Hugging Face config.json to TransformerConfig, and back."""

import dataclasses

from w2s_jax import errors
from w2s_jax.models import hf_families
from w2s_jax.models import presets

_ACTIVATIONS = {
  'relu': 'relu',
  'gelu': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'silu': 'silu',
}
_FULL = 'full_attention'
_SCALINGS = {
  'default': (),
  'linear': ('factor',),
  'llama3': (
    'factor',
    'low_freq_factor',
    'high_freq_factor',
    'original_max_position_embeddings',
  ),
}
# Fields of ours that a config.json may leave out or set to null.
_OPTIONAL = (
  *('num_kv_heads', 'head_dim', 'query_scalar', 'attention_cap', 'logits_cap'),
  *('window', 'rope_scaling'),
)


def read(stored, path):
  """Reads the fields of a config.json.

  Args:
    stored: the fields.
    path: of the file, for messages.

  Returns:
    (TransformerConfig, Family)

  Raises:
    ValueError: a model or a field value that is not implemented.
  """
  families = hf_families.FAMILIES
  _check(path, 'model_type', stored.get('model_type'), families)
  family = families[stored['model_type']]
  stored = {k: v for k, v in stored.items() if v is not None}
  stored = family.defaults | _with_older_rope_fields(stored, family)
  for field, value in family.only.items():
    _check(path, field, stored.get(field, value), [value])
  activation = stored.get(family.activation)
  _check(path, family.activation, activation, _ACTIVATIONS)
  if family is families['gpt2'] and 'n_embd' in stored:
    stored.setdefault('n_inner', 4 * stored['n_embd'])
  sizes = {ours: stored.get(theirs) for ours, theirs in family.sizes.items()}
  absent = [
    family.sizes[ours]
    for ours, size in sizes.items()
    if size is None and ours not in _OPTIONAL
  ]
  if absent:
    raise errors.UserError(f'{path} lacks {", ".join(absent)}.')
  if 'rope_scaling' in sizes:
    sizes['rope_scaling'] = _rope_scaling(sizes, path)
  if family.full_every:
    sizes['full_every'] = _full_every(stored, family)
  is_float = {
    field.name: field.type in (float, float | None)
    for field in dataclasses.fields(presets.TransformerConfig)
  }
  config = presets.TransformerConfig(
    activation=_ACTIVATIONS[activation],
    **{
      name: float(x) if is_float[name] and x is not None else x
      for name, x in sizes.items()
    },
    **family.fixed,
  )
  if layer_types := stored.get('layer_types'):
    _check(path, 'layer_types', layer_types, [_layer_types(config)])
  return config, family


def _check(path, field, value, supported):
  if value not in list(supported):
    raise errors.UserError(
      f'{path}: {field} = {value!r} is not supported; '
      f'supported: {", ".join(map(repr, supported))}.'
    )


def _rope_scaling(sizes, path):
  """Returns the tuple of TransformerConfig.rope_scaling, or None."""
  scaling = sizes['rope_scaling'] or {}
  kind = scaling.get('rope_type', scaling.get('type', 'default'))
  _check(path, 'rope_scaling type', kind, _SCALINGS)
  scaling = {_SCALINGS['llama3'][-1]: sizes['max_positions']} | scaling
  values = tuple(scaling.get(name) for name in _SCALINGS[kind])
  if None in values:
    raise errors.UserError(
      f'{path}: rope_scaling lacks one of {_SCALINGS[kind]}.'
    )
  return values or None


def _full_every(stored, family):
  """Returns the period of layers without a window, or None if all have one."""
  layer_types = stored.get('layer_types', [])
  if _FULL in layer_types:
    return 1 + layer_types.index(_FULL)
  period = stored.get('sliding_window_pattern', family.full_every)
  return period if len(layer_types) < period else None


def _layer_types(config):
  return [
    'sliding_attention' if config.has_window(i) else _FULL
    for i in range(config.num_layers)
  ]


def _with_older_rope_fields(stored, family):
  """Flattens `rope_parameters` of newer files to the fields of older ones.

  They may be nested by kind of layer.
  """
  nested = stored.get('rope_parameters')
  if nested is None:
    return stored
  full = nested.get(_FULL, nested)
  flat = {family.sizes['rope_base']: full['rope_theta'], 'rope_scaling': full}
  if 'partial_rotary_factor' in full:
    name = family.sizes.get('rotary_fraction', 'partial_rotary_factor')
    flat[name] = full['partial_rotary_factor']
  if 'window_rope_base' in family.sizes:
    window = nested['sliding_attention']
    flat[family.sizes['window_rope_base']] = window['rope_theta']
    flat['rope_type of sliding_attention'] = window['rope_type']
  return {**stored, **flat}


def write(config):
  """Writes the config.json of the first family that has such models.

  Returns:
    (Family, fields of config.json)

  Raises:
    ValueError: no family has.
  """
  plain = dataclasses.replace(
    config,
    dropout=0.0,
    dtype='float32',
    param_dtype='float32',
    matmul_dtype='',
    remat='',
    attention='auto',
  )
  for name, family in hf_families.FAMILIES.items():
    if all(getattr(plain, k) == value for k, value in family.fixed.items()):
      fields = {'model_type': name, **_fields(family, plain)}
      if _reads_as(fields, name, plain):
        return family, fields
  raise errors.UserError(
    f'no family among {", ".join(hf_families.FAMILIES)} has models like '
    f'{config}.'
  )


def _reads_as(fields, name, config):
  try:
    return read(fields, name)[0] == config
  except errors.UserError:  # it has none of a size that the family needs
    return False


def _fields(family, config):
  ours = dataclasses.asdict(config) | dict(
    num_kv_heads=config.kv_heads,
    head_dim=config.head_width,
    query_scalar=config.query_width,
    rope_scaling=None,
  )
  for kind, names in _SCALINGS.items():
    if config.rope_scaling and len(config.rope_scaling) == len(names):
      scaling = dict(zip(names, config.rope_scaling))
      ours['rope_scaling'] = {'rope_type': kind, **scaling}
  activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  fields = {theirs: ours[name] for name, theirs in family.sizes.items()}
  fields[family.activation] = activations[config.activation]
  if family.architecture:
    fields['architectures'] = [family.architecture]
  if family.full_every:
    fields['layer_types'] = _layer_types(config)
    fields['sliding_window_pattern'] = config.full_every
  return fields
