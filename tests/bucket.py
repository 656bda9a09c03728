"""An in-memory bucket: the parts of the Google Cloud Storage JSON API in use.

As in the real one, there are no folders, only names with common prefixes, and
writes are atomic and can be conditional on the generation of the old object.
"""

import base64
import hashlib
from http import server
import itertools
import json
import re
import sys
import threading
from urllib import parse

NAME = 'bucket'
_PAGE = 10  # names; few enough that clients have to page
_OBJECT = re.compile(rf'/(?:\w+/)?storage/v1/b/{NAME}/o(?:/([^/]+))?(/.*)?')


class Bucket(server.ThreadingHTTPServer):
  """Server; call serve_forever. `objects` is {name: (content, generation)}."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Request)
    self.objects, self.uploads, self.lock = {}, [], threading.Lock()
    self.generations = itertools.count(1)
    self.url = f'http://127.0.0.1:{self.server_port}'

  def handle_error(self, request, client_address):
    if not isinstance(sys.exception(), ConnectionError):  # client left
      super().handle_error(request, client_address)

  def environment(self):
    """Returns environment variables that make gs://bucket this bucket."""
    return {
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'any',
      'STORAGE_EMULATOR_HOST': self.url,
      'GOOGLE_CLOUD_PROJECT': 'any',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # else gRPC to Google
    }


class _Request(server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  disable_nagle_algorithm = True

  def log_message(self, *_):
    pass

  def do(self):
    url = parse.urlsplit(self.path)
    self.query = dict(parse.parse_qsl(url.query))
    self.body = self.rfile.read(int(self.headers['Content-Length'] or 0))
    match = _OBJECT.fullmatch(url.path)
    if not match:
      bucket = url.path == f'/storage/v1/b/{NAME}'
      return self.answer(200 if bucket else 404, {'name': NAME})
    name, rest = (part and parse.unquote(part) for part in match.groups())
    with self.server.lock:
      if url.path.startswith('/upload/'):
        self.upload()
      elif not name:
        self.list()
      elif name not in self.server.objects:
        self.answer(404)
      elif rest:  # /moveTo/o/NAME or /rewriteTo/b/BUCKET/o/NAME
        self.write(rest.partition('/o/')[2], self.server.objects[name][0])
        if rest.startswith('/move'):
          del self.server.objects[name]
      elif self.command == 'DELETE':
        del self.server.objects[name]
        self.answer(204)
      elif self.query.get('alt') == 'media':
        self.read(name)
      else:
        self.answer(200, self.resource(name))

  do_GET = do_POST = do_PUT = do_DELETE = do

  def answer(self, status, content=b'', **headers):
    if status >= 400:
      content = {
        'error': {'code': status, 'message': self.responses[status][0]}
      }
    if isinstance(content, dict):
      content = json.dumps(content).encode()
    self.send_response(status)
    for key, value in (headers | {'Content-Length': len(content)}).items():
      self.send_header(key.replace('_', '-'), value)
    self.end_headers()
    self.wfile.write(content)

  def resource(self, name):
    content, generation = self.server.objects[name]
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    fields = {'name': name, 'bucket': NAME, 'size': len(content)}
    return fields | {'generation': str(generation), 'md5Hash': md5}

  def read(self, name):
    content, generation = self.server.objects[name]
    headers, status = {'x_goog_generation': generation}, 200
    if 'Range' in self.headers:
      total, status = len(content), 206
      first, last = self.headers['Range'].removeprefix('bytes=').split('-')
      start, stop = int(first), min(int(last or total) + 1, total)
      headers['Content_Range'] = f'bytes {start}-{stop - 1}/{total}'
      content = content[start:stop]
    self.answer(status, content, **headers)

  def list(self):
    prefix, end = self.query.get('prefix', ''), self.query.get('delimiter', '')
    start = self.query.get('pageToken') or self.query.get('startOffset', '')
    found = set()  # names, and prefixes up to the delimiter
    for name in self.server.objects:
      if name.startswith(prefix):
        cut = name.find(end, len(prefix)) + 1 if end else 0
        found.add(name[: cut or None])
    found = sorted(x for x in found if x >= start)
    count = min(_PAGE, int(self.query.get('maxResults', _PAGE)))
    page, rest = found[:count], found[count:]
    listing = {
      'kind': 'storage#objects',
      'prefixes': [x for x in page if x not in self.server.objects],
      'items': [self.resource(x) for x in page if x in self.server.objects],
    }
    self.answer(200, listing | ({'nextPageToken': rest[0]} if rest else {}))

  def upload(self):
    """Handles simple uploads, and resumable ones: a name, then chunks."""
    if self.query['uploadType'] == 'media':
      self.write(self.query['name'], self.body)
    elif 'upload_id' not in self.query:
      number = len(self.server.uploads)
      self.server.uploads.append((json.loads(self.body)['name'], bytearray()))
      url = f'{self.server.url}{self.path}&upload_id={number}'
      self.answer(200, Location=url)
    else:
      name, content = self.server.uploads[int(self.query['upload_id'])]
      content += self.body
      if self.headers['Content-Range'].endswith('*'):
        self.answer(308, Range=f'bytes=0-{len(content) - 1}')
      else:
        self.write(name, bytes(content))

  def write(self, name, content):
    generation = self.server.objects.get(name, (b'', 0))[1]
    if int(self.query.get('ifGenerationMatch', generation)) != generation:
      return self.answer(412)
    self.server.objects[name] = content, next(self.server.generations)
    self.answer(200, self.resource(name) | {'done': True})
