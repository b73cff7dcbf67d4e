"""Checkpoint files: written completely or not at all, found, and looked at."""
import errno
import glob
import logging
import os
import os.path as osp
import re
import stat
import zipfile
from contextlib import ExitStack, contextmanager, suppress
from typing import Callable, Iterator, List, Optional, Tuple

from filelock import FileLock, Timeout
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from mmseg_inceptionnext.errors import CheckpointError, UserError

from .safe_reading import check_zip

TEMPORARY = '.{name}.tmp'  # beside the file that takes its place; leftovers are removed when training starts
NO_RENAME = {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBUSY}


def make_folder(path: str) -> None:
    """Makes the folder of a file."""
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)


@contextmanager
def locked(path: str, busy: UserError, wait: float = 0) -> Iterator[None]:
    """Holds a lock file, which goes with the process; a disk that knows no locks is warned of.

    Args:
        path: of the lock file, which stays.
        busy: raised if another process or thread holds it.
        wait: for it, in seconds.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path).acquire(timeout=wait))
        except Timeout as error:
            raise busy from error
        except (OSError, NotImplementedError) as error:
            print_log(f'{osp.dirname(path)} cannot be locked ({getattr(error, "strerror", None) or error}): see to it '
                      'that nothing else writes there', logger='current', level=logging.WARNING)
        yield


def write_atomically(content: bytes, path: str) -> None:
    """Writes a file under a temporary name beside it, forces it to the disk, and renames it.

    Where the file system cannot rename, the file is written in its place, while the temporary one is still there.

    Raises:
        OSError: if it cannot be written. What was at ``path`` before is still there; where the file system cannot
            rename, the content is then complete under the temporary name.
    """
    folder, name = osp.split(osp.abspath(path))
    temporary, is_only_copy = osp.join(folder, TEMPORARY.format(name=name)), False
    try:
        _write(content, temporary)
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
            is_only_copy = True
            _write(content, path)
            is_only_copy = False
    finally:
        if osp.exists(temporary) and not is_only_copy:
            os.remove(temporary)
    with suppress(OSError):  # makes the new name last through a power failure, where the system knows how
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(content: bytes, path: str) -> None:
    with open(path, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """MMEngine's backend for local files, with :func:`write_atomically`."""

    def put(self, obj: bytes, filepath) -> None:
        make_folder(filepath)
        write_atomically(obj, str(filepath))


@contextmanager
def full_disk_explained(folder: str, advise: Callable[[], str]) -> Iterator[None]:
    """Of logs, predictions and other files, such as in ``folder``; ``advise`` gives the end of the message.

    Raises:
        CheckpointError: if the disk is full, or a quota is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CheckpointError(f'{error.filename or f"a file in {folder}"} could not be written: {error.strerror}. '
                              f'{advise()}') from error


def checkpoints_in(folder: str, filename_tmpl: Optional[str] = None) -> List[str]:
    """The checkpoints of a folder that are written at intervals, the one of the largest N first.

    Args:
        folder: what is searched.
        filename_tmpl: their names, as ``CheckpointHook`` takes it. Default: ``iter_N.pth`` and ``epoch_N.pth``.
    """
    name = r'(?:iter|epoch)_(\d+)\.pth'
    if filename_tmpl:
        name = r'(\d+)'.join(map(re.escape, re.split(r'\{.*?\}', filename_tmpl, maxsplit=1)))
    found = [(int(match.group(1)), path) for path in glob.glob(osp.join(glob.escape(folder), '*'))
             for match in [re.fullmatch(name, osp.basename(path))] if match]
    return [path for _, path in sorted(found, reverse=True)]


def find_damage(path: str) -> str:
    """Why a checkpoint cannot be read; an empty string if it can. Every byte is compared with its checksum."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return 'it is no file'
        if status.st_size == 0:
            return 'it is empty'
        check_zip(path, checksums=True)
    except CheckpointError as error:
        return str(error).replace(path, 'it', 1)
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:  # the latter two of wrong bits in headers
        return f'it is cut off or no checkpoint ({error})'
    return ''


def newest_checkpoint(folder: str, filename_tmpl: Optional[str] = None) -> Tuple[Optional[str], List[str]]:
    """The newest checkpoint of :func:`checkpoints_in` without damage, and a line for each newer one that has some."""
    skipped = []
    for path in checkpoints_in(folder, filename_tmpl):
        damage = find_damage(path)
        if not damage:
            return path, skipped
        skipped.append(f'{path} was skipped: {damage}')
    return None, skipped


def choose_checkpoint(folder: str, filename_tmpl: Optional[str] = None) -> Optional[str]:
    """:func:`newest_checkpoint`; warns of those that were skipped, and if there is none yet.

    Raises:
        CheckpointError: if there are checkpoints, and all of them are damaged.
    """
    path, skipped = newest_checkpoint(folder, filename_tmpl)
    if skipped and path is None:
        raise CheckpointError('\n'.join(['no checkpoint to resume from:', *skipped,
                                         'Give a good one with --cfg-options load_from=FILE beside --resume, or train '
                                         'anew in another --work-dir']))
    if path is None:
        skipped = [f'there is no checkpoint in {folder} yet, so training starts from the beginning']
    for line in skipped:
        print_log(f'resume: {line}', logger='current', level=logging.WARNING)
    return path


def what_resumes(folder: str, filename_tmpl: Optional[str] = None) -> str:
    """The end of a message about a training that stopped."""
    path, _ = newest_checkpoint(folder, filename_tmpl)
    return (f'{path} is complete, and --resume continues from it' if path else
            f'No checkpoint in {folder} is complete yet, so --resume starts from the beginning')
