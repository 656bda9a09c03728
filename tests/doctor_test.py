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
