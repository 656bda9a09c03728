"""Says what a stage was trained on and how well it does; or lists all stages.

w2s show runs/nlp
w2s show runs/nlp/student-logconf-minilm-l6-probe-by-weak-seed0
"""

import json

from etils import epath

from experiments import command_line
from experiments import folders
from w2s_jax import errors
from w2s_jax.runtime import files
from w2s_jax.runtime import logger


def main(arguments):
  path = arguments.path.rstrip('/').removesuffix('/stages')
  if (epath.Path(path).expanduser() / 'stages').is_dir():
    _print(listing(epath.Path(path).expanduser()))
    return
  workdir, stage = folders.split_stage(path)
  folders.check_is_workdir(workdir if stage and '/' in path else path)
  folder = find(epath.Path(workdir).expanduser(), stage)
  _print(description(folder))


def _print(lines):
  console = command_line.console()
  for line in lines:
    logger.print_line(console, line)


def listing(workdir):
  """Lines: each stage with its accuracy on the test rows and its time."""
  lines = [f'{"test %":>6} {"seconds":>8}  stage']
  for folder in sorted((workdir / 'stages').iterdir()):
    summary = summary_of(folder)
    if summary is None:
      lines.append(f'{"":>6} {"not done":>8}  {folder.name}')
      continue
    accuracy = _percent(summary.get('test_accuracy'))
    lines.append(f'{accuracy:>6} {summary["seconds"]:>8}  {folder.name}')
  return lines


def find(workdir, beginning):
  """Folder of the one stage whose name begins so.

  Raises:
    errors.UserError: there is none, or there are several.
  """
  names = sorted(path.name for path in (workdir / 'stages').iterdir())
  found = [name for name in names if name.startswith(beginning)]
  if len(found) == 1:
    return workdir / 'stages' / found[0]
  shown = ', '.join((found or names)[:5])
  raise errors.UserError(
    f'{len(found)} stages of {workdir} begin with {beginning!r}; name one of: '
    f'{shown}{", ..." if len(found or names) > 5 else ""}'
  )


def description(folder):
  """Lines about one stage: what it read, its recipe and its scores."""
  path = folder / 'config.json'
  if not path.exists():
    raise errors.MissingFileError(
      f'{path} is missing: the stage has not begun. Start the run again.'
    )
  config, summary = json.loads(path.read_text()), summary_of(folder)
  names = {x.name.rpartition('-')[2]: x.name for x in folder.parent.iterdir()}
  return [
    folder.name,
    *_entries(
      {
        'kind': config['kind'],
        'model': config.get('weights'),
        'head': config.get('model', {}).get('head'),
        'recipe': _pairs(config.get('train')),
        'lora': _pairs(config.get('lora')),
        'loss': _loss(config),
        'reads': [names[key] for key in _strings(config) if key in names],
        'state': 'done' if summary else 'not done; the same run resumes it',
        'scores': _pairs(
          {k: v for k, v in (summary or {}).items() if 'accuracy' in k}
        ),
        'work': _pairs(
          {k: v for k, v in (summary or {}).items() if 'accuracy' not in k}
        ),
        'curve': _curve(folder),
        'files': ', '.join(sorted(file.name for file in folder.iterdir())),
      }
    ),
  ]


def summary_of(folder):
  """The summary of a finished stage; None where it is not done."""
  done = folder / 'DONE'
  return files.load_record(done)['summary'] if done.exists() else None


def _entries(found):
  for name, value in found.items():
    for line in value if isinstance(value, list) else [value] if value else []:
      yield f'  {name:<8}{line}'
      name = ''


def _pairs(values):
  return ', '.join(
    f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}'
    for k, v in (values or {}).items()
    if v != ''
  )


def _loss(config):
  if not config.get('loss'):
    return None
  arguments = _pairs(config.get('loss_args'))
  return config['loss']['name'] + (f' ({arguments})' if arguments else '')


def _curve(folder):
  """'loss 0.6931 to 0.4012 in 384 steps' of metrics.jsonl."""
  path = folder / 'metrics.jsonl'
  rows = (
    [json.loads(x) for x in path.read_text().splitlines()]
    if (path.exists())
    else []
  )
  losses = [(r['step'], r['train/loss']) for r in rows if 'train/loss' in r]
  if not losses:
    return None
  first, last = losses[0][1], losses[-1][1]
  return f'loss {first:.4f} to {last:.4f} in {losses[-1][0] + 1} steps'


def _percent(value):
  return '' if value is None else f'{100 * value:.1f}'


def _strings(value):
  """Yields all strings in a JSON value."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict | list):
    for x in value.values() if isinstance(value, dict) else value:
      yield from _strings(x)


if __name__ == '__main__':
  parser = folders.Parser(__doc__)
  parser.add_argument(
    'path',
    metavar='WORKDIR[/STAGE]',
    help='a stage by the beginning of its name',
  )
  folders.run(main, parser)
