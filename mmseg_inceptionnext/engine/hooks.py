"""Hooks of the training loop."""
import logging
import math
import os
import os.path as osp
from collections import Counter
from numbers import Number
from typing import Any, Dict, Iterator, Optional

from mmengine.dist import all_gather_object
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmseg_inceptionnext.checkpoints.compare import (
    check_finite,
    check_segmentor,
    compare,
    describe,
    segmentor_weights,
    unwrap,
)
from mmseg_inceptionnext.models import fuse

from .fused import FUSABLE, keep_own_steps
from .runner import unusable


@HOOKS.register_module()
class BatchSizeHook(Hook):
    """Says at the start of training which batch the recipe was made for and which one runs.

    The recipe's batch is ``auto_scale_lr.base_batch_size`` of the config. Where the two differ the line is a warning
    that says what to do.
    """

    def before_train(self, runner: Runner) -> None:
        recipe = runner.cfg.get('auto_scale_lr', {})
        base = recipe.get('base_batch_size')
        if base is None:
            return
        per_process = runner.train_dataloader.batch_size
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        actual = runner.world_size * per_process * accumulated
        parts = f'{runner.world_size} process{"es" * (runner.world_size > 1)} x {per_process} images'
        if accumulated > 1:
            synchronised = any(isinstance(module, nn.SyncBatchNorm) for module in runner.model.modules())
            seen = per_process * (runner.world_size if synchronised else 1)
            parts += f' x {accumulated} accumulated steps; BatchNorm sees {seen} images at once'
        line = f'batch: the recipe has {base}, this run has {actual} ({parts})'
        scale = runner.world_size * per_process / base if recipe.get('enable') else 1  # MMEngine ignores accumulation
        if recipe.get('enable'):
            line += f'; learning rate scaled by {scale:g}'
        elif actual != base:
            line += ('; accuracy may differ: use more GPUs or another train_dataloader.batch_size, accumulate '
                     "gradients up to the recipe's batch with --match-batch, or scale the learning rate with "
                     '--auto-scale-lr')
        fits = actual == base and scale == 1
        print_log(line, logger=runner.logger, level=logging.INFO if fits else logging.WARNING)


@HOOKS.register_module()
class SkippedSamplesHook(Hook):
    """Says at the end of training which broken samples were replaced, and how often.

    That is, by the datasets of this package that have ``on_error='skip'``, in all workers of all processes.
    """

    MOST_NAMES = 20

    def after_train(self, runner: Runner) -> None:
        total = Counter()
        for counts in all_gather_object(_skipped(runner.train_dataloader.dataset)):
            total.update(counts)
        if total:
            names = [f'{path} ({count} times)' for path, count in total.most_common(self.MOST_NAMES)]
            names += [f'and {len(total) - self.MOST_NAMES} more'] * (len(total) > self.MOST_NAMES)
            print_log(f'skipped: {len(total)} broken samples, replaced {sum(total.values())} times by the next one: '
                      f'{", ".join(names)}', logger=runner.logger, level=logging.WARNING)


@HOOKS.register_module()
class PerClassMetricsHook(Hook):
    """Adds the metrics of each class to those of a validation, after the log line and before checkpoints are chosen.

    So ``CheckpointHook(save_best='IoU/road')`` and early stopping find them, and the log line does not grow by hundreds
    of entries. TensorBoard and what else is in ``vis_backends`` get them too, those that are numbers. They come from
    metrics with an attribute ``per_class``, such as ``ExactIoUMetric``.
    """
    priority = 65  # between LoggerHook, 60, and CheckpointHook, 90
    trains = False

    def before_train(self, runner: Runner) -> None:
        self.trains = True

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        per_class = {}
        for metric in runner.val_evaluator.metrics:
            per_class.update(getattr(metric, 'per_class', {}))
        metrics.update(per_class)
        numbers = {key: value for key, value in per_class.items() if not math.isnan(value)}
        if numbers:
            runner.visualizer.add_scalars(numbers, step=runner.iter if self.trains else 0)


class WholeCheckpointHook(Hook):
    """Compares a checkpoint with the model before MMEngine loads what fits of it and goes on.

    A run resumes from a checkpoint that fits whole, or not at all, and so is a model evaluated. A checkpoint that
    training starts from (``load_from``) may differ outside the backbone, as in a head for other classes: what does not
    fit is a warning.

    Args:
        may_differ: whether ``load_from`` may, as above; otherwise it must fit whole.
    """

    def __init__(self, may_differ: bool = False) -> None:
        self.may_differ = may_differ

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        source = getattr(checkpoint, 'source', 'the checkpoint')
        if runner._resume or not self.may_differ:
            check_segmentor(runner.model, checkpoint, source)
            if runner._resume:
                for reason in _why_not_resumable(runner, checkpoint):
                    raise unusable(source, reason)
                _drop_what_is_foreign(runner, checkpoint)
                keep_own_steps(runner.optim_wrapper, checkpoint['optimizer'])
            return
        own, state = unwrap(runner.model).state_dict(), segmentor_weights(checkpoint, source)
        result = compare(own, state)
        if not {key for key in own if key.startswith('backbone.')} <= set(result.loaded):
            check_segmentor(runner.model, checkpoint, source)
        check_finite(own, state, source)
        line = f'load_from: {len(result.loaded)}/{len(own)} tensors from {source}'
        if not result.fits:
            line += f'; the rest was left as it is\n{describe(result, own, state)}'
        print_log(line, logger=runner.logger, level=logging.INFO if result.fits else logging.WARNING)


class FuseHook(Hook):
    """Fuses the model when its weights are there, before it is evaluated; see :func:`mmseg_inceptionnext.fuse`."""

    def before_test(self, runner: Runner) -> None:
        # EMAHook would exchange parameters that are not there any more. The checkpoint's own are the averaged ones.
        runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, EMAHook)]
        fuse(unwrap(runner.model), inplace=True)


def _skipped(dataset: Dataset) -> Counter:
    """How often each sample was replaced, also in the datasets that one joins or repeats."""
    total = Counter(dataset.skipped_samples() if hasattr(dataset, 'skipped_samples') else {})
    for inner in [*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)]:
        if inner is not None:
            total += _skipped(inner)
    return total


def _why_not_resumable(runner: Runner, checkpoint: dict) -> Iterator[str]:
    """What a run cannot go on from, or would only trip over in a later iteration."""
    own = dict(meta={}, message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
               optimizer=runner.optim_wrapper.state_dict())
    if isinstance(runner.param_schedulers, list) and runner.param_schedulers:
        own['param_schedulers'] = [scheduler.state_dict() for scheduler in runner.param_schedulers]
    yield from (f'it has no {key}' for key in own if key not in checkpoint)
    yield from _unlike(checkpoint, own, '')
    meta, hub = checkpoint['meta'], checkpoint['message_hub']
    for key, most in (('epoch', 10**9), ('iter', 10**9), ('seed', 2**32 - 1)):  # samplers count up to the iteration
        value = meta.get(key)
        if not (type(value) is int and 0 <= value <= most or key == 'seed' and value is None):
            yield f'meta.{key} is {_say(value)}, not a whole number from 0 to {most}'
    for key in [key for part in hub.values() for key in part if not isinstance(key, str)]:
        yield f'message_hub has the key {_say(key)}, not a text'
    for key, value in hub['log_scalars'].items():
        if not isinstance(value, HistoryBuffer) or not len(value.data[0]):
            yield f'message_hub.log_scalars.{key} is no history of numbers'
    for key, value in hub['runtime_info'].items():
        if key.startswith(('best_score', 'accumulated', 'images_per')) and not isinstance(value, Number):
            yield f'message_hub.runtime_info.{key} is {_say(value)}, not a number'
    yield from _wrong_moments(getattr(runner.optim_wrapper, 'optimizer', None), checkpoint['optimizer'])


def _unlike(theirs: Any, own: Any, name: str) -> Iterator[str]:
    """Where a state is of another kind than that of this run; what it lacks is left to whoever loads it."""
    if isinstance(own, dict) and isinstance(theirs, dict):
        for key in [key for key in own if key in theirs]:
            yield from _unlike(theirs[key], own[key], f'{name}.{key}' if name else key)
    elif isinstance(own, (list, tuple)):
        if not isinstance(theirs, (list, tuple)) or len(theirs) != len(own):
            yield f'{name} is {_say(theirs)}, not a list of {len(own)}'
        else:
            for number, pair in enumerate(zip(theirs, own)):
                yield from _unlike(*pair, f'{name}.{number}')
    elif not (own is None or isinstance(theirs, type(own)) or isinstance(own, Number) and (
            isinstance(theirs, Number) or isinstance(theirs, Tensor) and theirs.numel() == 1)):
        yield f'{name} is {_say(theirs)}, not {"a number" if isinstance(own, Number) else type(own).__name__}'


def _wrong_moments(optimizer: Any, theirs: dict) -> Iterator[str]:
    """What Adam and AdamW would trip over in their first step; other optimizers are not looked into."""
    if type(optimizer) not in FUSABLE:
        return
    for own, group in zip(optimizer.param_groups, theirs['param_groups']):
        for parameter, index in zip(own['params'], group['params']):
            state = theirs['state'].get(index) or {}
            for key in state and ('step', 'exp_avg', 'exp_avg_sq', *['max_exp_avg_sq'] * group['amsgrad']):
                value, shape = state.get(key), () if key == 'step' else tuple(parameter.shape)
                if not isinstance(value, (Number, Tensor)) or getattr(value, 'shape', ()) != shape:
                    yield f'optimizer.state.{index}.{key} is {_say(value)}, not numbers of shape {shape}'


def _say(value: Any) -> str:
    """A value, but not one of any length."""
    if isinstance(value, (list, tuple)):
        return f'{type(value).__name__} of {len(value)}'
    return f'{value!r:.80}' if isinstance(value, (str, Number, type(None))) else type(value).__name__


def _drop_what_is_foreign(runner: Runner, checkpoint: dict) -> None:
    """Takes out of a checkpoint what would make MMEngine delete files elsewhere, or set what a scheduler does not keep.

    When a new best checkpoint is saved, or an old one is one too many, MMEngine removes the file or folder that the
    resumed checkpoint names.
    """
    info = checkpoint['message_hub']['runtime_info']
    home = osp.realpath(runner.work_dir)
    for key in [key for key in info if key.startswith(('best_ckpt', 'last_ckpt'))]:
        path = info[key]
        if not isinstance(path, str) or not osp.realpath(path).startswith(home + os.sep):
            del info[key]
            print_log(f'resume: {key}={_say(path)} in the checkpoint is not in {home}; the file is left alone',
                      logger=runner.logger, level=logging.WARNING)
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(isinstance(step, int) for step in kept):
        del info['keep_ckpt_ids']
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for scheduler, state in zip(schedulers, checkpoint.get('param_schedulers', [])):
        for key in set(state) - set(scheduler.state_dict()):
            del state[key]
