"""What a benchmark compares: how its models are built, what they are given, and the calls that are timed."""
import copy
import difflib
import os.path as osp
from functools import lru_cache
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.models.compiled import compile_model
from mmseg_inceptionnext.models.fuse import cast_convolutions

from .measure import PRECISIONS, autocast
from .paper import TABLE_4
from .stock import build_pair, randomise, timm_model_cfg

FORMATS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
BASELINE = 'inception_next_tiny'
CLASSIFIERS = (BASELINE, 'convnext_tiny', 'resnet50', 'swin_tiny_patch4_window7_224')
SLIDE = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


class Settings(NamedTuple):
    """What the models of a comparison are given.

    The mode is ``train`` (loss, gradients, AdamW), ``predict`` or ``infer`` (images in; class maps out, of a backbone
    its maps, of a classifier its logits), ``slide`` (the same in windows) or ``backbone``.
    """
    mode: str = 'infer'
    batch_size: int = 1
    shape: Tuple[int, int] = (512, 512)  # height and width of the images, in pixels
    size: Optional[Tuple[int, int]] = None  # and of the class maps; None: the same
    amp: str = 'fp32'  # or autocast to fp16 or bf16
    backbone_only: bool = False  # leave neck and heads out


STOCK_SETTINGS = {settings.mode: settings for settings in (
    Settings('predict', size=(512, 683)), Settings('train', batch_size=2), Settings('backbone', backbone_only=True),
    Settings('slide', shape=(1024, 2048)))}


class Variant(NamedTuple):
    """One model of a comparison, with random weights."""
    name: str  # for the table
    source: str  # stock or ours, see build_pair; config; timm; onnx
    path: str  # the config file, or timm's name
    memory_format: str = ''  # one of FORMATS; empty: the model sees to it itself
    fused: bool = False  # fold the norms first, except to train
    compiled: bool = False  # run through torch.compile
    group: str = ''  # models of one group are compared with the first of it


def stock_variants(config: str, mode: str, channels_last: bool = False, compile: bool = False) -> List[Variant]:
    """Stock, perhaps channels-last, and ours in the ways that a mode of :data:`STOCK_SETTINGS` compares.

    Raises:
        ConfigError, InputError: if there is no such config, or timm has no counterpart of its backbone.
    """
    timm_model_cfg(load_config(config).model)  # before any process is started
    pair = [Variant('stock', 'stock', config, 'nhwc' if channels_last else 'nchw'),
            Variant('ours', 'ours', config, fused=True)]
    variants = pair + [pair[1]._replace(name='ours, not fused', fused=False)] * (mode == 'predict')
    variants += [variant._replace(name=f'{variant.name}, compiled', compiled=True) for variant in pair * compile]
    if mode == 'backbone':
        variants.append(Variant('timm ConvNeXt-T', 'timm', 'convnext_tiny', pair[0].memory_format))
    return variants


def config_variants(configs: Sequence[str], memory_format: str = 'best', fused: bool = False, compile: bool = False
                    ) -> List[Variant]:
    """Configs, of which the others are compared with the first, in one of :data:`FORMATS` or each of them."""
    for config in configs:
        load_config(config)  # before any process is started
    return [Variant(osp.splitext(osp.basename(config))[0], 'config', config, each, fused, compile)
            for config in configs for each in FORMATS if memory_format in (each, 'best', 'both')]


def classifier_variants(names: Sequence[str], memory_format: str = 'both', compile: bool = False) -> List[Variant]:
    """timm's classifiers in one of :data:`FORMATS` or each of them, also compiled if asked for.

    Those that run in the same way are compared with InceptionNeXt-T, which comes first, or else with the first. No
    names stand for :data:`CLASSIFIERS`, ``all`` for those of the paper.

    Raises:
        InputError: if timm has no such classifier.
    """
    names = list(TABLE_4) if list(names) == ['all'] else dict.fromkeys(names or CLASSIFIERS)
    for name in names:
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3) or CLASSIFIERS
            raise InputError(f'timm {timm.__version__} has no classifier {name!r}; allowed are its names, such as '
                             f'{", ".join(close)}, or all alone for those of the paper')
    return [Variant(name + ', compiled' * compiled, 'timm', name, each, False, compiled,
                    f'{compiled}{each * (memory_format != "best")}')
            for name in sorted(names, key=lambda name: name != BASELINE)
            for compiled in (False, True)[:1 + compile]
            for each in FORMATS if memory_format in (each, 'best', 'both')]


def build(variant: Variant, settings: Settings) -> nn.Module:
    """The model of a variant, on the device; nothing is downloaded."""
    torch.manual_seed(0)
    if variant.source == 'timm':
        model = timm.create_model(variant.path, features_only=settings.backbone_only or None)
    elif variant.source == 'config':
        model = randomise(build_model(load_config(variant.path), variant.path))
    else:
        model = copy.deepcopy(_pair(variant.path)[variant.source == 'ours'])
    model = model.to(get_device()).train(settings.mode == 'train')
    if variant.fused and settings.mode != 'train':
        model = fuse(model, inplace=True)
        if settings.amp != 'fp32':
            cast_convolutions(model, PRECISIONS[settings.amp])  # as Segmenter does
    if settings.backbone_only:
        model = getattr(model, 'backbone', model)
    if variant.memory_format:
        model = model.to(memory_format=FORMATS[variant.memory_format])
    return compile_model(model) if variant.compiled else model


@lru_cache(maxsize=1)  # building takes longer than copying
def _pair(config: str) -> Tuple[nn.Module, nn.Module]:
    return build_pair(load_config(config).copy())


def call_of(model: nn.Module, variant: Variant, settings: Settings, logits: bool = False) -> Callable[[], object]:
    """What is timed: a call of a model without arguments, on random images; of a segmentor for its ``logits``."""
    inputs = torch.randn(settings.batch_size, 3, *settings.shape, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(get_device(), memory_format=FORMATS[variant.memory_format or 'nchw'])
    if settings.mode == 'train':
        return _training_step(model, inputs, settings.amp)
    function = model
    if hasattr(model, 'decode_head') and not logits:
        if variant.source != 'config':
            model.test_cfg = Config(SLIDE if settings.mode == 'slide' else dict(mode='whole'))
        metainfo = dict(ori_shape=settings.size or settings.shape, img_shape=settings.shape, pad_shape=settings.shape)

        def function(images: Tensor) -> List[SegDataSample]:
            return model.predict(images, [SegDataSample(metainfo=dict(metainfo)) for _ in images])

    def infer() -> object:
        with torch.no_grad(), autocast(inputs.device, settings.amp):
            return function(inputs)

    return infer


def _training_step(model: nn.Module, inputs: Tensor, amp: str) -> Callable[[], None]:
    """Loss under autocast, gradients, AdamW; without the loss scaling of fp16, which takes next to no time.

    A segmentor, or a classifier of 1000 classes, has random labels; of a backbone the loss is the mean of its maps.
    """
    is_segmentor, generator = hasattr(model, 'decode_head'), torch.Generator().manual_seed(1)
    shape = (len(inputs), 1, *inputs.shape[2:]) if is_segmentor else (len(inputs), )
    labels = torch.randint(model.num_classes if is_segmentor else 1000, shape, generator=generator).to(inputs.device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels] if is_segmentor else []

    def loss() -> Tensor:
        if is_segmentor:
            return sum(value for name, value in model.loss(inputs, samples).items() if 'loss' in name)
        outputs = model(inputs)
        if isinstance(outputs, Tensor):
            return F.cross_entropy(outputs, labels)
        return sum(output.float().mean() for output in outputs)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(inputs.device, amp):
            value = loss()
        value.backward()
        optimizer.step()

    return step
