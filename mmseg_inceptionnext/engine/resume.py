"""Runs that go on from a checkpoint: at the sample after the last, and from nothing that would break them later."""
import itertools
import logging
import os
import os.path as osp
from numbers import Number
from typing import Any, Iterator, Union

import torch
from mmengine.dataset import ConcatDataset, InfiniteSampler, RepeatDataset
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import DATA_SAMPLERS, LOOPS
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmseg_inceptionnext.datasets.seeding import Draw, derived_seed, seed_everything

from .batch import note_batch
from .checkpoint_hook import VALIDATED
from .optim import FUSABLE

LARGEST = dict(epoch=10**9, iter=10**9, seed=2**32 - 1)  # samplers count up to the iteration


@DATA_SAMPLERS.register_module()
class ResumableSampler(InfiniteSampler):
    """MMEngine's InfiniteSampler, in the same order, from any place on.

    With deterministic algorithms each sample also gets a seed. The datasets of this package seed their augmentations by
    it, so that they depend on the place in the run and not on the worker process that happens to load the sample.
    Takes the arguments of ``InfiniteSampler``.
    """

    start = 0

    def skip(self, num_samples: int) -> None:
        """Starts after so many samples of this process."""
        self.start = num_samples

    def __iter__(self) -> Iterator[Union[int, Draw]]:
        indices = itertools.islice(self._indices_of_rank(), self.start, None)
        if not torch.are_deterministic_algorithms_enabled():
            return indices
        return (Draw(index, derived_seed(self.seed, place * self.world_size + self.rank))
                for place, index in enumerate(indices, self.start))


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """IterBasedTrainLoop that loads nothing of what has been trained already, and seeds each deterministic iteration.

    A run that was stopped and resumed then ends with the same weights as one that was not: exactly so on one process
    with deterministic algorithms, with :class:`ResumableSampler` and a dataset of this package. Runners of this package
    take it for ``IterBasedTrainLoop``.
    """

    def run(self) -> Any:
        sampler = self.dataloader.sampler
        if self.iter and isinstance(sampler, ResumableSampler):
            sampler.seed = self.runner.seed  # that of the checkpoint
            self.dataloader_iterator = _ResumedIterator(self.dataloader, min(self.iter, self.max_iters))
        data = self.dataloader.dataset
        if self.iter and self.runner.deterministic and not (
                isinstance(sampler, ResumableSampler) and _takes_seeds(data)):
            print_log(f'resume: with train_dataloader.sampler.type {type(sampler).__name__} and train_dataloader.'
                      f'dataset.type {type(data).__name__} the augmentations differ from those of a run that was not '
                      'stopped; ResumableSampler and the datasets of mmseg_inceptionnext, also in ConcatDataset and '
                      'RepeatDataset, keep them', logger='current', level=logging.WARNING)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        if self.runner.deterministic:
            seed_everything(derived_seed(self.runner.seed, self.iter, get_rank()))
        super().run_iter(data_batch)

    def validate_if_due(self) -> None:
        """Makes up a validation that a stop has cut off; :class:`AtomicCheckpointHook` notes those that were made."""
        self._decide_current_val_interval()
        due = self.iter % self.val_interval == 0 or self.iter == self.max_iters
        if due and self.iter >= self.val_begin and self.runner.message_hub.runtime_info.get(VALIDATED) != self.iter:
            print_log(f'resume: the checkpoint tells of no validation of iteration {self.iter}, which is made up',
                      logger='current')
            self.runner.val_loop.run()


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


def _takes_seeds(dataset: Dataset) -> bool:
    """Whether a dataset, also in those that join or repeat it, takes the seeds of :class:`Draw`."""
    if isinstance(dataset, (ConcatDataset, RepeatDataset)):
        return all(map(_takes_seeds, getattr(dataset, 'datasets', None) or [dataset.dataset]))
    return getattr(dataset, 'takes_seeds', False)


class ResumeHook(Hook):
    """Compares the batch of a resumed run with the checkpoint's, and makes up the validation that the stop cut off."""
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        note_batch(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.iter > 0 and runner.val_loop is not None and isinstance(runner.train_loop, ResumableTrainLoop):
            runner.train_loop.validate_if_due()


def why_not_resumable(runner: Runner, checkpoint: dict) -> Iterator[str]:
    """What a run cannot go on from, or would only fail at in a later iteration."""
    own = dict(meta={}, message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
               optimizer=runner.optim_wrapper.state_dict())
    if isinstance(runner.param_schedulers, list) and runner.param_schedulers:
        own['param_schedulers'] = [scheduler.state_dict() for scheduler in runner.param_schedulers]
    yield from (f'it has no {key}' for key in own if key not in checkpoint)
    yield from _unlike(checkpoint, own)
    meta, hub = checkpoint['meta'], checkpoint['message_hub']
    for key, most in LARGEST.items():
        value = meta.get(key)
        if not (type(value) is int and 0 <= value <= most or key == 'seed' and value is None):
            yield f'meta.{key} is {say(value)}, not a whole number from 0 to {most}'
    numbers = [key for key in hub['runtime_info'] if str(key).startswith(('best_score', 'accumulated', 'images_per'))]
    yield from _unlike(hub['runtime_info'], dict.fromkeys(numbers, 0), 'message_hub.runtime_info')
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if type(optimizer) in FUSABLE:  # other optimizers keep other moments
        yield from _wrong_moments(optimizer, checkpoint['optimizer'])


def _wrong_moments(optimizer: torch.optim.Optimizer, theirs: dict) -> Iterator[str]:
    pairs = [(parameter, index, group['amsgrad']) for own, group in zip(optimizer.param_groups, theirs['param_groups'])
             for parameter, index in zip(own['params'], group['params']) if theirs['state'].get(index)]
    for parameter, index, amsgrad in pairs:
        for key in ('step', 'exp_avg', 'exp_avg_sq', *['max_exp_avg_sq'] * amsgrad):
            value, shape = theirs['state'][index].get(key), () if key == 'step' else tuple(parameter.shape)
            if not isinstance(value, (Number, Tensor)) or getattr(value, 'shape', ()) != shape:
                yield f'optimizer.state.{index}.{key} is {say(value)}, not numbers of shape {shape}'


def _unlike(theirs: Any, own: Any, name: str = '') -> Iterator[str]:
    """Where a state is of another kind than that of this run; what it lacks is left to whoever loads it."""
    number = isinstance(own, Number)
    if isinstance(own, dict) and isinstance(theirs, dict):
        for key in [key for key in own if key in theirs]:
            yield from _unlike(theirs[key], own[key], f'{name}.{key}' if name else key)
    elif isinstance(own, (list, tuple)):
        if not isinstance(theirs, (list, tuple)) or len(theirs) != len(own):
            yield f'{name} is {say(theirs)}, not a list of {len(own)}'
        else:
            yield from itertools.chain(*(_unlike(*pair, f'{name}.{i}') for i, pair in enumerate(zip(theirs, own))))
    elif not (own is None or isinstance(theirs, Number if number else type(own))
              or number and isinstance(theirs, Tensor) and theirs.numel() == 1):
        yield f'{name} is {say(theirs)}, not {"a number" if number else type(own).__name__}'


def say(value: Any) -> str:
    """A value, but not one of any length."""
    if isinstance(value, (list, tuple)):
        return f'{type(value).__name__} of {len(value)}'
    return f'{value!r:.80}' if isinstance(value, (str, Number, type(None))) else type(value).__name__


def drop_what_is_foreign(runner: Runner, checkpoint: dict) -> None:
    """Takes out of a checkpoint what would make MMEngine delete files elsewhere, or set what a scheduler does not keep.

    When a new best checkpoint is saved, or an old one is one too many, MMEngine removes the file or folder that the
    resumed checkpoint names.
    """
    info, home = checkpoint['message_hub']['runtime_info'], osp.realpath(runner.work_dir)
    for key in [key for key in info if str(key).startswith(('best_ckpt', 'last_ckpt'))]:
        if not isinstance(info[key], str) or not osp.realpath(info[key]).startswith(home + os.sep):
            print_log(f'resume: {key}={say(info.pop(key))} in the checkpoint is not in {home}; the file is left alone',
                      logger=runner.logger, level=logging.WARNING)
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(isinstance(step, int) for step in kept):
        del info['keep_ckpt_ids']
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for scheduler, state in zip(schedulers, checkpoint.get('param_schedulers', [])):
        for key in set(state) - set(scheduler.state_dict()):
            del state[key]
