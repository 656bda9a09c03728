"""Accelerators that jobs of a sweep would be given, by a made-up JAX."""

import pytest

from experiments import devices


@pytest.fixture
def jax_finds(tmp_path, monkeypatch):
  """Makes JAX find such devices in processes that are started here."""

  def finds(platform, coords):
    (tmp_path / 'jax.py').write_text(f"""\
class Device:
  def __init__(self, coords):
    self.platform, self.coords, self.id = {platform!r}, coords, coords[0]


def local_devices():
  return list(map(Device, {coords!r}))
""")

  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  for name in ('JAX_PLATFORMS', 'CUDA_VISIBLE_DEVICES'):
    monkeypatch.delenv(name, raising=False)
  return finds


def gpus(count):
  return [(i,) for i in range(count)]


def visible(jobs):
  return [x['CUDA_VISIBLE_DEVICES'] for x in devices.environments(jobs)]


def test_gpus_are_divided(jax_finds, monkeypatch):
  jax_finds('gpu', gpus(4))
  assert visible(4) == ['0', '1', '2', '3']
  assert visible(2) == ['0,1', '2,3']
  assert visible(3) == ['0', '1', '2']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '7,GPU-5a,2,3')
  assert visible(2) == ['7,GPU-5a', '2,3']


def test_one_job_off_the_cpu_by_default_has_all(jax_finds):
  jax_finds('gpu', gpus(4))
  assert devices.environments(None) == [{}]
  assert devices.environments(1) == [{}]


def test_the_cpu_has_two_jobs_by_default(jax_finds, monkeypatch):
  jax_finds('cpu', gpus(1))
  assert devices.environments(None) == [{}, {}]
  assert devices.environments(3) == [{}, {}, {}]
  jax_finds('gpu', gpus(4))
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.environments(None) == [{}, {}]


def test_tpu_chips_are_divided(jax_finds):
  cores = [(x, y, 0) for y in range(2) for x in range(2) for _ in range(2)]
  jax_finds('tpu', cores)  # four chips of two cores
  for jobs, chips, bounds in (
    (2, ['0,1', '2,3'], '1,2,1'),
    (3, ['0', '1', '2'], '1,1,1'),
    (4, ['0', '1', '2', '3'], '1,1,1'),
  ):
    found = devices.environments(jobs)
    assert [x['TPU_VISIBLE_CHIPS'] for x in found] == chips
    assert {x['TPU_CHIPS_PER_PROCESS_BOUNDS'] for x in found} == {bounds}
    assert len({x['TPU_PROCESS_PORT'] for x in found}) == jobs
  jax_finds('tpu', [(x, y, 0) for y in range(4) for x in range(2)])
  found = devices.environments(2)
  assert {x['TPU_CHIPS_PER_PROCESS_BOUNDS'] for x in found} == {'2,2,1'}


@pytest.mark.parametrize(
  'platform, jobs, message',
  [
    ('gpu', 3, '--jobs=3: this machine has 2 GPUs.* at most 2,'),
    ('tpu', 5, '--jobs=5: this machine has 2 TPU chips'),
    ('gpu', 0, '--jobs=0 must be at least 1'),
  ],
)
def test_more_jobs_than_accelerators(platform, jobs, message, jax_finds):
  jax_finds(platform, gpus(2))
  with pytest.raises(ValueError, match=message):
    devices.environments(jobs)


def test_a_jax_that_does_not_start_is_one_line(jax_finds, tmp_path):
  (tmp_path / 'jax.py').write_text('raise RuntimeError("no driver")')
  with pytest.raises(ValueError, match='not known .*no driver.; --jobs=1'):
    devices.environments(2)
  assert devices.environments(1) == [{}]
