"""Weak-to-strong generalization in JAX (Burns et al. 2023).

  import w2s_jax
  from configs import nlp

  results = w2s_jax.study.run(nlp.get_config('adapt=probe').lock())
  model = w2s_jax.load_model('runs/rotten_tomatoes')
  model.predict(['A warm and clever film that stays with you.'])

Importing this package imports nothing else: what is below is imported when it
is used, so that programs can set flags of JAX before.
"""

import importlib

__version__ = '0.1.0'

_FROM = {
  'load_model': 'loading',
  'load_predictions': 'loading',
  'load_results': 'loading',
  'load_weak_labels': 'loading',
}
_MODULES = ('study',)


def __getattr__(name):
  if name in _MODULES:
    return importlib.import_module(f'w2s_jax.{name}')
  if name in _FROM:
    return getattr(importlib.import_module(f'w2s_jax.{_FROM[name]}'), name)
  raise AttributeError(f"module 'w2s_jax' has no attribute {name!r}")


def __dir__():
  return sorted([*globals(), *_FROM, *_MODULES])
