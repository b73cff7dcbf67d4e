"""Runs whose randomness is a function of the seed and of where they are, so that a resumed one goes on exactly."""
import itertools
import logging
from typing import Any, Dict, Iterator

from mmengine.dataset import ConcatDataset, InfiniteSampler, RepeatDataset
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Dataset

from mmseg_inceptionnext.datasets.seeding import Draw, derived_seed, seed_everything
from mmseg_inceptionnext.errors import ConfigError

from .checkpoint_hook import VALIDATED


@DATA_SAMPLERS.register_module()
class ResumableSampler(InfiniteSampler):
    """MMEngine's InfiniteSampler, in the same order, from any place on, with a seed for each sample it draws.

    The datasets of this package seed their augmentations by it, so that they depend on the place in the run and not on
    the worker process that happens to load the sample. Takes the arguments of ``InfiniteSampler``.
    """

    start = 0

    def skip(self, num_samples: int) -> None:
        """Starts after so many samples of this process."""
        self.start = num_samples

    def __iter__(self) -> Iterator[Draw]:
        indices = itertools.islice(self._indices_of_rank(), self.start, None)
        for place, index in enumerate(indices, self.start):
            yield Draw(index, derived_seed(self.seed, place * self.world_size + self.rank))


class _ResumedIterator:
    """What the training loop takes its batches from, starting where the checkpoint was made.

    MMEngine skips what has been trained already: from version 0.10.12 on by ``skip_iter``, before by taking the batches
    and throwing them away. Neither loads anything here.
    """

    def __init__(self, dataloader: DataLoader, skipped: int) -> None:
        dataloader.sampler.skip(skipped * dataloader.batch_size)
        self._iterator, self._skipped = iter(dataloader), skipped

    def skip_iter(self, num_iters: int) -> None:
        self._skipped -= num_iters

    def __next__(self) -> Any:
        if self._skipped > 0:
            self._skipped -= 1
            return None
        return next(self._iterator)


def _is_seeded(dataset: Dataset) -> bool:
    """Whether a dataset, also in those that join or repeat it, takes the seeds of :class:`Draw`."""
    if isinstance(dataset, ConcatDataset):
        return all(map(_is_seeded, dataset.datasets))
    if isinstance(dataset, RepeatDataset):
        return _is_seeded(dataset.dataset)
    return getattr(dataset, 'takes_seeds', False)


class ReproducibleRunHook(Hook):
    """Seeds each iteration, and starts a resumed run at the sample after the last.

    A run that was stopped and resumed then ends with the same weights as one that was not: exactly so on one process
    with deterministic algorithms, with :class:`ResumableSampler` and a dataset of this package. A validation that the
    stop has cut off is made up before; :class:`AtomicCheckpointHook` notes those that were made.

    Raises:
        ConfigError: if a run resumes that accumulated the gradients of another number of batches: its iterations are
            others.
    """

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        resumed = runner.iter > 0 and isinstance(loop, IterBasedTrainLoop)
        if resumed:
            self._compare_batch(runner)
        for key, value in self._batch(runner).items():
            runner.message_hub.update_info(key, value)
        if not resumed:
            return
        sampler = loop.dataloader.sampler
        if isinstance(sampler, ResumableSampler):
            sampler.seed = runner.seed  # that of the checkpoint
            loop.dataloader_iterator = _ResumedIterator(loop.dataloader, min(runner.iter, loop.max_iters))
        if not isinstance(sampler, ResumableSampler) or not _is_seeded(loop.dataloader.dataset):
            print_log(f'resume: with train_dataloader.sampler.type {type(sampler).__name__} and '
                      f'train_dataloader.dataset.type {type(loop.dataloader.dataset).__name__} the augmentations '
                      'differ from those of a run that was not stopped; ResumableSampler and the datasets of '
                      'mmseg_inceptionnext, also in ConcatDataset and RepeatDataset, keep them', logger=runner.logger,
                      level=logging.WARNING)

    @staticmethod
    def _batch(runner: Runner) -> Dict[str, int]:
        """What the iterations of a run are; kept in its checkpoints."""
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        images = runner.train_dataloader.batch_size * runner.world_size
        return dict(accumulated_batches=accumulated, images_per_iter=images)

    def _compare_batch(self, runner: Runner) -> None:
        now, then = self._batch(runner), runner.message_hub.runtime_info
        before, counts = then.get('images_per_iter'), then.get('accumulated_batches')
        if counts not in (None, now['accumulated_batches']):
            raise ConfigError(
                f'--resume: the checkpoint comes from a run of {counts} batches of {before} images to a step, and this '
                f'one has {now["accumulated_batches"]} of {now["images_per_iter"]}, so that iteration {runner.iter} is '
                f'another place of the recipe: resume with {before} images in all processes together, by their number '
                f'and train_dataloader.batch_size, and {"with" if counts > 1 else "without"} --match-batch, or start '
                'from its weights in another --work-dir, with --cfg-options load_from=FILE and without --resume')
        if before not in (None, now['images_per_iter']):
            print_log(f'resume: the checkpoint was trained with {before} images an iteration, this run has '
                      f'{now["images_per_iter"]}: other samples, and accuracy may differ', logger=runner.logger,
                      level=logging.WARNING)

    def before_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        if runner.iter == 0 or runner.val_loop is None or not isinstance(loop, IterBasedTrainLoop):
            return
        loop._decide_current_val_interval()
        due = runner.iter % loop.val_interval == 0 or runner.iter == loop.max_iters
        if due and runner.iter >= loop.val_begin and runner.message_hub.runtime_info.get(VALIDATED) != runner.iter:
            print_log(f'resume: the checkpoint tells of no validation of iteration {runner.iter}, which is made up',
                      logger=runner.logger)
            runner.val_loop.run()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        seed_everything(derived_seed(runner.seed, runner.iter, get_rank()))
