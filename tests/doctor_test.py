"""What `w2s doctor` says of a machine."""

from experiments import doctor


def test_a_section_that_fails_ends_nothing(monkeypatch, capsys):
  def fails():
    raise RuntimeError('no driver')

  monkeypatch.setattr(doctor, 'SECTIONS', {'A': fails, 'B': lambda: ['fine']})
  doctor.main(arguments())
  assert capsys.readouterr().out.splitlines() == [
    *('A', '  cannot be told: RuntimeError: no driver', 'B', '  fine'),
  ]


def arguments(names=(), get=None):
  class Arguments:
    pass

  found = Arguments()
  found.names, found.get = names, get
  return found


def test_what_is_missing_has_its_command(monkeypatch, tmp_path, capsys):
  monkeypatch.setenv('W2S_CACHE', str(tmp_path))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  lines = doctor.models_and_data()
  assert 'in the cache: nothing yet' in lines
  assert any('w2s doctor --get=minilm-l6 (licence: MIT' in x for x in lines)
  here, others, _ = doctor.tasks()
  assert 'chess_puzzles' in here and 'cola' in others
  (tmp_path / 'glue' / 'cola').mkdir(parents=True)
  (tmp_path / 'glue' / 'cola' / 'cola-train.array_record-00000').touch()
  assert doctor.is_ready('tfds:glue/cola')
  doctor.main(arguments(names=['sst2']))
  shown = capsys.readouterr().out
  assert 'tfds build glue/sst2' in shown and 'file:FOLDER/' in shown


def test_devices_and_disk_are_told():
  lines = doctor.devices()
  assert 'CPU cores' in lines[0] and 'GFLOP/s' in lines[1]
  assert any('compiled programs' in line for line in doctor.disk())


def test_an_accelerator_that_jax_does_not_see_has_its_command(
  monkeypatch, tmp_path
):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setattr(doctor.shutil, 'which', lambda name: None)
  monkeypatch.setattr(doctor, '_NVIDIA', (str(tmp_path / 'nvidia0'),))
  monkeypatch.setattr(doctor, '_PCI', str(tmp_path / 'pci'))
  monkeypatch.setattr(doctor, '_is_installed', lambda package: False)
  network_card = tmp_path / 'pci' / '0000:00:04.0'
  add_device(network_card, '0x0042')
  assert doctor.unused_devices() == []
  (tmp_path / 'nvidia0').touch()
  add_device(tmp_path / 'pci' / '0000:00:05.0', '0x0063')
  gpu, tpu = doctor.unused_devices()
  assert 'NVIDIA GPU is here' in gpu and "pip install 'w2s_jax[cuda]'" in gpu
  assert 'TPU is here' in tpu and "pip install 'w2s_jax[tpu]'" in tpu
  # The modules of jax-cuda13-plugin and of libtpu.
  there = 'jax_cuda13_plugin', 'libtpu'
  monkeypatch.setattr(doctor, '_is_installed', there.__contains__)
  gpu, _ = doctor.unused_devices()
  assert 'JAX_PLATFORMS=cuda python' in gpu and 'pip install' not in gpu
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert all('unset JAX_PLATFORMS' in x for x in doctor.unused_devices())


def add_device(folder, device):
  folder.mkdir(parents=True)
  (folder / 'vendor').write_text('0x1ae0\n')
  (folder / 'device').write_text(f'{device}\n')
