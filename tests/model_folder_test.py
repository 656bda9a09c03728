import json
import sys

import pytest

from w2s_jax import assets
from w2s_jax.models import model_folder

constants = pytest.importorskip('huggingface_hub.constants')


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """Fakes a huggingface_hub cache, offline: one model, two revisions."""
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  model = tmp_path / 'models--owner--tiny'
  (model / 'refs').mkdir(parents=True)
  for revision, commit in (('main', 'a' * 40), ('step3000', 'b' * 40)):
    (model / 'refs' / revision).write_text(commit)
    snapshot = model / 'snapshots' / commit
    snapshot.mkdir(parents=True)
    (snapshot / 'config.json').write_text(json.dumps({'of': revision}))
  return tmp_path


def test_a_name_may_have_a_revision(cache):
  for weights, revision in (
    ('hf:owner/tiny', 'main'),
    ('hf:owner/tiny@step3000', 'step3000'),
    ('hf:owner/tiny@' + 'a' * 40, 'main'),
  ):
    folder = model_folder.folder(weights)
    assert cache in folder.parents
    assert json.loads((folder / 'config.json').read_text())['of'] == revision


@pytest.mark.parametrize('name', ['owner/tiny@step1', 'owner/none', 'a/b/c'])
def test_what_can_not_be_fetched_is_named(name, cache):
  with pytest.raises(FileNotFoundError, match=f'hf:{name} .*name a folder'):
    model_folder.folder(f'hf:{name}')


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ImportError, match=r'hf:owner/tiny .*w2s_jax\[hf\]'):
    model_folder.folder('hf:owner/tiny')


def test_folders_and_assets(tmp_path):
  assert model_folder.folder(str(tmp_path)) == tmp_path
  assert model_folder.folder('asset:board-s') == assets.path('board-s')
