"""Checkpoint files: written whole or not at all, found, and looked at."""
import errno
import glob
import logging
import os
import os.path as osp
import re
import stat
import zipfile
from contextlib import contextmanager
from typing import Callable, Iterator, List, Optional, Tuple

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from mmseg_inceptionnext.errors import CheckpointError

from .safe_reading import check_zip

TEMPORARY = '.{name}.tmp'
NO_RENAME = {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBUSY}


def make_folder(path: str) -> None:
    """Makes the folder of a file."""
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)


def write_atomically(content: bytes, path: str) -> None:
    """Writes a file under a temporary name beside it, forces it to the disk, and renames it.

    Where the file system cannot rename, the file is written in its place, while the temporary one is still there.

    Raises:
        OSError: if it cannot be written. What was at ``path`` before is still there; where the file system cannot
            rename, the content is then whole under the temporary name.
    """
    temporary, whole_elsewhere = temporary_beside(path), False
    try:
        _write(content, temporary)
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
            whole_elsewhere = True
            _write(content, path)
            whole_elsewhere = False
    finally:
        if osp.exists(temporary) and not whole_elsewhere:
            os.remove(temporary)
    _sync_folder(osp.dirname(temporary))


def temporary_beside(path: str) -> str:
    """The name under which a file is written before it takes its own; leftovers go when training starts."""
    folder, name = osp.split(osp.abspath(path))
    return osp.join(folder, TEMPORARY.format(name=name))


def _write(content: bytes, path: str) -> None:
    with open(path, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Makes the new name last through a power failure, where the system knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """MMEngine's backend for local files, with :func:`write_atomically`."""

    def put(self, obj: bytes, filepath) -> None:
        make_folder(filepath)
        write_atomically(obj, str(filepath))


def what_is_whole(folder: str, filename_tmpl: Optional[str] = None) -> str:
    """The end of a message about a checkpoint or a log that could not be written."""
    whole = [path for path in checkpoints_in(folder, filename_tmpl) if not why_broken(path)]
    return (f'Whole are {", ".join(map(osp.basename, whole)) or "none"} in {folder}; mend the cause, such as a full '
            'disk, and go on with --resume')


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


def what_resumes(folder: str, filename_tmpl: Optional[str] = None) -> str:
    """The end of a message about a training that was stopped."""
    whole = next((path for path in checkpoints_in(folder, filename_tmpl) if not why_broken(path)), None)
    return (f'{whole} is whole, and --resume goes on from it' if whole else
            f'No checkpoint in {folder} is whole yet, so --resume begins anew')


def checkpoints_in(folder: str, filename_tmpl: Optional[str] = None) -> List[str]:
    """The regular checkpoints of a folder, the one of the largest N first.

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


def why_broken(path: str) -> str:
    """Why a checkpoint cannot be read whole; an empty string if it can. Every byte is compared with its checksum."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return 'it is no file'
        if status.st_size == 0:
            return 'it is empty'
        check_zip(path, whole=True)
    except CheckpointError as error:
        return str(error).replace(path, 'it', 1)
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:  # the latter two of wrong bits in headers
        return f'it is cut off or no checkpoint ({error})'
    return ''


def newest_whole_checkpoint(folder: str, filename_tmpl: Optional[str] = None) -> Tuple[Optional[str], List[str]]:
    """The newest checkpoint of a folder that reads whole, and a line for each newer one that was passed over.

    Args:
        folder, filename_tmpl: see :func:`checkpoints_in`.

    Raises:
        CheckpointError: if there are checkpoints and none of them reads whole.
    """
    passed_over = []
    for path in checkpoints_in(folder, filename_tmpl):
        reason = why_broken(path)
        if not reason:
            return path, passed_over
        passed_over.append(f'{path} was passed over: {reason}')
    if passed_over:
        raise CheckpointError('\n'.join(['no checkpoint to go on from:', *passed_over,
                                         'Give a good one with --cfg-options load_from=FILE beside --resume, or train '
                                         'anew in another --work-dir']))
    return None, []


def choose_checkpoint(folder: str, filename_tmpl: Optional[str] = None) -> Optional[str]:
    """:func:`newest_whole_checkpoint`, which says what it found."""
    path, passed_over = newest_whole_checkpoint(folder, filename_tmpl)
    for line in passed_over:
        print_log(f'resume: {line}', logger='current', level=logging.WARNING)
    if path is None:
        print_log(f'resume: there is no checkpoint in {folder} yet, so training starts from the beginning',
                  logger='current', level=logging.WARNING)
    return path
