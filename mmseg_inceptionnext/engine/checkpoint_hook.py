"""Checkpoints that are there complete or not at all, whatever happens while they are written."""
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

from mmseg_inceptionnext.checkpoints.files import TEMPORARY, find_damage, what_resumes
from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.evaluation import greater_is_better

VALIDATED = 'last_validated_iter'  # in the message hub; names that begin with 'val' would be logged as metrics


class _HeldRemovals:
    """A backend whose removals wait until what replaces the removed files has been written."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend, self.held = backend, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.held.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.held.append((self.backend.rmtree, path))

    def remove_now(self, but: Sequence[Optional[str]]) -> None:
        for remove, path in self.held:
            if path not in but and self.backend.exists(path):
                remove(path)
        self.held = []


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with nothing lost when a save is interrupted or the disk is full.

    A checkpoint is written under a temporary name, forced to the disk, and renamed; only then are outdated checkpoints,
    and the best one so far, removed. That of an iteration is written once more after its validation, so that a resumed
    run knows of it. ``save_best`` by a metric of this package needs no ``rule``.

    Raises:
        CheckpointError: if a checkpoint cannot be written; names the newest one that is complete.
    """

    def __init__(self, *args, backend_args: Optional[dict] = None, greater_keys: Optional[Sequence[str]] = None,
                 **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic'),
                         greater_keys=greater_keys or [*self._default_greater_keys, *greater_is_better()], **kwargs)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.file_backend = _HeldRemovals(self.file_backend)
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
        with self._saving(self.filename_tmpl.format(step)):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._saving('the best checkpoint'):
            super()._save_best_checkpoint(runner, metrics)
        for key in getattr(self, 'key_indicators', ()):  # which MMEngine sets with save_best only
            if isinstance(metrics.get(key), float) and math.isnan(metrics[key]):
                print_log(f'save_best={key!r}: no number at iteration {runner.iter}, as of a class that is neither '
                          'in the labels nor in the predictions, so this validation gives no best checkpoint by it',
                          logger=runner.logger, level=logging.WARNING)

    @contextmanager
    def _saving(self, what: str) -> Iterator[None]:
        """Removes what is outdated once all is written."""
        try:
            yield
        except OSError as error:  # MMEngine serialises into memory and then writes, so PyTorch's own errors are others
            raise CheckpointError(f'{what} could not be written: {error}. Repair the cause, such as a full disk. '
                                  f'{what_resumes(str(self.out_dir), self.filename_tmpl)}') from error
        # MMEngine has the one for a single metric, the other for several
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        self.file_backend.remove_now(but=[self.last_ckpt, *best])


def _is_only_copy(temporary: str) -> bool:
    """Whether a checkpoint is complete under its temporary name only."""
    folder, name = osp.split(temporary)
    path = osp.join(folder, name[1:-len('.tmp')])
    return not find_damage(temporary) and (not osp.exists(path) or bool(find_damage(path)))
