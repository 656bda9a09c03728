"""Renders a report in Markdown as one HTML page that holds all it shows."""

import base64
import html
import pathlib
import re

import markdown_it

DPI = 160  # of the figures
_WIDE = 720  # pixels of figures that a narrow page scrolls
_LONG = 40  # rows of a table that is folded, that of the results on telephones
_MANY = 10  # items of a list that is folded
_LONGEST_WORD = 32  # characters that are kept on one line of a telephone
_HERE = pathlib.Path(__file__).parent


def to_html(markdown, pngs, sections=()):
  """Returns a self-contained page.

  Args:
    markdown: of page.to_markdown.
    pngs: the figures by file name.
    sections: (title, HTML) to add before the section of that is beyond
      accuracy.
  """
  parser = _parser()
  tokens = parser.parse(markdown)
  _prepare(tokens)
  body = parser.renderer.render(tokens, parser.options, {'pngs': pngs})
  for title, content in sections:
    added = f'<h2 id="{_slug(title)}">{html.escape(title)}</h2>\n{content}\n'
    before, mark, after = body.partition('<h2 id="beyond-accuracy"')
    body = before + added + mark + after
  links = ' '.join(
    f'<a href="#{slug}">{title}</a>'
    for slug, title in re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', body)
  )
  body = body.replace('</h1>', f'</h1>\n<nav>{links}</nav>', 1)
  return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Weak-to-strong generalization</title>
<style>
{(_HERE / 'page.css').read_text()}</style></head>
<body>
{body}
<script>
{(_HERE / 'page.js').read_text()}</script>
</body></html>
"""


def _parser():
  parser = markdown_it.MarkdownIt('commonmark', {'html': False})
  # Names of models and variants are text, whatever marks are in them.
  parser.enable('table').disable(['emphasis', 'backticks', 'autolink'])
  parser.add_render_rule('text', _text)
  parser.add_render_rule('bullet_list_open', _list_open)
  parser.add_render_rule('bullet_list_close', _list_close)
  parser.add_render_rule('image', _image)
  parser.add_render_rule('fence', _fence)
  parser.add_render_rule('table_open', _table_open)
  parser.add_render_rule('table_close', _table_close)
  return parser


def _prepare(tokens):
  """Sets ids of sections, columns of cells, and sizes of tables and lists."""
  columns, table, items, section = [], None, None, ''
  for token, following in zip(tokens, [*tokens[1:], None]):
    if token.type == 'heading_open':
      section = _slug(following.content)
      token.attrSet('id', section)
    elif token.type == 'bullet_list_open':
      items, token.meta = token, {'items': 0}
    elif token.type == 'list_item_open':
      items.meta['items'] += 1
    elif token.type == 'bullet_list_close':
      token.meta = items.meta
    elif token.type == 'table_open':
      table, columns, token.meta = token, [], {'rows': 0, 'section': section}
    elif token.type == 'th_open':
      columns.append(following.content)
    elif token.type == 'tr_open':
      table.meta['rows'] += 1
      place = 0
    elif token.type == 'td_open':
      token.attrSet('data-label', columns[place])
      place += 1
    elif token.type == 'table_close':
      token.meta = table.meta


def _text(renderer, tokens, i, options, env):
  return escape(tokens[i].content)


def escape(text):
  """Escapes text for HTML so that names such as minilm-l6 stay on one line."""
  return re.sub(r'\S+', lambda word: _word(word[0]), text)


def _word(word):
  escaped = html.escape(word, quote=False)
  if len(word) > _LONGEST_WORD:
    return re.sub(r'(?<=[/.,=])(?=\w)', '<wbr>', escaped)
  return (
    f'<span class="word">{escaped}</span>' if '-' in word[1:-1] else escaped
  )


def _list_open(renderer, tokens, i, options, env):
  number = tokens[i].meta['items']
  fold = f'<details><summary>In words ({number})</summary>\n'
  return f'{fold if number > _MANY else ""}<ul>\n'


def _list_close(renderer, tokens, i, options, env):
  return '</ul>\n' + '</details>\n' * (tokens[i].meta['items'] > _MANY)


def _table_open(renderer, tokens, i, options, env):
  meta = tokens[i].meta
  fold = ''
  if meta['rows'] > _LONG:
    shown = ' open data-wide-only' if meta['section'] == 'results' else ''
    summary = f'<summary>{meta["rows"] - 1:,} rows</summary>'
    fold = f'<details{shown}>{summary}\n'
  return f'{fold}<div class="scroll"><table data-of="{meta["section"]}">\n'


def _table_close(renderer, tokens, i, options, env):
  end = '</details>\n' if tokens[i].meta['rows'] > _LONG else ''
  return f'</table></div>\n{end}'


def _image(renderer, tokens, i, options, env):
  name = tokens[i].content
  png = env['pngs'][name]
  # At its size in inches, of 96 pixels of a page; the width is in the header.
  width = round(int.from_bytes(png[16:20]) / DPI * 96)
  data = base64.b64encode(png).decode()
  wide = ''
  if width > _WIDE:
    wide = f' class="wide" style="--width: {width}px"'
  return (
    f'<img alt="{html.escape(name)}" width="{width}"{wide} '
    f'src="data:image/png;base64,{data}">'
  )


def _fence(renderer, tokens, i, options, env):
  inner = html.escape(tokens[i].content)
  return f'<details><summary>Config</summary><pre>{inner}</pre></details>\n'


def _slug(title):
  return re.sub(r'\W+', '-', title.lower()).strip('-')
