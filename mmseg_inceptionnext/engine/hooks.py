"""Hooks of the training loop."""
import logging
import math
import os
import os.path as osp
from collections import Counter
from typing import Dict, Optional

from mmengine.dist import all_gather_object
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn
from torch.utils.data import Dataset

from .checkpoint import check_segmentor, compare, describe, segmentor_weights, unwrap, whole_state
from .fused import keep_own_steps


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
                _drop_foreign_paths(runner, checkpoint)
                if checkpoint.get('optimizer'):
                    keep_own_steps(runner.optim_wrapper, checkpoint['optimizer'])
            return
        own, state = whole_state(runner.model), segmentor_weights(checkpoint, source)
        result = compare(own, state)
        if not {key for key in own if key.startswith('backbone.')} <= set(result.loaded):
            check_segmentor(runner.model, checkpoint, source)
        line = f'load_from: {len(result.loaded)}/{len(own)} tensors from {source}'
        if not result.fits:
            line += f'; the rest was left as it is\n{describe(result, own, state)}'
        print_log(line, logger=runner.logger, level=logging.INFO if result.fits else logging.WARNING)


class FuseHook(Hook):
    """Fuses the model when its weights are there, before it is evaluated; see :func:`mmseg_inceptionnext.fuse`."""

    def before_test(self, runner: Runner) -> None:
        from mmseg_inceptionnext.models import fuse  # which loads weights through this package
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


def _drop_foreign_paths(runner: Runner, checkpoint: dict) -> None:
    """Takes out of a checkpoint what would make MMEngine delete files elsewhere.

    When a new best checkpoint is saved, or an old one is one too many, MMEngine removes the file or folder that the
    resumed checkpoint names.
    """
    info = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
    home = osp.realpath(runner.work_dir)
    for key in [key for key in info if str(key).startswith(('best_ckpt', 'last_ckpt'))]:
        path = info[key]
        if not isinstance(path, str) or not osp.realpath(path).startswith(home + os.sep):
            del info[key]
            print_log(f'resume: {key}={path!r} in the checkpoint is not in {home}; the file is left alone',
                      logger=runner.logger, level=logging.WARNING)
    if not all(isinstance(step, int) for step in info.get('keep_ckpt_ids', ())):
        del info['keep_ckpt_ids']
