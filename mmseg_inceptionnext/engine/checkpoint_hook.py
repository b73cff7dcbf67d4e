"""Checkpoints that are there whole or not at all, whatever happens while they are written."""
import glob
import logging
import math
import os
import os.path as osp
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_inceptionnext.checkpoints.files import TEMPORARY, find_damage, what_resumes, write_atomically
from mmseg_inceptionnext.errors import CheckpointError, NonFiniteLossError

VALIDATED = 'last_validated_iter'  # in the message hub; names that begin with 'val' would be logged as metrics


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
        CheckpointError: if a checkpoint cannot be written; names the newest one that is complete.
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
            raise CheckpointError(f'{what} could not be written: {error}. Repair the cause, such as a full disk. '
                                  f'{what_resumes(str(self.out_dir), self.filename_tmpl)}') from error


def _is_only_copy(temporary: str) -> bool:
    """Whether a checkpoint is complete under its temporary name only."""
    folder, name = osp.split(temporary)
    path = osp.join(folder, name[1:-len('.tmp')])
    return not find_damage(temporary) and (not osp.exists(path) or bool(find_damage(path)))

