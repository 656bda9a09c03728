"""What students of control labels show, in a made-up study."""

import numpy as np
import pytest

from w2s_jax import results
from w2s_jax import weak_labels
from w2s_jax.report import controls
from w2s_jax.report import report

import made_up

# Rates at which a control is right: as it should be, and not.
AS_EXPECTED = {
  'shuffled': (0.5, 0.8),
  'constant': (0.5, 0.8),
  'random errors': (0.75, 0.55),
  'truth': (0.9, 0.6),
}


@pytest.mark.parametrize('control', weak_labels.CONTROLS)
@pytest.mark.parametrize('as_it_should', [True, False])
def test_each_control_can_fail(tmp_path, control, as_it_should):
  (group,) = groups(tmp_path)
  rate = AS_EXPECTED[control][not as_it_should]
  other = group | {'weak_labels': control, 'correct': dict(group['correct'])}
  shape = group['correct']['student'].shape
  rng = np.random.default_rng(0)
  other['correct']['student'] = rng.random(shape) < rate
  (found,) = controls.read([group, other])
  assert found['weak_labels'] == control
  assert found['holds'] == as_it_should
  harmful = controls.sentences([found])
  assert len(harmful) == (control == 'truth' and not as_it_should)
  assert not harmful or 'On the truth logconf is ' in harmful[0]


def groups(workdir):
  rates = made_up.RATES | {'student': 0.7, 'ceiling': 0.9}
  made_up.make(workdir, losses=('logconf',), rates=rates)
  return report.aggregate(workdir, results.read(workdir))


def test_controls_are_in_a_table_of_their_own(tmp_path):
  (group,) = groups(tmp_path)
  control = group | {'weak_labels': 'shuffled'}
  assert controls.split([group, control]) == ([group], [control])
  text = made_up.console([group, control])
  assert text.count('shuffled') == 1
  assert 'not above it: NOT SO' in text  # it is right at 0.7
  assert 'Controls' not in made_up.console([group])
