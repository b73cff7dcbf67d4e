"""Downloads a checkpoint: whole, checked, and going on where an earlier attempt broke."""
import hashlib
import os
import os.path as osp
import re
import time
import zipfile
from http.client import HTTPException
from typing import Optional
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from tqdm import tqdm

from mmseg_inceptionnext.errors import CheckpointError, DownloadError, UnsafeCheckpointError

from .safe_reading import read_checkpoint

PUBLISHED = 'https://github.com/sail-sg/inceptionnext/releases/download/model/'
PUBLISHED_FILES = tuple(f'inceptionnext_{name}.pth' for name in ('atto', 'tiny', 'small', 'base', 'base_384'))
ATTEMPTS = 5
PAUSE = 2.  # seconds before another attempt
TIMEOUT = 60.  # seconds without a byte
CHUNK = 1 << 20  # bytes

# A file name such as NAME-3f2a9c01.pth promises the first digits of its SHA-256, as torch.hub and MMSegmentation do;
# eight digits without a letter are rather a date.
HASH_IN_NAME = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$')


def cached_path(url: str) -> str:
    """Where the file of ``url`` is kept: in a folder of ours among torch.hub's checkpoints, where nobody else writes.

    The authors' files lie there under their own names, those of other addresses in a folder for each address.
    """
    folder = osp.join(torch.hub.get_dir(), 'checkpoints', 'inceptionnext')
    if url not in [PUBLISHED + name for name in PUBLISHED_FILES]:
        folder = osp.join(folder, hashlib.sha256(url.encode()).hexdigest())
    return osp.join(folder, osp.basename(unquote(urlsplit(url).path)) or 'checkpoint.pth')


def download(url: str) -> str:
    """Returns the path of the file at ``url``, downloading it if it is not there yet.

    The download goes to ``NAME.part.pth``, which a later call goes on with, and gets its name only after the length
    that the server announced, the hash in the name, if there is one, and the checksums inside the file are found right.

    Raises:
        DownloadError: if it cannot be had whole.
    """
    try:
        target = cached_path(url)
    except ValueError as error:
        raise DownloadError(f'{url} is no URL: {error}') from error
    try:
        if osp.isfile(target):
            return target
        os.makedirs(osp.dirname(target), exist_ok=True)
        with FileLock(target + '.lock'):
            if not osp.isfile(target):  # another process may have been faster
                part = '{}.part{}'.format(*osp.splitext(target))
                _fetch(url, part)
                _check_content(part, osp.basename(target))
                os.replace(part, target)
    except (OSError, ValueError, HTTPException, CheckpointError) as error:
        raise DownloadError(f'{url} could not be downloaded: {error}\nGet the file in another way and put it at '
                            f'{target}, or give its path instead of the URL') from error
    return target


def _fetch(url: str, part: str) -> None:
    """Downloads into ``part`` until as many bytes are there as the server announced."""
    problem = ''
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            total = _fetch_once(url, part)
        except HTTPError as error:
            if error.code == 416:  # what is there is longer than the file: it was another one
                _remove(part)
            elif error.code < 500:
                raise
            problem = str(error)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            problem = str(error)
        else:
            if total is None or osp.getsize(part) == total:
                return
            problem = f'the connection ended after {osp.getsize(part)} of {total} bytes'
    raise DownloadError(f'{problem} ({ATTEMPTS} attempts; another call goes on from there)')


def _fetch_once(url: str, part: str) -> Optional[int]:
    """One request; appends to ``part`` if the server still has the same file. Returns the announced total size."""
    headers = {'User-Agent': 'mmseg_inceptionnext'}
    have, version = _size(part), _read_text(part + '.version')
    if have and version:
        headers.update({'Range': f'bytes={have}-', 'If-Range': version})
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        goes_on = response.status == 206 and response.headers.get('Content-Range', '').startswith(f'bytes {have}-')
        if response.status == 206 and not goes_on:
            _remove(part)
            raise ConnectionError('the server sent another part of the file than the one asked for')
        have = have if goes_on else 0
        _write_text(part + '.version', _version_of(response.headers))
        length = response.headers.get('Content-Length')
        total = have + int(length) if length else None
        with open(part, 'ab' if goes_on else 'wb') as file, tqdm(
                desc=osp.basename(url), total=total, initial=have, unit='B', unit_scale=True) as bar:
            for chunk in iter(lambda: response.read(CHUNK), b''):
                file.write(chunk)
                bar.update(len(chunk))
    return total


def _version_of(headers) -> str:
    """What If-Range may name: a strong ETag, else the date; empty if the server gives neither."""
    etag = headers.get('ETag', '')
    return etag if etag and not etag.startswith('W/') else headers.get('Last-Modified', '')


def _check_content(part: str, name: str) -> None:
    """Raises and removes ``part`` if it is not the file that ``name`` promises, or no checkpoint."""
    try:
        promised = HASH_IN_NAME.search(name)
        if promised and not _sha256(part).startswith(promised.group(1)):
            raise CheckpointError(f'its SHA-256 is {_sha256(part)}, its name promises {promised.group(1)}')
        if zipfile.is_zipfile(part) and not name.endswith('.safetensors'):
            damaged = zipfile.ZipFile(part).testzip()
            if damaged:
                raise CheckpointError(f'the part {damaged} in it is damaged')
        try:
            read_checkpoint(part)
        except UnsafeCheckpointError:
            pass  # it is whole; whether it may be read is for the reader to say
    except (CheckpointError, zipfile.BadZipFile, OSError) as error:
        _remove(part)
        raise CheckpointError(f'what came is not the file: {error}') from error
    _remove(part + '.version')


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(CHUNK), b''):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: str) -> int:
    return osp.getsize(path) if osp.isfile(path) else 0


def _read_text(path: str) -> str:
    if not osp.isfile(path):
        return ''
    with open(path) as file:
        return file.read()


def _write_text(path: str, text: str) -> None:
    with open(path, 'w') as file:
        file.write(text)


def _remove(part: str) -> None:
    if osp.isfile(part):
        os.remove(part)
