"""What the page refuses, and what is left of its uploads when it ends, however it ends."""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import page

from utils import ROOT

pytest.importorskip('gradio', reason='the page needs Gradio')
httpx = pytest.importorskip('httpx', reason='comes with Gradio')
MB = 1 << 20


class Waiting:
    """A segmentor that waits to be told to go on, and then has no result."""
    classes = ('sky',)

    def __init__(self):
        self.go_on = threading.Event()

    def __call__(self, path):
        self.go_on.wait(60)
        raise InputError('no result')


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """A page that keeps two megabytes of uploads: its port, and the folder where they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, 'tempdir', str(tmp_path_factory.mktemp('served')))
        patch.setattr(page, 'MAX_UPLOADS', 2)
        with page.serve(Waiting(), 'fake', '127.0.0.1', 0) as url:
            yield SimpleNamespace(port=httpx.URL(url).port, folder=Path(os.environ['GRADIO_TEMP_DIR']))


def send(served, method='GET', path='/', **kwargs):
    return httpx.request(method, f'http://127.0.0.1:{served.port}{path}', timeout=60, **kwargs)


def upload(served, name, size, **kwargs):
    return send(served, 'POST', '/gradio_api/upload', files=dict(files=(name, os.urandom(size))), **kwargs)


def files(folder):
    return sorted(path.name for path in folder.rglob('*') if path.is_file())


ROUTES = [('GET', '/'), ('GET', '/config'), ('GET', '/gradio_api/info'), ('POST', '/gradio_api/upload'),
          ('POST', '/gradio_api/queue/join'), ('GET', '/gradio_api/queue/data?session_hash=a'),
          ('GET', '/gradio_api/heartbeat/a')]


@pytest.mark.parametrize('method,path', ROUTES)
@pytest.mark.parametrize('host', ['evil.example', '127.0.0.1.evil.example:80', 'localhost.evil.example'])
def test_other_hosts_are_refused(served, method, path, host):
    answer = send(served, method, path, headers={'Host': host})
    assert answer.status_code == 403
    assert f"the page was asked for at '{host}'; it answers at an IP address, localhost, and" in answer.text


@pytest.mark.parametrize('host', ['127.0.0.1', '192.168.7.7:7860', '[::1]:7860', 'LOCALHOST:1', socket.gethostname()])
def test_this_machine_is_known_by_its_addresses_and_names(served, host):
    assert send(served, headers={'Host': host}).is_success
    assert send(served, headers={'Host': host, 'Origin': f'http://{host}'}).is_success


def test_the_name_that_is_listened_at_is_known():
    from mmseg_inceptionnext.inference.page_guard import Guard
    guard = Guard(None, 'Page.Example', '', 0, 0, 0)
    assert not guard.refuse({'host': 'page.example:7860', 'origin': 'https://page.example:7860'}, '/', 'GET')
    assert guard.refuse({}, '/', 'GET') and guard.refuse({'host': 'example'}, '/', 'GET')


@pytest.mark.parametrize('method,path', ROUTES)
@pytest.mark.parametrize('origin', ['http://evil.example', 'null', 'http://127.0.0.1:1'])
def test_other_origins_are_refused(served, method, path, origin):
    answer = send(served, method, path, headers={'Origin': origin})
    assert answer.status_code == 403 and f"the request comes from '{origin}'; the page at 127.0.0.1:" in answer.text


@pytest.mark.parametrize('headers', [{'Host': 'evil.example'}, {'Origin': 'http://evil.example'}])
def test_websockets_are_refused_as_well(headers):
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.testclient import TestClient, WebSocketDenialResponse

    from mmseg_inceptionnext.inference.page_guard import Guard
    client = TestClient(Guard(Starlette(routes=[WebSocketRoute('/', None)]), 'testserver', '', 0, 0, 0))
    with pytest.raises(WebSocketDenialResponse) as refusal, client.websocket_connect('/', headers=headers):
        pass
    assert refusal.value.status_code == 403


def head(served, *lines, path='/gradio_api/upload'):
    """A connection over which the first lines of a request are sent, and nothing of its body."""
    connection = socket.create_connection(('127.0.0.1', served.port), timeout=60)
    connection.sendall('\r\n'.join([f'POST {path} HTTP/1.1', 'Host: localhost', *lines, '', '']).encode())
    return connection


@pytest.mark.parametrize('path,line,status,sentence', [
    ('upload', f'Content-Length: {30 * MB}', 413, f'has {30 * MB} bytes; at most {21 * MB} are taken'),
    ('upload', 'Transfer-Encoding: chunked', 411, 'the request has no Content-Length'),
    ('queue/join', f'Content-Length: {MB}', 413, f'has {MB} bytes; at most 65536 are taken'),
    ('component_server', 'Content-Length: 1', 405, 'POST /gradio_api/component_server: taken are POST at'),
    ('process_recording', 'Content-Length: 1', 405, 'POST /gradio_api/process_recording: taken are POST at')])
def test_what_is_too_long_is_refused_before_it_is_read(served, path, line, status, sentence):
    with head(served, line, path=f'/gradio_api/{path}') as connection:
        response = HTTPResponse(connection)
        response.begin()
        assert response.status == status and sentence in response.read().decode()


def test_uploads_have_a_total(served):
    multipart = 'Content-Type: multipart/form-data; boundary=x'
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="cut.png"\r\n\r\ncut'
    full = 'the page keeps at most 2 MB of uploads; beside those that it has, one of 1.0 MB does not fit'
    with head(served, multipart, f'Content-Length: {MB}') as connection:
        connection.sendall(part)
        wait_for(lambda: len(files(served.folder)) == 1)
        refused = upload(served, 'b.png', MB)  # with what is on its way
        assert refused.status_code == 507 and full in refused.text
    wait_for(lambda: upload(served, 'a.png', MB).is_success)
    cut, kept = sorted(files(served.folder), key='a.png'.__eq__)
    assert kept == 'a.png'
    assert upload(served, 'b.png', MB).status_code == 507  # with what is there
    for path in served.folder.rglob('*'):
        os.utime(path, (0, 0))
    assert upload(served, 'b.png', MB).is_success
    assert files(served.folder) == ['b.png']  # what was cut off is gone as well
    assert len(list(served.folder.iterdir())) == 2  # the folder of a.png goes once it is empty for long


def test_no_url_is_fetched(served, monkeypatch):
    from gradio_client import Client, handle_file
    fetched = []

    async def fetch(url, *args, **kwargs):
        fetched.append(url)

    for name in ('async_ssrf_protected_get', 'async_ssrf_protected_download'):
        monkeypatch.setattr(f'gradio.processing_utils.{name}', fetch)
    client = Client(f'http://127.0.0.1:{served.port}', verbose=False)
    with pytest.raises(Exception):  # noqa: B017 (Gradio's, without words of ours)
        client.predict(handle_file('https://evil.example/a.png'), api_name='/segment')
    assert not fetched
    answer = send(served, path='/gradio_api/file=https://evil.example/a.png')
    assert answer.status_code == 403 and 'the page fetches nothing from other servers' in answer.text


def test_the_queue_has_an_end(monkeypatch):
    monkeypatch.setattr(page, 'MAX_WAITING', 3)
    model = Waiting()
    with page.serve(model, 'fake', '127.0.0.1', 0) as url:
        port = SimpleNamespace(port=httpx.URL(url).port)
        example = dict(data=[], event_data=dict(index=0), fn_index=2, session_hash='a')
        answers = [send(port, 'POST', '/gradio_api/queue/join', json=example) for _ in range(5)]
        model.go_on.set()
    assert answers[0].is_success and answers[-1].status_code == 503 and 'Queue is full' in answers[-1].text


def wait_for(condition):
    end = time.time() + 120
    while not condition():
        assert time.time() < end
        time.sleep(0.02)


@contextmanager
def app(checkpoint, temporary, before=None):
    """tools/app.py in a process; ``before`` runs in it first."""
    process = subprocess.Popen(
        [sys.executable, 'tools/app.py', checkpoint, '--port', '0', '--device', 'cpu'], cwd=ROOT, text=True,
        env=dict(os.environ, TMPDIR=str(temporary)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=before)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def upload_to(process, name):
    """Uploads a file to the page of a process, as soon as it is there."""
    port = int(process.stdout.readline().split(':')[2].partition('/')[0])
    assert upload(SimpleNamespace(port=port), name, 1).is_success


@pytest.mark.slow
def test_uploads_go_whatever_ends_the_page(checkpoint, tmp_path, monkeypatch):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    with app(checkpoint, temporary, hear_hangups) as one, app(checkpoint, temporary, ignore_hangups) as two:
        upload_to(one, 'one.png')
        upload_to(two, 'two.png')
        assert {'one.png', 'two.png'} < set(files(temporary))  # neither has removed the other's folder
        one.send_signal(signal.SIGHUP)
        assert (one.communicate(timeout=120)[0], one.returncode) == ('ended\n', 0)
        assert 'one.png' not in files(temporary)
        two.send_signal(signal.SIGHUP)  # as under nohup
        monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
        with page.serve(Waiting(), 'fake', '127.0.0.1', 0):
            assert 'two.png' in files(temporary)
        assert two.poll() is None
        two.kill()
        two.wait()
    assert 'two.png' in files(temporary)
    with page.serve(Waiting(), 'fake', '127.0.0.1', 0):
        assert 'two.png' not in files(temporary)
    assert not list(temporary.glob(f'{page.FOLDER}*'))


def hear_hangups():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup


def ignore_hangups():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_only_folders_that_a_page_has_left_over_go(tmp_path, monkeypatch):
    left, starting, link = (tmp_path / f'{page.FOLDER}{name}' for name in ('left', 'starting', 'link'))
    target = tmp_path / 'target'
    for folder in (left, starting, target):
        folder.mkdir()
        (folder / 'upload.png').touch()
    for folder in (left, target):
        (folder / 'lock').touch()
    link.symlink_to(target)
    page._remove_if_left_over(str(left), os.lstat(left).st_uid + 1)
    assert left.exists()  # another user's
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    with page._own_folder() as own:
        assert {path.name for path in tmp_path.iterdir()} == {starting.name, link.name, 'target', Path(own).name}
    assert files(target) == ['lock', 'upload.png']
