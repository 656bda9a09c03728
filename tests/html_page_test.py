"""The one page with everything in it."""

import re

from w2s_jax.report import report

import made_up


def test_html_is_self_contained_and_has_all_of_the_markdown(tmp_path):
  made_up.make(tmp_path)
  report.write(tmp_path)
  page = (tmp_path / 'report.html').read_text()
  assert not re.search(r'https?:|<link|<script|@import|url\(', page)
  sources = re.findall(r'src="([^"]{0,22})', page)
  assert sources == ['data:image/png;base64,'] * 3
  markdown = (tmp_path / 'report.md').read_text()
  words = re.sub(r'<[^>]*>', ' ', page)
  for number in re.findall(r'\d+\.\d+', markdown):
    assert number in words
  assert '| ' not in words and '![' not in words and '##' not in words
  assert page.count('<tr>') == 4 + 2 + 1 + 5 + 4  # headers and lines
