"""Checkpoints that are there whole or not at all, whatever happens while they are written."""
import errno
import glob
import logging
import math
import os
import os.path as osp
import re
import stat
import zipfile
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from .errors import NonFiniteLossError
from .safe_reading import CheckpointError, check_zip

TEMPORARY = '.{name}.tmp'
VALIDATED = 'last_validated_iter'  # in the message hub; names that begin with 'val' would be logged as metrics
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


class _HeldRemovals:
    """A backend whose removals wait until what replaces the removed files has been written."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend, self.held = backend, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path) -> None:
        self.held.append((self.backend.remove, path))

    def rmtree(self, path) -> None:
        self.held.append((self.backend.rmtree, path))

    def remove_now(self, but: Sequence[Optional[str]]) -> None:
        for remove, path in self.held:
            if path not in but and self.backend.exists(path):
                remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with nothing lost when a save is interrupted or the disk is full.

    A checkpoint is written under a temporary name, forced to the disk, and renamed; then ``last_checkpoint`` is written
    in the same way; only then are outdated checkpoints, and the best one so far, removed. That of an iteration is
    written once more after its validation, so that a resumed run knows of it. Takes the arguments of
    ``CheckpointHook``.

    Raises:
        CheckpointError: if a checkpoint cannot be written; names those that are whole.
    """

    def __init__(self, *args, backend_args: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic'), **kwargs)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if is_main_process():
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Of a run that was killed while it saved."""
        for path in glob.glob(osp.join(glob.escape(str(self.out_dir)), TEMPORARY.format(name='*.pth'))):
            if osp.isfile(path) and not _is_only_copy(path):
                os.remove(path)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        runner.message_hub.update_info(VALIDATED, runner.iter)
        self._noted = False
        super().after_val_epoch(runner, metrics)  # writes it again if it is the best
        of_now = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(runner.iter))
        if not self.by_epoch and not self._noted and self.last_ckpt == of_now:
            self._save_checkpoint_with_step(runner, runner.iter, dict(epoch=runner.epoch, iter=runner.iter))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._noted = True
        outdated = self._keep(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self._saving(self.last_ckpt):
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                backend_args=self.backend_args, **self.args)
            if is_main_process():
                write_atomically(self.last_ckpt.encode(), osp.join(runner.work_dir, 'last_checkpoint'))
        if outdated is not None and is_main_process():
            if self.file_backend.isfile(outdated):
                self.file_backend.remove(outdated)

    def _keep(self, runner: Runner, step: int) -> Optional[str]:
        """Notes that a checkpoint is to be kept; returns the one that is then one too many."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return None
        outdated = None
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            outdated = self.file_backend.join_path(self.out_dir, name)
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return outdated

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend, self.file_backend = self.file_backend, _HeldRemovals(self.file_backend)
        try:
            with self._saving('the best checkpoint'):
                super()._save_best_checkpoint(runner, metrics)
            self._say_what_cannot_be_best(runner, metrics)
            best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
            self.file_backend.remove_now(but=best)  # MMEngine has the one for a single metric, the other for several
        finally:
            self.file_backend = backend

    def _say_what_cannot_be_best(self, runner: Runner, metrics: dict) -> None:
        for key in getattr(self, 'key_indicators', ()):  # which MMEngine sets with save_best only
            if isinstance(metrics.get(key), float) and math.isnan(metrics[key]):
                print_log(f'save_best={key!r}: no number at iteration {runner.iter}, as of a class that is neither '
                          'in the labels nor in the predictions, so this validation gives no best checkpoint by it',
                          logger=runner.logger, level=logging.WARNING)

    @contextmanager
    def _saving(self, what: str) -> Iterator[None]:
        try:
            yield
        except (CheckpointError, NonFiniteLossError):
            raise
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f'{what} could not be written: {error}. '
                                  f'{what_is_whole(str(self.out_dir), self.filename_tmpl)}') from error


def _is_only_copy(temporary: str) -> bool:
    """Whether a checkpoint is whole under its temporary name only."""
    folder, name = osp.split(temporary)
    path = osp.join(folder, name[1:-len('.tmp')])
    return not why_broken(temporary) and (not osp.exists(path) or bool(why_broken(path)))


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
