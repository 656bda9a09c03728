"""Blocks of Markdown, of the kinds that html_page.py converts."""


def table(header, rows):
  lines = [header, ['---'] * len(header), *rows]
  lines = [[_cell(text) for text in line] for line in lines]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(text):
  """One line without column marks, whatever a model or variant is called."""
  return ' '.join(text.split()).replace('|', '\\|')


def bullets(items):
  """A list of the items, each once."""
  return '\n'.join(f'- {item}' for item in dict.fromkeys(items))


def images(captions, names):
  return '\n\n'.join(
    f'![{name}](figures/{name})\n\n{captions[name]}' for name in names
  )


def number(value, scale=1, digits=3):
  return '–' if value is None else f'{scale * value:.{digits}f}'
