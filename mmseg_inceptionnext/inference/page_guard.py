"""Refuses requests that no browser sends which shows the page, before Gradio reads them. Needs what Gradio brings."""
import ipaddress
import os
import os.path as osp
import re
import socket
import time
from contextlib import suppress
from typing import Optional, Tuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

API = '/gradio_api/'
UPLOAD = API + 'upload'
POSTS = (UPLOAD, API + 'queue/join', API + 'cancel', API + 'reset')  # what a browser sends; others can write files
BODY = 64 << 10  # bytes; what is no upload has a few hundred
BLOCK = 4 << 10  # bytes that a file or a folder takes besides its content
HOST = re.compile(r'\[?(.*?)\]?(:\d+)?')  # a name or an address, and a port


class Guard:
    """ASGI middleware for requests of HTTP and of websockets.

    A request must name this server as its host: a page elsewhere whose name is made to point here (DNS rebinding) names
    itself. It must come from this page, if it says where it comes from, and carry no more than fits.

    Args:
        app: the page's ASGI application.
        host: the name or address that it listens at.
        folder: where its uploads go.
        file_size: bytes that an upload may have, with the little that stands around a file.
        total: bytes that the uploads in the folder and those on their way may take together.
        seconds: age at which what is in the folder goes, when the next upload comes. Gradio deletes uploads, but not
            those that were cut off.
    """

    def __init__(self, app, host: str, folder: str, file_size: int, total: int, seconds: float) -> None:
        self.app, self.folder, self.file_size, self.total, self.seconds = app, folder, file_size, total, seconds
        self.names = {'localhost', socket.gethostname().lower(), host.lower()}
        self.coming = 0  # bytes of the uploads on their way

    async def __call__(self, scope, receive, send) -> None:
        if scope['type'] == 'lifespan':
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self.refuse(headers, scope['path'], scope.get('method', 'GET'))
        length = int(headers.get('content-length', 0)) if scope['path'] == UPLOAD and not refusal else 0
        self.coming += length
        try:
            if length and await run_in_threadpool(remove_old, self.folder, self.seconds) + self.coming > self.total:
                refusal = 507, (f'the page keeps at most {self.total >> 20} MB of uploads; beside those that it has, '
                                f'one of {length / (1 << 20):.1f} MB does not fit: try again in '
                                f'{self.seconds / 60:.0f} minutes, when they are deleted')
            answer = PlainTextResponse(refusal[1] + '\n', refusal[0]) if refusal else self.app
            await answer(scope, receive, send)
        finally:
            self.coming -= length

    def refuse(self, headers: Headers, path: str, method: str) -> Optional[Tuple[int, str]]:
        """The status and the sentence for a request that is not this page's, for other servers' files, or too long."""
        host, origin = headers.get('host', '').lower(), headers.get('origin')
        name = HOST.fullmatch(host)
        length, limit = int(headers.get('content-length', 0)), self.file_size if path == UPLOAD else BODY
        if not name or not (name[1] in self.names or _is_address(name[1])):
            return 403, (f'the page was asked for at {host!r}; it answers at an IP address, localhost, and the names '
                         f'{", ".join(sorted(self.names))}: open it there, or start it with --host and its name')
        if origin is not None and origin.lower().partition('://')[2] != host:
            return 403, f'the request comes from {origin!r}; the page at {host} takes its own alone: open it itself'
        if '://' in path:
            return 403, f'{path}: the page fetches nothing from other servers; upload a file'
        if method not in ('GET', 'HEAD', 'OPTIONS') and path not in POSTS:
            return 405, f'{method} {path}: taken are POST at {", ".join(POSTS)}'
        if 'transfer-encoding' in headers:
            return 411, 'the request has no Content-Length; send one, and no Transfer-Encoding'
        if length > limit:
            return 413, f'the request has {length} bytes; at most {limit} are taken: send a smaller file'
        return None


def _is_address(name: str) -> bool:
    """Is it an IPv4 or IPv6 address?"""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def remove_old(folder: str, seconds: float) -> int:
    """Removes files and empty folders of at least that age from a folder; returns the bytes that the rest takes."""
    total = 0
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            path = osp.join(parent, name)
            with suppress(OSError):  # gone by now, or a folder that is not empty
                status = os.lstat(path)
                if time.time() - status.st_mtime >= seconds:
                    (os.remove if name in files else os.rmdir)(path)
                else:
                    total += status.st_size * (name in files) + BLOCK
    return total
