"""Test protocols: which views of an image are averaged. The same weights differ by points between them."""
import copy
import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from mmcv.transforms import Resize, TestTimeAug
from mmengine.config import Config
from mmengine.logging import print_log
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS, TRANSFORMS

from mmseg_inceptionnext.datasets.steps import loads_labels, never_packs
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models.segmentors import MemoryEfficientEncoderDecoder, RunningSumTTAModel
from mmseg_inceptionnext.parts import class_of, find_datasets, is_a, type_name

PROTOCOLS = ('ss', 'ms', 'paper')
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
PAPER_SCALE = (2048, 512)
FLIPS = [dict(type='RandomFlip', prob=0., direction='horizontal'),
         dict(type='RandomFlip', prob=1., direction='horizontal')]


class Protocol(NamedTuple):
    """How images were predicted, for a result to state.

    Attributes:
        name: ``ss``, ``ms`` or ``paper``.
        mode: ``whole``, or ``slide`` with its window and stride.
        scales: factors of the original size, a tuple if of each side, or a list of the long and the short side that the
            image is fitted into, or the name of a step of one's own. Empty: the original size.
        flip: whether each scale was predicted mirrored, too.
        alignment: how sizes were made multiples of a number, or ``none``.
        views: number of predictions that were averaged.
    """
    name: str
    mode: str
    scales: List[Any]
    flip: bool
    alignment: str
    views: int

    def __str__(self) -> str:
        scales = ', '.join(f'{scale[0]} x {scale[1]}' if isinstance(scale, list) else f'{scale} x original'
                           if isinstance(scale, tuple) else scale if isinstance(scale, str) else f'{scale:g} x original'
                           for scale in self.scales)
        return (f'{self.name} (mode {self.mode}; scales {scales or "1 x original"}; {"with" if self.flip else "no"} '
                f'flip; alignment {self.alignment}; {self.views} view{"s" * (self.views > 1)} of an image)')


def apply_protocol(cfg: Config, name: str) -> Protocol:
    """Makes a config, which is changed, predict by a protocol; returns what will run.

    - ``ss``: single scale, the config's own test pipeline.
    - ``ms``: the config's ``tta_pipeline``. Those of MMSegmentation 1.x rescale the original image.
    - ``paper``: multi-scale with flip as MMSegmentation 0.x has it, whose numbers the papers report: the original image
      fitted into each of 0.5, 0.75, 1, 1.25, 1.5 and 1.75 times 2048 x 512, each also mirrored, whole images, the
      softmax averaged at the original size.

    A ``ResizeToMultiple`` of the test pipeline is kept in all of them, after the resize.

    Raises:
        ConfigError: if there is no such protocol, or the config cannot serve it.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f'--protocol {name}: allowed are {", ".join(PROTOCOLS)}')
    if name == 'ms':
        if not ('tta_pipeline' in cfg and 'tta_model' in cfg):
            raise ConfigError('--protocol ms (--tta) needs a tta_pipeline and a tta_model in the config: '
                              'configs/_base_ has both, in datasets/ade20k.py and default_runtime.py')
        _check_tta_pipeline(cfg.tta_pipeline)
    (found, first), model = next(find_datasets(cfg, 'test')), cfg.model
    datasets = [dataset for _, dataset in find_datasets(cfg, 'test')]
    if name == 'ss':
        return _describe(name, first.get('pipeline') or [], model, f'{found}.pipeline')
    for dataset, pipeline in zip(datasets, own_pipelines(cfg, f'--protocol {name}')):
        if name == 'paper':
            dataset.pipeline = paper_pipeline(pipeline)
        else:
            aligning = [step for step in pipeline if type_name(step) == 'ResizeToMultiple']
            dataset.pipeline = _with_alignment(cfg.tta_pipeline, aligning)
    if name == 'paper':
        model.test_cfg = dict(model.get('test_cfg') or {}, mode='whole')
    cfg.model = dict(_averaging(cfg.get('tta_model') or dict(type='RunningSumTTAModel'), model), module=model)
    return _describe(name, first.pipeline, model, 'tta_pipeline' if name == 'ms' else f'{found}.pipeline')


def _check_tta_pipeline(pipeline: Any) -> None:
    """Raises a ConfigError unless some step lists views, each of which ends as an input of the network."""
    def are_steps(found: Any) -> bool:
        return isinstance(found, (list, tuple)) and len(found) > 0 and all(isinstance(one, dict) for one in found)
    example = ("[dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[[dict(type='Resize', ...), ...], "
               "..., [dict(type='PackSegInputs')]])]")
    if not are_steps(pipeline) or not any(is_a(step, TRANSFORMS, TestTimeAug) for step in pipeline):
        raise ConfigError(f'tta_pipeline is {pipeline!r:.300}: allowed is a list of steps with TestTimeAug, {example}')
    for step in pipeline:
        views = step.get('transforms')
        if is_a(step, TRANSFORMS, TestTimeAug) and not (
                isinstance(views, (list, tuple)) and views and all(map(are_steps, views))):
            raise ConfigError(f'TestTimeAug of tta_pipeline has transforms={views!r:.300}: allowed is a list of lists '
                              f'of the steps to choose from, none of them empty, as in {example}')
    if never_packs(pipeline):
        raise ConfigError('tta_pipeline has no PackSegInputs, which makes the input of the network: add '
                          "[dict(type='PackSegInputs')] as the last of the transforms of TestTimeAug")


def _averaging(tta_model: Any, model: dict) -> dict:
    """The config of what averages the views; MMSegmentation's own needs logits, which our segmentor does not keep."""
    kind = class_of(tta_model, MODELS) if isinstance(tta_model, dict) else None
    if not callable(kind):
        raise ConfigError(f"tta_model is {tta_model!r}: allowed is dict(type='RunningSumTTAModel'), or another model "
                          'that averages views')
    if is_a(model, MODELS, MemoryEfficientEncoderDecoder) and not is_a(tta_model, MODELS, RunningSumTTAModel):
        if kind is SegTTAModel:
            print_log('tta_model: RunningSumTTAModel in place of SegTTAModel, with the same predictions, since '
                      f'{type_name(model)} keeps no logits', logger='current')
            return dict(tta_model, type='RunningSumTTAModel')
        model.test_cfg = dict(model.get('test_cfg') or {}, return_logits=True)
    return tta_model


def own_pipelines(cfg: Config, option: str) -> List[List[dict]]:
    """The pipelines of the test set, one of each data set that it joins; ``option`` is what would change them."""
    found, wrapper = dict(find_datasets(cfg, 'test')), cfg.test_dataloader.dataset
    while 'dataset' in wrapper:
        if wrapper.get('pipeline'):
            raise ConfigError(f'{option} changes the pipeline that loads the images, and the test set has another one '
                              f'after it, that of {type_name(wrapper)}: take the data set within it as the test set')
        wrapper = wrapper['dataset']
    for name, dataset in found.items():
        if not dataset.get('pipeline'):
            raise ConfigError(f'{option} changes {name}.pipeline, and there is none; add it in the config')
    return [dataset.pipeline for dataset in found.values()]


def paper_pipeline(pipeline: List[dict]) -> List[dict]:
    """A test pipeline, whose first step loads the image, with the twelve views of MMSegmentation 0.x for its resize."""
    load, *rest = copy.deepcopy(list(pipeline))
    if any(type_name(step) == 'TestTimeAug' for step in rest):
        raise ConfigError('--protocol paper puts its views into a pipeline of one view, and that of the test set has '
                          'TestTimeAug already; take it out of test_dataloader.dataset.pipeline')
    fit = [dict(type='Resize', scale=tuple(int(side * ratio) for side in PAPER_SCALE), keep_ratio=True)
           for ratio in RATIOS]
    aligning = [[step] for step in rest if type_name(step) == 'ResizeToMultiple']
    others = [[step] for step in rest if 'Resize' not in type_name(step) and type_name(step) != 'RandomFlip']
    return [load, dict(type='TestTimeAug', transforms=[fit, *aligning, copy.deepcopy(FLIPS), *others])]


def _with_alignment(pipeline: List[dict], aligning: List[dict]) -> List[dict]:
    """A pipeline with ``TestTimeAug`` in which each view is aligned after its resize, unless it is already."""
    pipeline = copy.deepcopy(list(pipeline))
    for step in pipeline:
        if type_name(step) == 'TestTimeAug' and 'ResizeToMultiple' not in map(type_name, _choices(step)):
            lists = step['transforms']
            place = max((i for i, choices in enumerate(lists, 1) if 'Resize' in type_name(choices[0])), default=0)
            step['transforms'] = [*lists[:place], *([aligner] for aligner in aligning), *lists[place:]]
    return pipeline


def without_labels(pipeline: Sequence) -> list:
    """The pipeline without the steps that load labels, also inside of others, as ``TestTimeAug``."""
    kept = []
    for step in pipeline:
        if isinstance(step, (list, tuple)):  # what TestTimeAug or RandomChoice choose from
            step = without_labels(step)
        elif isinstance(step, dict) and step.get('transforms'):
            step, inner = copy.deepcopy(step), step['transforms']
            step['transforms'] = without_labels(inner if isinstance(inner, (list, tuple)) else [inner])
            step = step if step['transforms'] else None
        else:
            step = None if loads_labels(step) else copy.deepcopy(step)
        if step:
            kept.append(step)
    return kept


def _describe(name: str, pipeline: List[dict], model: dict, source: str) -> Protocol:
    augs = [step for step in pipeline if type_name(step) == 'TestTimeAug']
    steps = [choice for step in pipeline for choice in (_choices(step) if step in augs else [step])]
    views = math.prod(len(choices) for step in augs for choices in step['transforms'])
    resizes = [step for step in steps if 'Resize' in type_name(step) and type_name(step) != 'ResizeToMultiple']
    flip = any(type_name(step) == 'RandomFlip' and step.get('prob') for step in steps)
    return Protocol(name, _mode(model.get('test_cfg') or {}), [_scale(step, source) for step in resizes], flip,
                    _alignment(steps, model), views)


def _scale(resize: dict, source: str) -> Any:
    """A factor, or a tuple of those of both sides; a list of the long and the short side; or the name of the step."""
    scale, factor = resize.get('scale'), resize.get('scale_factor')
    if isinstance(scale, int):
        return [scale, scale]
    if isinstance(scale, (list, tuple)) and len(scale) == 2:
        return list(scale)
    if scale is None and isinstance(factor, (int, float)):
        return factor
    if scale is None and isinstance(factor, (list, tuple)) and len(factor) == 2:
        return tuple(factor)
    if class_of(resize, TRANSFORMS) is not None and not is_a(resize, TRANSFORMS, Resize):
        return type_name(resize)
    raise ConfigError(f'Resize of {source} is {dict(resize)}: allowed are scale=(width, height) in pixels, or '
                      'scale_factor, a number or one for each side')


def _mode(test_cfg: Dict[str, Any]) -> str:
    if test_cfg.get('mode', 'whole') != 'slide':
        return 'whole'
    (height, width), (down, right) = test_cfg['crop_size'], test_cfg['stride']
    return f'slide, windows {height} x {width}, stride {down} x {right}'


def _alignment(steps: List[dict], model: dict) -> str:
    for step in steps:
        if type_name(step) == 'ResizeToMultiple':
            return f'resized to multiples of {step.get("size_divisor", 32)}'
    padding: Optional[dict] = (model.get('data_preprocessor') or {}).get('test_cfg')
    if padding and padding.get('size_divisor'):
        return f'padded to multiples of {padding["size_divisor"]}'
    return 'none'


def _choices(step: dict) -> List[dict]:
    return [choice for choices in step['transforms'] for choice in choices]

