"""Learning curves: accuracy and agreement on test rows over training.

Shapes: S seeds, P points of a curve.
"""

import json

from etils import epath
import numpy as np

from w2s_jax.report import groups as groups_lib
from w2s_jax.report import panels


def load(workdir, rows):
  """Returns {role: {name: [P]}} of student and ceiling, means over seeds.

  Names are `share` of training, `accuracy` and those of metrics.agreement; the
  dict is empty unless all seeds have a curve, measured at the same steps.
  """
  curves = {}
  for role in ('student', 'ceiling'):
    stages = [epath.Path(workdir) / 'stages' / x['stages'][role] for x in rows]
    paths = [folder / 'curve.json' for folder in stages]
    if not all(path.exists() for path in paths):
      continue
    points_SxP = [json.loads(path.read_text()) for path in paths]
    steps_SxP = [[point['step'] for point in seed] for seed in points_SxP]
    if any(steps != steps_SxP[0] for steps in steps_SxP):
      continue
    curves[role] = {
      name: np.mean([[p[name] for p in seed] for seed in points_SxP], axis=0)
      for name in points_SxP[0][0]
    }
    curves[role]['share'] = curves[role]['step'] / steps_SxP[0][-1]
  return curves


def draw(axes, groups, colours):
  """Draws the curves of one supervisor and one student's model."""
  drawn = [group for group in groups if 'student' in group['curves']]
  for group in drawn:
    curve = group['curves']['student']
    colour = colours[panels.without_generative(group)]
    look = {'color': colour, 'marker': 'o', 'markersize': 3}
    _line(axes, curve, 'accuracy', label=groups_lib.method(group), **look)
    _line(axes, curve, 'agreement_all', linestyle=':', **look)
  if 'ceiling' in drawn[0]['curves']:
    ceiling = drawn[0]['curves']['ceiling']
    _line(axes, ceiling, 'accuracy', label='ceiling', color=panels.CEILING)
  weak = 100 * drawn[0]['weak_accuracy']
  axes.axhline(weak, color=panels.WEAK, linestyle='--', label='weak')
  axes.plot([], [], ':', color='black', label='agreement with\nthe supervisor')
  axes.set_xlabel('share of training')
  axes.set_ylabel(f'test rows (%){panels.start(axes.get_ylim())}')
  panels.legend(axes)


def _line(axes, curve, name, **look):
  axes.plot(curve['share'], 100 * curve[name], **look)
