"""Tries a step of validation before a training, and watches its first iteration: a mistake is told in a sentence."""
import copy
import logging
import random
import re
import traceback
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Set

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.amp import autocast
from mmseg.evaluation import IoUMetric
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset

from mmseg_inceptionnext.checkpoints.compare import unwrap
from mmseg_inceptionnext.errors import ConfigError, UserError
from mmseg_inceptionnext.evaluation import ExactIoUMetric, greater_is_better
from mmseg_inceptionnext.models.sync_bn import SYNCHRONISED
from mmseg_inceptionnext.parts import numbered

from .channels import no_label, why_not
from .explain import built_from, in_a_line, keeps_traceback, own_places
from .signatures import nearest

MIXED = 'The image size in a batch should be the same', 'stack expects each tensor to be equal size'
KNOWN = IoUMetric, ExactIoUMetric
SINGLE = 'Expected more than 1 value per channel when training'
LAST_FIX = 'set train_dataloader.drop_last=True, or another batch_size'
STEPS = dict(train='one step of training', val='one step of validation', test='the evaluation')


class TryRunHook(Hook):
    """Predicts and measures the first batch of the validation before a training, and forgets it.

    Weights, random states and metrics are afterwards what they were. What is of another kind than MMEngine's own
    models, loaders and metrics is not tried. An error of the first iteration is explained by :meth:`explained`.

    Args:
        forward: run the model, and look into its first iteration.

    Raises:
        ConfigError: if a setting makes the validation fail, a BatchNorm gets one value, or an epoch does not end.
        SampleError: if a file of the validation's first batch is broken, or a label does not fit.
    """

    def __init__(self, forward: bool = True) -> None:
        self.forward, self.begins, self.batch = forward, False, None
        self._handles: List[Any] = []

    def before_train(self, runner: Runner) -> None:
        model = unwrap(runner.model)
        if self.forward and isinstance(runner, Runner) and isinstance(model, BaseModel) and (
                runner.iter < runner.max_iters):
            if runner.val_loop is not None:
                with _untouched(model), warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    _try_validation(runner, model)
            self._handles = _refuse_single_values(model, runner.train_dataloader, runner.max_iters)
            self.begins = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self.batch is not None:  # of the iteration before
            self._has_begun()
        self.batch = data_batch if self.begins else None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            _refuse_endless('train', batch_idx, runner.train_dataloader)

    def before_val(self, runner: Runner) -> None:
        self._has_begun()

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        _refuse_endless('val', batch_idx, runner.val_dataloader)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        _refuse_endless('test', batch_idx, runner.test_dataloader)

    def _has_begun(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.begins, self.batch, self._handles = False, None, []

    @contextmanager
    def explained(self, runner: Runner) -> Iterator[None]:
        """Raises a ConfigError for what fails in the first step of a training, and for images of several sizes."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # torch, MMEngine and each class have their own
            model, frames = unwrap(runner.model), {frame.name for frame in traceback.extract_tb(error.__traceback__)}
            if 'run' not in frames:  # of a loop
                with built_from('the config'):
                    raise
            if self.begins and (frames & {'train_step', '_next_data'} or not own_places(error)):  # no hook of one's own
                raise_explained('train', error, lambda: self.batch and why_not(model, self.batch, 'train'))
            if SINGLE in str(error):
                raise ConfigError(_one_pixel('a batch is 1 image', 'the model', LAST_FIX)) from error
            if _is_mixed(error):
                raise_explained('train' if model.training else 'val', error)
            raise


Reason = Callable[[], Optional[str]]


@contextmanager
def explained(split: str, reason: Reason = lambda: None) -> Iterator[None]:
    """Raises a ConfigError for what a setting makes fail where a model is evaluated, on ``val`` or ``test``."""
    try:
        yield
    except Exception as error:  # torch, MMEngine and each class have their own
        raise_explained(split, error, reason)


def raise_explained(split: str, error: Exception, find_reason: Reason = lambda: None) -> None:
    """Raises a ConfigError with the reason for an error, or with the error's text, or the error itself."""
    if isinstance(error, UserError):
        raise error
    line = in_a_line(error)
    reason = _mixed_sizes(split) if _is_mixed(error) else no_label(split) if "'gt_sem_seg'" in line else find_reason()
    if not reason and keeps_traceback(error):
        raise error
    raise ConfigError(reason or f'{STEPS[split]} with the settings of this config fails: {line}') from error


def _is_mixed(error: BaseException) -> bool:
    return any(text in str(error) for text in MIXED)


def _mixed_sizes(split: str) -> str:
    if split == 'train':
        return ('the images of a batch have different sizes: let the training pipeline end with RandomCrop and '
                'model.data_preprocessor have its crop_size as size, or set train_dataloader.batch_size=1')
    return (f'the images of a batch have different sizes after {split}_dataloader.dataset.pipeline, and an evaluation '
            f'pads none: set {split}_dataloader.batch_size=1')


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None  # of all it would wake the others
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
        for module, mode in modes:
            module.training = mode


def _try_validation(runner: Runner, model: BaseModel) -> None:
    loader = runner.val_dataloader
    if loader.batch_size is None or not hasattr(loader.dataset, '__len__') or not len(loader.dataset):
        return
    first = Subset(loader.dataset, range(min(loader.batch_size, len(loader.dataset))))
    batch: dict = {}
    with explained('val', lambda: batch and why_not(model, batch, 'val')):
        # where processes load, one does here, too: what ends it does not end the run without a word
        batch = next(iter(DataLoader(
            first, len(first), collate_fn=loader.collate_fn, num_workers=min(loader.num_workers, 1),
            multiprocessing_context=loader.multiprocessing_context)))
        model.eval()
        with torch.no_grad(), autocast(enabled=bool(getattr(runner.val_loop, 'fp16', False))):
            outputs = model.val_step(batch)
        evaluator = copy.copy(runner.val_evaluator)
        evaluator.metrics = [copied for copied in map(_copied, evaluator.metrics) if copied is not None]
        evaluator.process(data_samples=outputs, data_batch=batch)
    if len(evaluator.metrics) == len(runner.val_evaluator.metrics):
        _refuse_unmeasured(runner, list(map(_measured, evaluator.metrics)))


def _copied(metric: Any) -> Any:
    """A metric to try, None if it writes files."""
    if isinstance(metric, DumpResults) or getattr(metric, 'output_dir', None) or getattr(metric, 'format_only', False):
        return None
    try:
        return copy.deepcopy(metric)
    except (TypeError, RuntimeError):  # it holds what cannot be copied, such as an open file
        return None


def _measured(metric: BaseMetric) -> Set[str]:
    """The names of what a metric gives, which has seen a batch; none if that cannot be known."""
    found, names = set(), []
    if isinstance(metric, IoUMetric):
        names = [name for _, key in numbered('', metric.metrics) for name in ExactIoUMetric.MEASURED.get(key, ())]
        found = {'aAcc', *(f'm{name}' for name in names)}
    if type(metric) not in KNOWN:
        before = logging.root.manager.disable
        logging.disable()  # it may print a table
        try:
            found |= set(metric.compute_metrics(metric.results))
        except Exception:  # it may need all of the data: if not, the validation tells
            return set()
        finally:
            logging.disable(before)
    if isinstance(metric, ExactIoUMetric):
        found |= {f'{name}/{one}' for name in names for one in (metric.dataset_meta or {}).get('classes') or ()}
    return {f'{metric.prefix}/{name}' if metric.prefix else name for name in found}


def _refuse_unmeasured(runner: Runner, measured: List[Set[str]]) -> None:
    """Hooks and schedules that wait for what no metric gives would fail, or do nothing, after the validation."""
    if not measured or not all(measured):
        return
    names = set().union(*measured)
    classes = re.compile(f'(^|/)({"|".join(greater_is_better())})/')
    all_known = all(type(metric) in KNOWN for metric in runner.val_evaluator.metrics)
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for waiting in [*runner.hooks, *schedulers]:
        found = [('monitor', getattr(waiting, 'monitor', None))]
        if isinstance(waiting, CheckpointHook) and waiting.save_best:
            found += [('save_best', key) for key in waiting.key_indicators if key != 'auto']
        for setting, key in found:
            if isinstance(key, str) and key not in names and (all_known or '/' not in key):  # which data may bring
                means = [name for name in sorted(names) if not classes.search(name)] or sorted(names)
                raise ConfigError(f'{type(waiting).__name__} has {setting}={key!r}, which is not measured'
                                  f'{nearest(key, names)}: val_evaluator gives {", ".join(means)}')


def _refuse_endless(split: str, batch_idx: int, loader: DataLoader) -> None:
    if hasattr(loader.dataset, '__len__') and batch_idx >= len(loader):
        raise ConfigError(f'{split}_dataloader gives more than the {len(loader)} batches that it says it has: its '
                          f"sampler never ends. Set {split}_dataloader.sampler=dict(type='DefaultSampler', "
                          f"shuffle={split == 'train'}, _delete_=True)")


def _one_pixel(got: str, name: str, fix: str) -> str:
    return (f'{got}, and {name} pools it to one pixel, of which BatchNorm has no variance: {fix}; or a norm that does '
            "without, such as norm_cfg=dict(type='GN', num_groups=32, _delete_=True) in that head")


def _refuse_single_values(model: nn.Module, loader: DataLoader, max_iters: int) -> List[Any]:
    """Lets each BatchNorm look for maps of one pixel, if some batch of a process is one image; returns the handles."""
    size = loader.batch_size
    known = isinstance(loader.sampler, (DefaultSampler, SequentialSampler, RandomSampler))
    ends = known and not loader.drop_last and max_iters >= len(loader)
    last = size is not None and size > 1 and ends and len(loader.sampler) % size == 1
    if not last and size != 1:
        return []
    got = (f'the last batch of each epoch is 1 image, the rest of the data by train_dataloader.batch_size={size}'
           if last else 'train_dataloader.batch_size is 1 for a process')
    fix = LAST_FIX if last else 'set train_dataloader.batch_size=2 or more'

    def check(name: str, norm: nn.Module, maps: torch.Tensor) -> None:
        together = isinstance(norm, SYNCHRONISED) and get_world_size() > 1
        if norm.training and not together and maps[0].numel() == maps.shape[1]:
            raise ConfigError(_one_pixel(got, name, fix))

    return [module.register_forward_pre_hook(lambda norm, inputs, name=name: check(f'model.{name}', norm, inputs[0]))
            for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
