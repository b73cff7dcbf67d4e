"""Images a second of several models, side by side."""
import json
import os.path as osp
import statistics
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.device import get_device
from torch import nn

from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.models.compiled import compile_model

from .accuracy_plot import draw_accuracy
from .compare_stock import randomise
from .machine import machine
from .measure import (
    Kernels,
    alternate,
    check_amp,
    forward_pass,
    isolated,
    kernels_of,
    on_gpu,
    peak_memory,
    prediction,
    train_step,
    warm_up,
)

MODES = ('infer', 'train')
FORMATS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
WARM_UP_SIDE = 64


class Settings(NamedTuple):
    """What is measured.

    Attributes:
        mode: ``infer`` (images in, class maps of their size out; a backbone's maps with ``backbone_only``) or ``train``
            (loss, gradients, optimizer).
        shape: height and width of the images, in pixels.
        batch_size: images of one call, halved for a model until it fits.
        memory_format: ``nchw``, ``nhwc``, or ``best`` for the faster of both, as the paper reports.
        backbone_only: leave neck and heads out.
        amp: ``fp32``, or autocast to ``fp16`` or ``bf16``.
        compile: run backbone, neck and heads through torch.compile.
        fused: fold norms into convolutions first, for ``infer``.
    """
    mode: str = 'infer'
    shape: Tuple[int, int] = (512, 512)
    batch_size: int = 1
    memory_format: str = 'best'
    backbone_only: bool = False
    amp: str = 'fp32'
    compile: bool = False
    fused: bool = False


class Throughput(NamedTuple):
    """One model in one mode.

    Attributes:
        config: of the model.
        mode: one of :data:`MODES`.
        memory_format: one of :data:`FORMATS`.
        batch_size: images of one call.
        times: seconds of each call.
        kernels: of one call, and the seconds that they take; on a GPU only.
        memory: the peak in bytes above the weights.
    """
    config: str
    mode: str
    memory_format: str
    batch_size: int
    times: List[float]
    kernels: Optional[Kernels] = None
    memory: Optional[int] = None

    @property
    def images_per_second(self) -> float:
        return self.batch_size / statistics.median(self.times)


def measure_throughput(configs: Sequence[str], settings: Settings, runs: int = 7, with_memory: bool = True
                       ) -> List[Throughput]:
    """Measures models in turn in one process, and the peak memory of each in a process of its own.

    Weights are random, and nothing is downloaded. On a GPU all share this process, and the peak is that of a model that
    is alone on the GPU.

    Args:
        configs: config files; the first is what the others are compared with.
        settings: what is measured.
        runs: calls of each that are timed, after those to warm up.
        with_memory: measure the memory too.

    Returns:
        One for each config, of its faster memory format.

    Raises:
        ConfigError: if a config is missing, its model cannot be built, or not even one image fits into memory.
        ValueError: if the device cannot autocast to ``settings.amp``.
    """
    check_amp(settings.amp)
    results = [_faster(found) for found in _time(configs, settings, runs)]
    if not with_memory:
        return results
    return [result._replace(memory=isolated(
        'throughput:_peak_memory', result.config, settings._replace(batch_size=result.batch_size),
        result.memory_format, returns_memory=True)) for result in results]


def _time(configs: Sequence[str], settings: Settings, runs: int) -> List[List[Throughput]]:
    """Each config in each memory format. No model is left when it ends."""
    formats = list(FORMATS) if settings.memory_format == 'best' else [settings.memory_format]
    calls, batches = {}, {}
    for config in configs:
        for name in formats:
            batches[config, name], calls[config, name] = _fitting_call(config, settings, name)
    times = alternate(calls, runs)
    return [[Throughput(config, settings.mode, name, batches[config, name], times[config, name],
                        kernels_of(calls[config, name])) for name in formats] for config in configs]


def _faster(found: Sequence[Throughput]) -> Throughput:
    return max(found, key=lambda result: result.images_per_second)


def _fitting_call(config: str, settings: Settings, memory_format: str) -> Tuple[int, Callable[[], object]]:
    """The largest batch that fits, and its call."""
    model = _build(config, settings, memory_format)
    batch = settings.batch_size
    while True:
        try:
            call = _call(model, settings, memory_format, (batch, *settings.shape))
            call()
            return batch, call
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        if batch == 1:
            height, width = settings.shape
            raise ConfigError(f'{config} does not fit into memory at {height} x {width} (H x W), not even one image: '
                              'give a smaller --shape')
        batch //= 2


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


def _build(config: str, settings: Settings, memory_format: str) -> nn.Module:
    torch.manual_seed(0)
    model = randomise(build_model(load_config(config), config)).to(get_device())
    if settings.fused and settings.mode == 'infer':
        model = fuse(model.eval(), inplace=True)
    if settings.backbone_only:
        model = model.backbone
    model.train(settings.mode == 'train')
    model = model.to(memory_format=FORMATS[memory_format])
    return compile_model(model) if settings.compile else model


def _call(model: nn.Module, settings: Settings, memory_format: str, shape: Tuple[int, int, int]
          ) -> Callable[[], object]:
    batch, height, width = shape
    inputs = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(next(model.parameters()).device, memory_format=FORMATS[memory_format])
    if settings.mode == 'train':
        return train_step(model, inputs, settings.amp)
    if settings.backbone_only:
        return forward_pass(model, inputs, settings.amp)
    return prediction(model, inputs, (height, width), settings.amp)


def _peak_memory(config: str, settings: Sequence, memory_format: str) -> int:
    """Bytes that a call takes at most, above the weights."""
    settings = Settings(*settings)
    model = _build(config, settings, memory_format)
    call = _call(model, settings, memory_format, (settings.batch_size, *settings.shape))
    # The libraries' own code and buffers are not the call's. cuDNN and torch.compile are warm for one shape only.
    one_shape = on_gpu() or settings.compile
    warm_up(call if one_shape else _call(model, settings, memory_format, (2, WARM_UP_SIDE, WARM_UP_SIDE)))
    return peak_memory(call, model)


def to_json(results: Sequence[Throughput], settings: Settings, path: str) -> None:
    """Writes every single measurement."""
    found = [dict(result._asdict(), kernels=result.kernels and result.kernels._asdict()) for result in results]
    with open(path, 'w') as file:
        json.dump(dict(machine=machine([settings.amp]), settings=settings._asdict(), results=found), file, indent=2)


def plot(results: Sequence[Throughput], accuracy: Dict[str, float], settings: Settings, path: str) -> None:
    """Draws the paper's accuracy against the measured throughput, as its figure 1 does.

    Args:
        results: what was measured, in one mode.
        accuracy: by config, mIoU or a backbone's top-1; configs that are not in it are left out.
        settings: what was measured.
        path: the picture to write; its suffix says which kind.
    """
    families: Dict[str, List[Tuple[str, float, float]]] = {}
    for result in results:
        if result.config in accuracy:
            family, _, size = model_name(result.config, settings.backbone_only).rpartition('_')
            families.setdefault(family, []).append((size.upper(), result.images_per_second, accuracy[result.config]))
    measure = 'ImageNet-1K top-1 (%)' if settings.backbone_only else 'ADE20K mIoU (%)'
    draw_accuracy(families, results[0].mode, measure, machine([settings.amp]), path)


def model_name(config: str, backbone_only: bool = False) -> str:
    """``upernet_inceptionnext_t``, or ``inceptionnext_t``, for ``configs/upernet_inceptionnext_t_ade20k.py``."""
    name = osp.splitext(osp.basename(config))[0].rpartition('_')[0]
    return name.partition('_')[2] if backbone_only else name
