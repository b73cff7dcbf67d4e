"""Tries a step of training and of validation before the first: a mistake is told at once, and not after hours."""
import copy
import random
import warnings
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_world_size
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmseg.evaluation import IoUMetric
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mmseg_inceptionnext.checkpoints.compare import unwrap
from mmseg_inceptionnext.errors import ConfigError, UserError

from .misfit import no_label, why_not
from .settings import in_a_line, keeps_traceback, nearest

MIXED = 'The image size in a batch should be the same', 'stack expects each tensor to be equal size'


class TryRunHook(Hook):
    """Computes the loss of one batch, then predicts and measures one of the validation, and forgets both.

    Weights, buffers, random states and metrics are afterwards what they were. What is of another kind than MMEngine's
    own models, loaders and metrics is not tried.

    Args:
        forward: run the model; without it only the endless loops are found.

    Raises:
        ConfigError: if a setting makes one of them fail, or an epoch does not end.
        SampleError: if a file of these batches is broken, or a label does not fit.
    """

    def __init__(self, forward: bool = True) -> None:
        self.forward = forward

    def before_train(self, runner: Runner) -> None:
        model = unwrap(runner.model)
        if self.forward and isinstance(runner, Runner) and isinstance(model, BaseModel) and (
                runner.iter < runner.max_iters):
            with _untouched(runner, model), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                _try_training(runner, model)
                if runner.val_loop is not None:
                    _try_validation(runner, model)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if getattr(runner.train_loop, 'max_epochs', 1) > 1:
            _refuse_endless('train', batch_idx, runner.train_dataloader)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        _refuse_endless('val', batch_idx, runner.val_dataloader)


def _refuse_endless(split: str, batch_idx: int, loader: DataLoader) -> None:
    if hasattr(loader.dataset, '__len__') and batch_idx >= len(loader):
        raise ConfigError(f'{split}_dataloader gives more than the {len(loader)} batches that it says it has: its '
                          f"sampler never ends. Set {split}_dataloader.sampler=dict(type='DefaultSampler', "
                          f"shuffle={split == 'train'}, _delete_=True)")


@contextmanager
def _untouched(runner: Runner, model: nn.Module) -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None  # of all it would wake the others
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    counts = [(data._skipped, data._skipped.clone()) for data in _datasets(runner.train_dataloader.dataset)
              if hasattr(data, '_skipped')]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
        for tensor, value in [*buffers, *counts]:
            tensor.copy_(value)
        for module, mode in modes:
            module.training = mode


def _datasets(data: Any) -> Iterator[Any]:
    """A data set and those within it."""
    yield data
    for inner in [*getattr(data, 'datasets', ()), getattr(data, 'dataset', None)]:
        if inner is not None:
            yield from _datasets(inner)


def _first_batch(loader: DataLoader, size: int) -> Optional[Any]:
    """The first samples of a data set, as a batch; None if it has no numbered ones."""
    if loader.batch_size is None or not hasattr(loader.dataset, '__len__') or not len(loader.dataset):
        return None
    return loader.collate_fn([loader.dataset[i] for i in range(min(size, len(loader.dataset)))])


def _smallest_batch(loader: DataLoader, max_iters: int) -> int:
    """How many images the smallest batch of a process has: an end of the data may leave one; no sampler without end."""
    ends = isinstance(loader.sampler, DefaultSampler) and not loader.drop_last and max_iters >= len(loader)
    return 1 if ends and len(loader.sampler) % loader.batch_size == 1 else loader.batch_size


def _try_training(runner: Runner, model: BaseModel) -> None:
    loader, wrapper = runner.train_dataloader, runner.optim_wrapper
    if type(model).train_step is not BaseModel.train_step or not isinstance(wrapper, OptimWrapper) or (
            loader.batch_size is None):
        return
    data: List[dict] = []
    with explained('train', model, data):
        batch = _first_batch(loader, _smallest_batch(loader, runner.max_iters))
        if batch is None:
            return
        model.train()
        data.append(model.data_preprocessor(batch, True))
        with wrapper.optim_context(model), torch.no_grad(), _single_values_refused(model, loader):
            model.parse_losses(model._run_forward(data[0], mode='loss'))


def _try_validation(runner: Runner, model: BaseModel) -> None:
    loader = runner.val_dataloader
    with explained('val'):
        batch = _first_batch(loader, loader.batch_size or 1)
        if batch is None:
            return
        model.eval()
        with torch.no_grad(), autocast(enabled=bool(getattr(runner.val_loop, 'fp16', False))):
            outputs = model.val_step(batch)
        evaluator = copy.copy(runner.val_evaluator)
        evaluator.metrics = [copied for copied in map(_copied, evaluator.metrics) if copied is not None]
        evaluator.process(data_samples=outputs, data_batch=batch)
        if all(isinstance(metric, IoUMetric) for metric in evaluator.metrics):  # another may need more than a batch
            _refuse_unmeasured(runner, _measured(runner, evaluator.metrics))


def _measured(runner: Runner, metrics: Sequence[IoUMetric]) -> Set[str]:
    """The names of what is measured; their table is kept out of the log."""
    names, was = set(), runner.logger.disabled
    runner.logger.disabled = True
    try:
        for metric in metrics:
            found = {*metric.compute_metrics(metric.results), *getattr(metric, 'per_class', ())}
            names |= {f'{metric.prefix}/{name}' if metric.prefix else name for name in found}
    finally:
        runner.logger.disabled = was
    return names


def _refuse_unmeasured(runner: Runner, names: Set[str]) -> None:
    """Hooks and schedules that wait for what no metric gives would fail, or do nothing, after the validation."""
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for waiting in [*runner.hooks, *schedulers]:
        monitored = getattr(waiting, 'monitor', None)
        if names and isinstance(monitored, str) and monitored not in names:
            means = sorted(name for name in names if '/' not in name) or sorted(names)
            raise ConfigError(f'{type(waiting).__name__} has monitor={monitored!r}, which is not measured'
                              f'{nearest(monitored, names)}: val_evaluator gives {", ".join(means)}')


def _copied(metric: Any) -> Optional[Any]:
    """A metric to try, unless it writes files."""
    if isinstance(metric, DumpResults) or getattr(metric, 'output_dir', None) or getattr(metric, 'format_only', False):
        return None
    try:
        return copy.deepcopy(metric)
    except (TypeError, RuntimeError):  # it holds what cannot be copied, such as an open file
        return None


@contextmanager
def _single_values_refused(model: nn.Module, loader: DataLoader) -> Iterator[None]:
    """Names the BatchNorm that gets one value per channel, from a map of 1 x 1, before PyTorch refuses it."""
    def check(name: str, norm: nn.Module, inputs: Tuple) -> None:
        together = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
        if norm.training and not together and inputs[0].numel() == inputs[0].shape[1]:
            raise ConfigError(_one_value(loader, f'model.{name}'))
    handles = [module.register_forward_pre_hook(lambda norm, inputs, name=name: check(name, norm, inputs))
               for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _one_value(loader: DataLoader, name: str) -> str:
    last = loader.batch_size > 1
    got = (f'the last batch of each epoch is 1 image, the rest of the data by train_dataloader.batch_size='
           f'{loader.batch_size}' if last else 'train_dataloader.batch_size is 1 for a process')
    fix = ('set train_dataloader.drop_last=True, or another batch_size' if last else
           'set train_dataloader.batch_size=2 or more')
    return (f'{got}, and {name} pools it to one pixel, of which BatchNorm has no variance: {fix}; or a norm that does '
            "without, such as norm_cfg=dict(type='GN', num_groups=32, _delete_=True) in that head")


@contextmanager
def explained(split: str, model: Optional[nn.Module] = None, data: Sequence[dict] = ()) -> Iterator[None]:
    """Raises a ConfigError for what a setting makes fail when a model runs on a ``split``.

    Args:
        split: ``train``, ``val`` or ``test``.
        model: of a training, to look at if its loss fails.
        data: its batch after the data preprocessor, once there is one.
    """
    try:
        yield
    except Exception as error:  # torch, MMEngine and each class have their own
        line = in_a_line(error)
        if isinstance(error, UserError):
            raise
        reason = _mixed_sizes(split) if _is_mixed(error) else why_not(model, data[0]) if data else None
        reason = reason or no_label(split) if "'gt_sem_seg'" in line else reason
        if reason is None and keeps_traceback(error):
            raise
        what = dict(train='one step of training', val='one step of validation', test='the evaluation')[split]
        raise ConfigError(reason or f'{what} with the settings of this config fails: {line}') from error


def _is_mixed(error: BaseException) -> bool:
    return any(text in str(error) for text in MIXED)


def _mixed_sizes(split: str) -> str:
    if split == 'train':
        return ('the images of a batch have different sizes: let the training pipeline end with RandomCrop and '
                'model.data_preprocessor have its crop_size as size, or set train_dataloader.batch_size=1')
    return (f'the images of a batch have different sizes after {split}_dataloader.dataset.pipeline, and an evaluation '
            f'pads none: set {split}_dataloader.batch_size=1')


@contextmanager
def mixed_sizes_explained(runner: Runner) -> Iterator[None]:
    """Raises a ConfigError for images that differ in size in a later batch."""
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        if not _is_mixed(error):
            raise
        raise ConfigError(_mixed_sizes('train' if runner.model.training else 'val')) from error
