"""Hooks of the training loop."""
import logging
import math
import re
from collections import Counter
from typing import Dict, Optional

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch.utils.data import Dataset

from mmseg_inceptionnext.checkpoints.compare import (
    check_finite,
    check_segmentor,
    compare,
    describe,
    segmentor_weights,
    unwrap,
)
from mmseg_inceptionnext.models import ImageClassifier, fuse
from mmseg_inceptionnext.models.backbones.pretrained import published_weights
from mmseg_inceptionnext.parts import built_datasets

from .optim import keep_own_steps
from .resume import drop_what_is_foreign, why_not_resumable
from .runner import unusable


@HOOKS.register_module()
class SkippedSamplesHook(Hook):
    """Says at the end of training which samples datasets with ``on_error='skip'`` replaced, and how often."""

    MOST_NAMES = 20

    def after_train(self, runner: Runner) -> None:
        total = sum(all_gather_object(_skipped(runner.train_dataloader.dataset)), Counter())
        if total:
            names = [f'{path} ({count} times)' for path, count in total.most_common(self.MOST_NAMES)]
            names += [f'and {len(total) - self.MOST_NAMES} more'] * (len(total) > self.MOST_NAMES)
            print_log(f'skipped: {len(total)} broken samples, replaced {sum(total.values())} times by the next one: '
                      f'{", ".join(names)}', logger=runner.logger, level=logging.WARNING)


@HOOKS.register_module()
class PerClassMetricsHook(Hook):
    """Adds the metrics of each class to those of a validation, after the log line and before checkpoints are chosen.

    So ``CheckpointHook(save_best='IoU/road')`` and early stopping find them, and TensorBoard and what else is in
    ``vis_backends``. They come from metrics with an attribute ``per_class``, such as ``ExactIoUMetric``.
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


class CompleteCheckpointHook(Hook):
    """Compares a checkpoint with the model before MMEngine loads what fits of it and goes on.

    A run resumes from a checkpoint that fits completely, or not at all, and so is a model evaluated.

    Args:
        may_differ: whether a checkpoint that training starts from (``load_from``) may differ outside the backbone,
            with a warning, unless only the convolutions that classify differ, by another number of classes.
    """

    def __init__(self, may_differ: bool = False) -> None:
        self.may_differ = may_differ

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        source, resuming = getattr(checkpoint, 'source', 'the checkpoint'), runner.cfg.get('resume')
        if isinstance(unwrap(runner.model), ImageClassifier):  # in one of the forms in which published weights are
            checkpoint['state_dict'] = published_weights(checkpoint, source)
        if resuming or not self.may_differ:
            check_segmentor(runner.model, checkpoint, source)
        if resuming:
            for reason in why_not_resumable(runner, checkpoint):
                raise unusable(source, reason)
            drop_what_is_foreign(runner, checkpoint)
            keep_own_steps(runner.optim_wrapper, checkpoint['optimizer'])
        elif self.may_differ:
            self._compare(runner, checkpoint, source)

    def _compare(self, runner: Runner, checkpoint: dict, source: str) -> None:
        own, state = unwrap(runner.model).state_dict(), segmentor_weights(checkpoint, source)
        result = compare(own, state)
        is_classifier = isinstance(unwrap(runner.model), ImageClassifier)
        trunk = {key for key in own if (not key.startswith('head.') if is_classifier else key.startswith('backbone.'))}
        if not trunk <= set(result.loaded):
            check_segmentor(runner.model, checkpoint, source)
        check_finite(own, state, source)
        other_classes = not result.missing and not result.unexpected and all(
            re.search(r'^head\.fc2?\.|\.conv_seg\.', key) for key in result.misshaped)
        line = f'load_from: {len(result.loaded)}/{len(own)} tensors from {source}'
        if not result.fits:
            line += '; what classifies is of another number of classes and starts anew' if other_classes else (
                '; the rest was left as it is')
            line += f'\n{describe(result, own, state)}'
        print_log(line, logger=runner.logger, level=logging.INFO if other_classes else logging.WARNING)


class FuseHook(Hook):
    """Fuses the model when its weights are there, before it is evaluated; see :func:`mmseg_inceptionnext.fuse`."""

    def before_test(self, runner: Runner) -> None:
        fuse(unwrap(runner.model), inplace=True)


def _skipped(dataset: Dataset) -> Counter:
    """How often each sample was replaced, also in the datasets that one joins or repeats."""
    return sum((Counter(inner.skipped_samples()) for inner in built_datasets(dataset)
                if hasattr(inner, 'skipped_samples')), Counter())
