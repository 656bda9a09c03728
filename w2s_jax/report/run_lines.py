"""What made a workdir: the latest command, with its versions and config."""

import datetime
import json


def text(run):
  """A list in Markdown of the record in run.json; '' without one."""
  if run is None:
    return ''
  versions = (f'{name} {x}' for name, x in run['versions'].items() if x)
  code = 'no git checkout'
  if run['git_commit']:
    code = run['git_commit'][:12] + (' and changes' if run['git_dirty'] else '')
  devices, cores = run['devices'], run.get('host_cores')
  host = f', {cores} cores of its host' if cores else ''
  return f"""- Command: {run['command']}
- Started: {_date(run['started'])}{_end(run)}
- Devices: {devices['count']} {devices['kind']}{host}
- Code: {code}; {', '.join(versions)}
"""


def _date(started):
  """'2026-11-27 19:22 UTC'."""
  return f'{datetime.datetime.fromisoformat(started):%Y-%m-%d %H:%M %Z}'


def _end(run):
  """How it ended; '' while it runs, as when it writes its own report."""
  if run['status'] == 'running':
    return ''
  took = ''
  if run.get('seconds') is not None:
    took = f' after {datetime.timedelta(seconds=round(run["seconds"]))}'
  return f', {run["status"]}{took}'


def config(run):
  """The config of a record in a block; '' without one."""
  if run is None:
    return ''
  return f"""
## Config

```
{json.dumps(run['configs'], indent=1)}
```
"""
