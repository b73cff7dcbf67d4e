"""Images a second of several models, side by side."""
import json
import os.path as osp
import statistics
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from mmseg_inceptionnext.models import fuse

from .compare_stock import randomise
from .config import ConfigError, build_model, load_config
from .measure import alternate, backbone_pass, in_fresh_process, machine, peak_memory, prediction, train_step

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
        amp: autocast to float16 on a GPU, bfloat16 on a CPU.
        compile: run backbone, neck and heads through torch.compile.
        fused: fold norms into convolutions first, for ``infer``.
    """
    mode: str = 'infer'
    shape: Tuple[int, int] = (512, 512)
    batch_size: int = 1
    memory_format: str = 'best'
    backbone_only: bool = False
    amp: bool = False
    compile: bool = False
    fused: bool = False


class Throughput(NamedTuple):
    """One model in one mode: seconds of each call of ``batch_size`` images, and the peak of memory in bytes."""
    config: str
    mode: str
    memory_format: str
    batch_size: int
    times: List[float]
    memory: Optional[int] = None

    @property
    def images_per_second(self) -> float:
        return self.batch_size / statistics.median(self.times)


def measure_throughput(configs: Sequence[str], settings: Settings, runs: int = 7, with_memory: bool = True
                       ) -> List[Throughput]:
    """Measures models in turn in one process, and the peak memory of each in a process of its own.

    Weights are random, and nothing is downloaded.

    Args:
        configs: config files; the first is what the others are compared with.
        settings: what is measured.
        runs: calls of each that are timed, after one to warm up.
        with_memory: measure the memory too.

    Returns:
        One for each config, of its faster memory format.

    Raises:
        ConfigError: if a config is missing, its model cannot be built, or not even one image fits into memory.
    """
    formats = list(FORMATS) if settings.memory_format == 'best' else [settings.memory_format]
    calls, batches = {}, {}
    for config in configs:
        for name in formats:
            batches[config, name], calls[config, name] = _fitting_call(config, settings, name)
    times = alternate(calls, runs)
    results = []
    for config in configs:
        found = [Throughput(config, settings.mode, name, batches[config, name], times[config, name])
                 for name in formats]
        best = max(found, key=lambda result: result.images_per_second)
        if with_memory:
            best = best._replace(memory=in_fresh_process(
                'throughput:_peak_memory', config, settings._replace(batch_size=best.batch_size), best.memory_format,
                returns_memory=True))
        results.append(best)
    return results


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
    model = randomise(revert_sync_batchnorm(build_model(load_config(config), config))).to(get_device())
    if settings.fused and settings.mode == 'infer':
        model = fuse(model.eval(), inplace=True)
    if settings.backbone_only:
        model = model.backbone
    model.train(settings.mode == 'train')
    if settings.compile:
        parts = [model] if settings.backbone_only else model.children()
        for part in parts:
            part.forward = torch.compile(part.forward)
    return model.to(memory_format=FORMATS[memory_format])


def _call(model: nn.Module, settings: Settings, memory_format: str, shape: Tuple[int, int, int]
          ) -> Callable[[], object]:
    batch, height, width = shape
    device = next(model.parameters()).device
    inputs = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(device, memory_format=FORMATS[memory_format])
    call = _plain_call(model, settings, inputs)
    if not settings.amp:
        return call
    dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16
    return torch.autocast(device.type, dtype)(call)


def _plain_call(model: nn.Module, settings: Settings, inputs: Tensor) -> Callable[[], object]:
    if settings.mode == 'train':
        return train_step(model, inputs)
    if settings.backbone_only:
        return backbone_pass(model, inputs)
    return prediction(model, inputs, tuple(inputs.shape[2:]))


def _peak_memory(config: str, settings: list, memory_format: str) -> int:
    """Bytes above the model's own that a call takes at most."""
    settings = Settings(*settings)
    model = _build(config, settings, memory_format)
    _call(model, settings, memory_format, (2, WARM_UP_SIDE, WARM_UP_SIDE))()  # the libraries' own are not the call's
    return peak_memory(_call(model, settings, memory_format, (settings.batch_size, *settings.shape)))


def to_json(results: Sequence[Throughput], settings: Settings, path: str) -> None:
    """Writes every single measurement."""
    content = dict(machine=machine(), settings=settings._asdict(), results=[result._asdict() for result in results])
    with open(path, 'w') as file:
        json.dump(content, file, indent=2)


def plot(results: Sequence[Throughput], accuracy: Dict[str, float], backbone_only: bool, path: str) -> None:
    """Draws the paper's accuracy against the measured throughput, as its figure 1 does.

    Args:
        results: what was measured, in one mode.
        accuracy: by config, mIoU or a backbone's top-1; configs that are not in it are left out.
        backbone_only: whether backbones were measured.
        path: the picture to write; its suffix says which kind.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
    figure = Figure(figsize=(7, 5), layout='constrained')
    axes = figure.add_subplot()
    families: Dict[str, List[Throughput]] = {}
    for result in results:
        if result.config in accuracy:
            families.setdefault(model_name(result.config, backbone_only).rpartition('_')[0], []).append(result)
    for family, members in families.items():
        members = sorted(members, key=lambda result: accuracy[result.config])
        x, y = [m.images_per_second for m in members], [accuracy[m.config] for m in members]
        axes.plot(x, y, 'o-', label=family)
        for member, left, low in zip(members, x, y):
            axes.annotate(model_name(member.config).rpartition('_')[2].upper(), (left, low), (5, 5),
                          textcoords='offset points')
    measure = 'ImageNet-1K top-1 (%)' if backbone_only else 'ADE20K mIoU (%)'
    axes.set(xlabel=f'images / s, {results[0].mode}, measured', ylabel=f"{measure}, the paper's", xscale='log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(machine(), fontsize='small')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def model_name(config: str, backbone_only: bool = False) -> str:
    """``upernet_inceptionnext_t``, or ``inceptionnext_t``, for ``configs/upernet_inceptionnext_t_ade20k.py``."""
    name = osp.splitext(osp.basename(config))[0].rpartition('_')[0]
    return name.partition('_')[2] if backbone_only else name
