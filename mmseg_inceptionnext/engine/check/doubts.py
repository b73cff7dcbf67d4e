"""Settings that run, and most likely not as they were meant."""
import inspect
from typing import Iterator, Sequence

from mmcv.transforms import Normalize
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmseg.registry import HOOKS, LOOPS, TRANSFORMS

from mmseg_inceptionnext.models.segmentors.modes import is_pair, is_whole
from mmseg_inceptionnext.parts import class_of, find_datasets, is_a, numbered, type_name

from .parts import Part


def doubts(cfg: Config, splits: Sequence[str], parts: Sequence[Part]) -> Iterator[str]:
    """A line for each; ``parts`` are those of the splits."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    preprocessor = preprocessor if isinstance(preprocessor, dict) else {}
    for part in parts if preprocessor.get('mean') else ():
        if part.registry is TRANSFORMS and is_a(part.settings, TRANSFORMS, Normalize):
            yield (f'{part.name} is {type_name(part.settings)}, and model.data_preprocessor subtracts a mean as well, '
                   'so that images are normalised twice: leave out the step')
    for split in splits:
        if cfg.get(f'{split}_evaluator') == []:
            yield (f"{split}_evaluator is [], so nothing is measured: set {split}_evaluator=dict(type='IoUMetric', "
                   "iou_metrics=['mIoU'])")
    if 'train' in splits:
        yield from _of_crops(cfg, preprocessor)
        yield from _of_epochs(cfg)


def _of_crops(cfg: Config, preprocessor: dict) -> Iterator[str]:
    for name, dataset in find_datasets(cfg, 'train'):
        for step, settings in numbered(f'{name}.pipeline', dataset.get('pipeline')):
            crop = settings.get('crop_size') if isinstance(settings, dict) else None
            crop, size = (crop, crop) if is_whole(crop) else crop, preprocessor.get('size')
            if is_pair(crop) and is_pair(size) and (crop[0] < size[0] or crop[1] < size[1]):
                yield (f'{step}.crop_size is {tuple(crop)}, and the crops are padded to model.data_preprocessor.size, '
                       f'{tuple(size)}, which takes time and memory for nothing: set both to the same')


def _of_epochs(cfg: Config) -> Iterator[str]:
    """What counts epochs in a training that counts iterations."""
    kind = class_of(cfg.train_cfg, LOOPS, EpochBasedTrainLoop if cfg.train_cfg.get('by_epoch') else IterBasedTrainLoop)
    if not (inspect.isclass(kind) and issubclass(kind, IterBasedTrainLoop)):
        return
    for name, scheduler in numbered('param_scheduler', cfg.get('param_scheduler')):
        if isinstance(scheduler, dict) and 'type' in scheduler and scheduler.get('by_epoch', True):
            yield f'{name} counts epochs, of which {kind.__name__} has one, so it changes nothing: set by_epoch=False'
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if isinstance(hook, dict) and is_a(hook, HOOKS, CheckpointHook) and hook.get('by_epoch', True):
            yield (f'default_hooks.{name} counts epochs, of which {kind.__name__} has one, so it saves at the end '
                   'only: set by_epoch=False')
