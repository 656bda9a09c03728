"""CITATION.cff has the version of the package and the authors of the paper."""

import yaml  # comes with ml_collections

import w2s_jax

import tiny


def test_version_and_authors():
  cited = yaml.safe_load((tiny.ROOT / 'CITATION.cff').read_text())
  required = {'cff-version', 'message', 'title', 'authors', 'version'}
  assert required <= cited.keys()
  assert cited['version'] == w2s_jax.__version__
  assert cited['authors'] == [{'name': 'The w2s_jax authors'}]
  [paper] = cited['references']
  assert paper['identifiers'][0]['value'] == 'arXiv:2312.09390'
  names = [author['family-names'] for author in paper['authors']]
  assert len(names) == 12 and (names[0], names[-1]) == ('Burns', 'Wu')
