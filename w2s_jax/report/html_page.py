"""Converts a report in Markdown to one HTML page that holds its figures."""

import base64
import html
import re

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { text-align: left; border-bottom: 2px solid #1c1c1c; }
th, td { padding: .35rem 1rem .35rem 0; }
td { border-bottom: 1px solid #ddd; }
pre { overflow-x: auto; font-size: .8rem; }
img { max-width: 100%; height: auto; margin-top: 1.5rem; }
"""


def to_html(markdown, pngs):
  """Returns a self-contained page; `pngs` are the figures by file name."""

  def cells(tag, line):
    texts = re.split(r'(?<!\\) \| ', line.strip()[2:-2])
    texts = [text.replace('\\|', '|') for text in texts]
    return f'<tr>{"".join(f"<{tag}>{text}</{tag}>" for text in texts)}</tr>'

  def render(block):
    mark, _, text = block.partition(' ')
    lines = block.split('\n')
    if mark in ('#', '##'):
      return f'<h{len(mark)}>{text}</h{len(mark)}>'
    if mark == '-':
      return '<ul>' + ''.join(f'<li>{x[2:]}</li>' for x in lines) + '</ul>'
    if mark == '|':
      header, _, *rows = lines
      body = cells('th', header) + ''.join(cells('td', row) for row in rows)
      return f'<div class="scroll"><table>{body}</table></div>'
    if mark.startswith('```'):
      inner = '\n'.join(lines[1:-1])
      return f'<details><summary>Config</summary><pre>{inner}</pre></details>'
    if image := re.fullmatch(r'!\[(.*)\]\(figures/.*\)', block):
      data = base64.b64encode(pngs[image[1]]).decode()
      return f'<img alt="{image[1]}" src="data:image/png;base64,{data}">'
    return f'<p>{block}</p>'

  blocks = html.escape(markdown.strip()).split('\n\n')
  body = '\n'.join(map(render, blocks))
  return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Weak-to-strong generalization</title>
<style>{_STYLE}</style></head>
<body>
{body}
</body></html>
"""
