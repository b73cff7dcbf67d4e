"""Downloads a checkpoint: completely, checked, and continuing where an earlier attempt broke off."""
import hashlib
import os
import os.path as osp
import re
import shutil
import time
import zipfile
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from tqdm import tqdm

from mmseg_inceptionnext.errors import CheckpointError, DownloadError, UnsafeCheckpointError

from .files import find_damage
from .safe_reading import read_checkpoint

PUBLISHED = 'https://github.com/sail-sg/inceptionnext/releases/download/model/'
PUBLISHED_FILES = (
    *(f'inceptionnext_{name}.pth' for name in ('atto', 'tiny', 'small', 'base', 'base_384')),
    *(f'convnext_tiny_{name}.pth' for name in ('k5', 'k3', 'k3_par1_2', 'k3_par3_8', 'k3_par1_4', 'k3_par1_8',
                                               'k3_par1_16')))
ATTEMPTS = 5
PAUSE = 2.  # seconds before another attempt
TIMEOUT = 60.  # seconds without a byte

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

    The download goes to ``NAME.part.pth``, where a later call continues, and gets its name only after the length that
    the server announced, the hash in the name, if there is one, and the checksums inside the file are found right.

    Raises:
        DownloadError: if it cannot be downloaded completely.
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
                part = Path('{}.part{}'.format(*osp.splitext(target)))
                _fetch(url, part)
                _check_content(part, osp.basename(target))
                part.replace(target)
    except (OSError, ValueError, HTTPException, CheckpointError) as error:
        raise DownloadError(f'{url} could not be downloaded: {error}\nGet the file in another way and put it at '
                            f'{target}, or give its path instead of the URL') from error
    return target


def _fetch(url: str, part: Path) -> None:
    """Downloads into ``part`` until as many bytes are there as the server announced."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch_once(url, part)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            status = getattr(error, 'code', 500)
            if status == 416:
                part.unlink(missing_ok=True)  # it is longer than the file: it was another one
            elif status < 500:
                raise
            if attempt == ATTEMPTS:
                raise DownloadError(f'{error} ({ATTEMPTS} attempts; another call continues from there)') from error
        time.sleep(PAUSE)


def _fetch_once(url: str, part: Path) -> None:
    """One request; appends to ``part`` if the server still has the version of the file that was begun."""
    have = part.stat().st_size if part.exists() else 0
    version = part.with_suffix('.version')  # the server's name for the version of the file that was begun
    known, headers = version.read_text() if version.exists() else '', {'User-Agent': 'mmseg_inceptionnext'}
    if have and known:
        headers.update({'Range': f'bytes={have}-', 'If-Range': known})
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.status != 206:
            have = 0
        elif not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
            part.unlink(missing_ok=True)
            raise ConnectionError('the server sent another part of the file than the one asked for')
        etag = response.headers.get('ETag', 'W/')  # If-Range takes no weak one
        name = response.headers.get('Last-Modified') if etag.startswith('W/') else etag
        version.write_text(name) if name else version.unlink(missing_ok=True)
        length = response.headers.get('Content-Length')
        total = have + int(length) if length else None
        with open(part, 'ab' if have else 'wb') as file, tqdm.wrapattr(
                file, 'write', total, desc=osp.basename(url), initial=have) as counted:
            shutil.copyfileobj(response, counted, 1 << 20)
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f'the connection ended after {part.stat().st_size} of {total} bytes')


def _check_content(part: Path, name: str) -> None:
    """Raises and removes ``part`` if it is not the file that ``name`` promises, or no checkpoint."""
    try:
        promised, digest = HASH_IN_NAME.search(name), hashlib.sha256(part.read_bytes()).hexdigest()
        if promised and not digest.startswith(promised.group(1)):
            raise CheckpointError(f'its SHA-256 is {digest}, its name promises {promised.group(1)}')
        if zipfile.is_zipfile(part) and not name.endswith('.safetensors') and (damage := find_damage(str(part))):
            raise CheckpointError(damage)
        with suppress(UnsafeCheckpointError):  # it is complete; whether it may be read is for the reader to say
            read_checkpoint(str(part))
    except (CheckpointError, OSError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f'what came is not the file, so it was removed: {error}') from error
    part.with_suffix('.version').unlink(missing_ok=True)
