"""Downloads are complete or not there, whatever the server does."""
import hashlib
import io
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from mmseg_inceptionnext.checkpoints import download as download_module
from mmseg_inceptionnext.checkpoints import load_source
from mmseg_inceptionnext.checkpoints.download import cached_path, download
from mmseg_inceptionnext.errors import CheckpointError, UnsafeCheckpointError

from utils import Malicious


def checkpoint_bytes(seed=0, size=50_000):
    buffer = io.BytesIO()
    torch.save(dict(state_dict=dict(a=torch.randn(size, generator=torch.Generator().manual_seed(seed)))), buffer)
    return buffer.getvalue()


class Server:
    """A server of one file whose behaviour each test chooses.

    Attributes:
        content: bytes of the file; a test may exchange them between requests.
        stops: after how many bytes each answer breaks off; answers beyond the list are complete.
        length: announced instead of the true length.
        takes_range: whether it continues in the middle.
        has_etag: whether it says which version of the file it has.
        status: of every answer.
        requests: headers of the requests that came.
    """

    def __init__(self):
        self.content, self.stops, self.length = checkpoint_bytes(), [], None
        self.takes_range, self.has_etag, self.status, self.requests = True, True, 200, []
        server = self

        class Handler(BaseHTTPRequestHandler):

            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01, ), daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}/weights.pth'

    def answer(self, handler):
        self.requests.append(dict(handler.headers))
        start, status, etag = 0, self.status, f'"{hashlib.md5(self.content).hexdigest()}"'
        wanted = handler.headers.get('Range')
        if wanted and self.takes_range and status == 200 and handler.headers.get('If-Range', etag) == etag:
            start = int(wanted[len('bytes='):-1])
            status = 206 if start < len(self.content) else 416
        body = self.content[start:] if status < 300 else b''
        handler.send_response(status)
        if status == 206:
            handler.send_header('Content-Range', f'bytes {start}-{len(self.content) - 1}/{len(self.content)}')
        if self.has_etag:
            handler.send_header('ETag', etag)
        if self.length != 'none':
            handler.send_header('Content-Length', str(self.length or len(body)))
        handler.end_headers()
        handler.wfile.write(body[:self.stops.pop(0) if self.stops else None])


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(download_module, 'PAUSE', 0)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def fails(server, *words):
    """The download fails with these words and leaves nothing under the final name."""
    with pytest.raises(CheckpointError) as error:
        load_source(server.url)
    for word in (server.url, cached_path(server.url), *words):
        assert word in str(error.value), error.value
    folder = cached_path(server.url).rsplit('/', 1)[0]
    assert not [path for path in os.listdir(folder) if path == 'weights.pth']


def arrives(server):
    with open(download(server.url), 'rb') as file:
        assert file.read() == server.content
    assert load_source(server.url)['state_dict']['a'].shape == (50_000, )


def test_a_file_is_fetched_once(server, capfd):
    arrives(server)
    arrives(server)
    assert len(server.requests) == 1
    assert 'weights.pth' in capfd.readouterr().err  # the progress bar


def test_a_download_continues_where_it_broke_off(server):
    server.stops = [70_000, 50_000]
    arrives(server)
    assert [request.get('Range') for request in server.requests] == [None, 'bytes=70000-', 'bytes=120000-']


def test_a_later_call_continues_too(server):
    server.stops = [30_000] + [0] * (download_module.ATTEMPTS - 1)
    fails(server, 'the connection ended after 30000 of', 'another call continues')
    arrives(server)
    assert server.requests[-1]['Range'] == 'bytes=30000-'


@pytest.mark.parametrize('change', [dict(takes_range=False), dict(has_etag=False)], ids=['no Range', 'no version'])
def test_a_server_that_cannot_resume_starts_anew(server, change):
    vars(server).update(change)
    server.stops = [70_000]
    arrives(server)
    assert len(server.requests) == 2


def test_another_file_at_the_same_place_is_not_glued_on(server):
    server.stops = [70_000] + [0] * (download_module.ATTEMPTS - 1)
    fails(server, 'the connection ended')
    server.content = checkpoint_bytes(seed=1)
    arrives(server)


def test_a_part_longer_than_the_file_is_thrown_away(server):
    server.stops = [70_000] + [0] * (download_module.ATTEMPTS - 1)
    fails(server, 'the connection ended')
    with open(cached_path(server.url).replace('.pth', '.part.pth'), 'ab') as file:
        file.write(server.content * 2)
    arrives(server)
    assert server.requests[-1].get('Range') is None


@pytest.mark.parametrize('length', [1000, 150_000])
def test_a_length_that_is_too_small_ends_in_no_file(server, length):
    server.length = length
    fails(server, 'what came is not the file')


def test_a_length_that_is_too_large_ends_in_no_file(server):
    server.length = len(server.content) + 1000
    server.takes_range = False
    fails(server, f'the connection ended after {len(server.content)} of {len(server.content) + 1000} bytes')


def test_without_a_length_half_a_file_is_found_out(server):
    server.length, server.stops = 'none', [120_000]
    fails(server, 'what came is not the file')
    arrives(server)


@pytest.mark.parametrize('content', [b'<html>please log in</html>', b''], ids=['a page', 'nothing'])
def test_a_wrong_body_ends_in_no_file(server, content):
    server.content = content
    fails(server, 'what came is not the file')


def test_a_flipped_bit_is_found_out(server):
    content = bytearray(server.content)
    content[100_000] ^= 1
    server.content = bytes(content)
    fails(server, 'what came is not the file')


def test_a_malicious_file_is_refused_as_one(server, tmp_path):
    buffer = io.BytesIO()
    torch.save(Malicious(open, str(tmp_path / 'mark'), 'w'), buffer)
    server.content = buffer.getvalue()
    for _ in range(2):
        with pytest.raises(UnsafeCheckpointError, match='which is not among the data that MMEngine saves'):
            load_source(server.url)
    assert len(server.requests) == 1 and not (tmp_path / 'mark').exists()


def test_a_date_in_the_name_is_no_hash(server):
    server.url = server.url.replace('weights', 'weights-20240131')
    arrives(server)


@pytest.mark.parametrize('url', ['http://[x/a.pth', 'http://127.0.0.1:1/%00.pth', 'http://127.0.0.1:1/' + 'a' * 300])
def test_what_is_no_url_is_said(server, url):
    with pytest.raises(CheckpointError, match='http://'):
        load_source(url)


def test_the_hash_in_the_name_is_held(server):
    digest = hashlib.sha256(server.content).hexdigest()
    server.url = server.url.replace('weights', f'weights-{digest[:8]}')
    arrives(server)
    server.url = server.url.replace(digest[:8], '0123456f')
    with pytest.raises(CheckpointError, match='its name promises 0123456f'):
        download(server.url)


@pytest.mark.parametrize('status,requests', [(404, 1), (403, 1), (503, download_module.ATTEMPTS)])
def test_an_error_of_the_server_is_said(server, status, requests):
    server.status = status
    fails(server, f'HTTP Error {status}')
    assert len(server.requests) == requests


def test_no_server_at_all(server):
    server.http.shutdown()
    server.http.server_close()
    fails(server, 'refused')


def test_processes_that_want_the_same_file_fetch_it_once(server):
    results = []
    threads = [threading.Thread(target=lambda: results.append(download(server.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(server.requests) == 1


def test_the_authors_files_keep_their_names(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth'
    assert cached_path(url) == f'{tmp_path}/checkpoints/inceptionnext/inceptionnext_tiny.pth'
    assert cached_path(url.replace('model/', 'model/../x/')) != cached_path(url)
    assert cached_path('http://a/weights.pth') != cached_path('http://b/weights.pth')
