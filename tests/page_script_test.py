"""What the script of a report does, in a headless browser."""

import re
import shutil
import subprocess

from matplotlib import image
import pytest

from w2s_jax.report import html_page

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'chrome'

MARKDOWN = """# T

## Results

| method | student | PGR |
| --- | --- | --- |
| xent | 61.5 ±1.1 | 0.31 [0.11, 0.48] |
| logconf | 9.5 ±1.1 | undefined |
| chain xent | 70.1 ±1.1 | 1.50 [0.54, 0.77] |
| stopped | 65.0 ±1.1 | -0.20 [-0.54, 0.77] |

## Beyond accuracy

x
"""
ROWS = """<div class="tools" data-script hidden><select id="student">
<option value="student-0">a</option><option value="student-1" selected>b
</option></select><select id="which"><option value="all">all</option></select>
</div><div id="student-0"><div class="rows"><div class="row right">r0</div>
</div></div><div id="student-1"><div class="rows"><div class="row right">r1
</div><div class="row wrong">w1</div></div></div>"""


def run(folder, fragment, *flags):
  """The page after its script ran, or what the flags ask for."""
  path = folder / 'report.html'
  path.write_text(html_page.to_html(MARKDOWN, {}, [('Rows', ROWS)]))
  return browse(path, fragment, *flags)


def chromium():
  """Its path; looked for late, as .ci/run installs it beside other packages."""
  for name in NAMES:
    if path := shutil.which(name):
      return path
  pytest.skip('no Chromium that opens the page: apt-get install chromium')


def browse(path, fragment, *flags):
  folder = path.parent
  done = subprocess.run(
    [
      *(chromium(), '--headless', '--no-sandbox', '--disable-gpu'),
      *(f'--user-data-dir={folder / "profile"}', *(flags or ['--dump-dom'])),
      f'file://{path}#{fragment}',
    ],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def methods(page, shown_only=False):
  first = r'<tr( hidden="")?>\s*<td data-label="method"[^>]*>(.*?)<'
  rows = re.findall(first, page)
  return [name for hidden, name in rows if not (shown_only and hidden)]


def test_sorts_by_number_with_the_undefined_last(tmp_path):
  page = run(tmp_path, 'sort=pgr')
  assert methods(page) == ['chain xent', 'xent', 'stopped', 'logconf']
  assert re.search('<th aria-sort="descending"><button[^>]*>PGR<', page)
  page = run(tmp_path, 'sort=method')
  assert methods(page) == ['chain xent', 'logconf', 'stopped', 'xent']


def test_hides_columns_and_rows(tmp_path):
  page = run(tmp_path, 'hide=student&filter=xent&rows=wrong')
  assert methods(page, shown_only=True) == ['xent', 'chain xent']
  cells = re.findall(r'<td data-label="(\w+)" hidden=', page)
  assert cells == ['student'] * 4
  assert '<div class="row right" hidden="">r1' in page
  assert '<div class="row wrong">w1' in page
  assert '<div id="student-0" hidden="">' in page
  assert '<div id="student-1">' in page


def test_a_section_as_fragment_hides_nothing(tmp_path):
  page = run(tmp_path, 'rows')
  assert methods(page, shown_only=True) == methods(page)
  assert '<div class="row right">r1' in page and 'placeholder="filter' in page


def test_a_screenshot_of_it_has_content(tmp_path):
  path = tmp_path / 'page.png'
  run(tmp_path, '', f'--screenshot={path}', '--window-size=1280,800')
  assert image.imread(path)[..., :3].std() > 0.05


def test_a_telephone_scrolls_nothing_sideways_and_folds_long_results(tmp_path):
  name = 'minilm-l1-of-a-long-name → minilm-l6-of-a-long-name, ' * 3
  line = f'| chain {name} | 70.1 ±1.1 | 1.50 [0.54, 0.77] |\n'
  markdown = MARKDOWN.replace('\n## Beyond', f'{50 * line}\n## Beyond')
  markdown += f'\n- --config.data.source=file:{"folder/" * 20} {name}\n'
  rows = ROWS.replace('>a</option>', f'>{name}</option>')
  page = html_page.to_html(markdown, {}, [('Rows', rows)])
  (tmp_path / 'report.html').write_text(page)
  outer = tmp_path / 'outer.html'
  outer.write_text(
    '<iframe src="report.html" width="390" height="800" onload="const page = '
    "contentDocument; document.title = page.documentElement.scrollWidth + ' ' "
    "+ page.querySelectorAll('details:not([open]) [data-of=results]').length"
    '"></iframe>'
  )
  page = browse(outer, '', '--dump-dom', '--allow-file-access-from-files')
  width, folded = re.search(r'<title>(\d+) (\d)</title>', page).groups()
  assert int(width) <= 390 and folded == '1'
