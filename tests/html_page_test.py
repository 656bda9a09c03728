"""The one page with everything in it."""

import re

from w2s_jax.report import html_page
from w2s_jax.report import report

import made_up


def text_of(page):
  return re.sub(r'<(style|script)>.*?</\1>|<[^>]*>', ' ', page, flags=re.S)


def test_html_is_self_contained_and_has_all_of_the_markdown(tmp_path):
  made_up.make(tmp_path)
  report.write(tmp_path)
  page = (tmp_path / 'report.html').read_text()
  assert not re.search(r'https?:|<link|<script .*src|@import|url\(', page)
  sources = re.findall(r'<img [^>]*src="([^"]{0,22})', page)
  assert sources == ['data:image/png;base64,'] * 3
  markdown = (tmp_path / 'report.md').read_text()
  words = text_of(page)
  for number in re.findall(r'\d+\.\d+', markdown):
    assert number in words
  assert '| ' not in words and '![' not in words and '##' not in words
  lines = len(re.findall(r'(?m)^\|', markdown))
  tables = page.split('<div class="rows">')[0].count('<tr>')
  tables += page.split('<h2 id="beyond-accuracy">')[1].count('<tr>')
  assert tables == lines - len(re.findall(r'(?m)^\| ---', markdown))


def test_names_are_text_whatever_marks_are_in_them():
  markdown = '# T\n\n| a |\n| --- |\n| *b* `c` <i> &lt; <x@y.z> |\n'
  page = html_page.to_html(markdown, {})
  assert '*b* `c` &lt;i&gt; ' in page and '&lt;x@y.z&gt;' in page
  assert not re.search('<(i|em|code|a href="mailto)', page)
  page = html_page.to_html('[a](javascript:b)', {})
  assert 'href="javascript:' not in page


def test_long_tables_are_folded_that_of_the_results_on_telephones():
  table = '| a |\n| --- |\n' + '| 1 |\n' * 50
  page = html_page.to_html(f'# T\n\n## Results\n\n{table}', {})
  assert '<details open data-wide-only><summary>50 rows</summary>' in page
  assert page.count('data-label="a"') == 50
  page = html_page.to_html(f'# T\n\n## Every seed\n\n{table}', {})
  assert '<details><summary>50 rows</summary>' in page


def test_sections_are_added_and_listed_at_the_top():
  markdown = '# T\n\n## Results\n\nx\n\n## Beyond accuracy\n\ny\n'
  page = html_page.to_html(markdown, {}, [('Rows & more', '<b>z</b>')])
  titles = re.findall(r'<h2 id="([^"]*)"', page)
  assert titles == ['results', 'rows-more', 'beyond-accuracy']
  assert re.findall(r'<a href="#([^"]*)"', page) == titles
  assert '<b>z</b>' in page and '>Rows &amp; more</h2>' in page


def test_names_stay_on_one_line_and_long_words_break_at_marks():
  page = html_page.to_html("# T\n\na minilm-l6 - it's --x=1 & <b-c>\n", {})
  assert (
    '<p>a <span class="word">minilm-l6</span> - it\'s <span '
    'class="word">--x=1</span> &amp; <span class="word">&lt;b-c&gt;</span></p>'
  ) in page
  long = f'--config.data.source={"a/" * 20}'
  page = html_page.to_html(f'# T\n\n{long}\n', {})
  assert '<p>--config.<wbr>data.<wbr>source=<wbr>a/<wbr>a/' in page
  assert long in text_of(page.replace('<wbr>', ''))


def test_long_lists_are_folded():
  for number, folded in ((10, False), (11, True)):
    page = html_page.to_html('# T\n\n' + '- one\n' * number, {})
    assert page.count('<li>one</li>') == number
    assert (f'<summary>In words ({number})</summary>' in page) == folded
    assert page.count('<details>') == page.count('</details>') == folded
