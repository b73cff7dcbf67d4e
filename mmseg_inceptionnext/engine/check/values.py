"""Values of settings that classes take as they are, and fail by later, where nothing names the setting."""
import inspect
import math
import os
from typing import Any, Callable, Iterator, Sequence, Tuple

import mmcv.transforms
from mmcv.image.io import imread_flags, supported_backends
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.fileio.backends.registry_utils import backends
from mmengine.hooks import CheckpointHook
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import HOOKS, METRICS, MODELS, TRANSFORMS

from mmseg_inceptionnext.models import MetaNeXt
from mmseg_inceptionnext.models.segmentors.modes import is_whole
from mmseg_inceptionnext.parts import class_of, is_a, numbered

from .parts import Part
from .signatures import accepted

NEVER_NONE = ('iou_metrics', 'batch_size', 'data_preprocessor', 'loss_weight', 'ignore_index', 'frozen_stages',
              'checkpoint')  # elsewhere None means: not set
Rule = Tuple[str, Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_pattern(value: Any) -> bool:
    try:
        return bool(value.format(1))
    except (AttributeError, IndexError, KeyError, ValueError):
        return False


def _is_text(value: Any) -> bool:
    return all(isinstance(one, str) and one for one in (value if isinstance(value, (list, tuple)) else [value]))


def _are_finite(value: Any, above: float = -math.inf) -> bool:
    return not isinstance(value, (list, tuple)) or all(
        above < one < math.inf for one in value if isinstance(one, (int, float)))


def _are_intervals(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_count(pair[1]) and isinstance(pair[0], int)
        for pair in value)


def rules_of_sections(cfg: Config, splits: Sequence[str]) -> Iterator[Rule]:
    """What the sections of a config may be: name, whether a value is allowed, and which are."""
    def is_section(value: Any) -> bool:
        return not isinstance(value, (str, int, float, list, tuple))
    for loop in ('train_cfg', 'val_cfg', 'test_cfg'):
        yield loop, is_section, 'dict(...), or None'
    for split in splits:
        yield f'{split}_dataloader.sampler', is_section, 'dict(type=...)'
        yield f'{split}_dataloader.num_batch_per_epoch', _is_count, 'a whole number from 1'
        if split != 'train' and cfg[f'{split}_dataloader'].get('batch_size', 1) != 1:
            yield f'{split}_dataloader.drop_last', lambda drops: not drops, (
                'False, as an evaluation must see each image, those of the last batch, too')
    yield 'log_processor.window_size', _is_count, 'a whole number from 1'
    yield ('train_cfg.dynamic_intervals', _are_intervals, 'a list of pairs, the iteration from which an interval '
           'between validations holds, and that interval')
    if is_a(cfg.model.get('backbone'), MODELS, MetaNeXt):
        yield 'model.backbone.frozen_stages', lambda stages: is_whole(stages, -1), 'a whole number from -1, nothing'
        yield 'model.backbone.init_cfg', lambda given: not isinstance(given, str), (
            "dict(type='Pretrained', checkpoint=FILE)")
        yield 'model.backbone.init_cfg.checkpoint', lambda source: isinstance(source, (str, os.PathLike)), (
            'a path, or a name of published weights')
        yield 'model.backbone.token_mixer', lambda mixer: isinstance(mixer, dict), 'dict(type=...)'
    if is_a(cfg.model, MODELS, EncoderDecoder):
        yield ('model.data_preprocessor', lambda value: value is not None and is_section(value),
               "dict(type='SegDataPreProcessor', ...)")
    if is_a(cfg.model.get('data_preprocessor'), MODELS, SegDataPreProcessor):
        yield 'model.data_preprocessor.mean', _are_finite, 'finite numbers'
        yield 'model.data_preprocessor.std', lambda std: _are_finite(std, 0), 'finite numbers above 0'
    heads = [pair for key in ('decode_head', 'auxiliary_head') for pair in numbered(f'model.{key}', cfg.model.get(key))]
    for name, head in [(name, head) for name, head in heads if isinstance(head, dict)]:
        losses = [loss for _, loss in numbered('', head.get('loss_decode', dict(type=CrossEntropyLoss)))]
        if is_a(head, MODELS, BaseDecodeHead) and any(
                class_of(loss, MODELS) is CrossEntropyLoss and not loss.get('use_sigmoid') and not loss.get('use_mask')
                for loss in losses if isinstance(loss, dict)):
            yield f'{name}.ignore_index', lambda index: isinstance(index, int), (
                'a whole number, the value of pixels that count for nothing, in MMSegmentation 255')
        yield (f'{name}.dropout_ratio',
               lambda ratio: isinstance(ratio, (int, float)) and (0 <= ratio <= 1 or ratio == -1),
               'a number from 0 to 1, or -1 for none')
        yield f'{name}.loss_decode', lambda given: given not in ([], ()), 'dict(type=...), or a list of such'


def rules_of_part(part: Part) -> Iterator[Rule]:
    """What the settings of one part may be, if it is of a class of the libraries."""
    name, settings = part.name, part.settings
    if part.registry is HOOKS and is_a(settings, HOOKS, CheckpointHook):
        yield f'{name}.save_best', _is_text, "a name such as 'mIoU', a list of them, or None"
        yield f'{name}.out_dir', lambda path: isinstance(path, (str, os.PathLike)), 'the path of a folder'
        yield f'{name}.filename_tmpl', _is_pattern, "a name with one place for the number, such as 'iter_{}.pth'"
        yield (f'{name}.backend_args', lambda given: isinstance(given, dict) and given.get(
            'backend', 'local') in backends, f'dict(backend=...) with one of {", ".join(sorted(backends))}')
    elif part.registry is METRICS and is_a(settings, METRICS, BaseMetric):
        yield f'{name}.collect_device', lambda device: device in ('cpu', 'gpu', 'npu'), "'cpu', 'gpu' or 'npu'"
    elif part.registry is TRANSFORMS and is_a(settings, TRANSFORMS, mmcv.transforms.LoadImageFromFile,
                                              mmcv.transforms.LoadAnnotations):
        yield (f'{name}.imdecode_backend', lambda backend: backend in supported_backends,
               f'one of {", ".join(map(repr, supported_backends))}, or None')
        yield f'{name}.color_type', lambda kind: kind in imread_flags, f'one of {", ".join(imread_flags)}'
    elif part.registry is MODELS and '.loss_decode' in name:
        known = accepted(class_of(settings, MODELS)).names
        yield (f'{name}.loss_weight', lambda weight: isinstance(weight, (int, float)) and weight >= 0,
               'a number from 0')
        yield f'{name}.loss_name', lambda given: isinstance(given, str) and 'loss' in given, (
            "a name that holds 'loss', such as 'loss_ce': only those are summed to the loss")
        for key, one in known.items():
            if isinstance(one.default, bool) and one.annotation in (bool, inspect.Parameter.empty):
                yield f'{name}.{key}', lambda value: not isinstance(value, str), 'True or False'
    elif 'times' in settings:
        yield f'{name}.times', _is_count, 'a whole number from 1'
