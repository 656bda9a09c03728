"""Published figures of attached chips."""

import types

import pytest

from w2s_jax.runtime import chips


def devices(*kinds):
  return [types.SimpleNamespace(device_kind=kind) for kind in kinds]


@pytest.mark.parametrize(
  'kinds, peak',
  [
    (['NVIDIA H100 80GB HBM3'], 989e12),
    (['NVIDIA A100-SXM4-40GB'], 312e12),
    (['NVIDIA H200'] * 8, 8 * 989e12),
    (['TPU v5 lite', 'TPU v5 lite'], 2 * 197e12),
    (['NVIDIA H100 PCIe'], None),
    (['NVIDIA H200', 'cpu'], None),
  ],
)
def test_peak_of_attached_devices(kinds, peak):
  assert chips.peak_flops(devices(*kinds)) == peak
