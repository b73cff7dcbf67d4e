"""The paper's table 4 and figure 1 measured: images a second of ImageNet classifiers, side by side."""
import difflib
import json
import statistics
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from mmengine.device import get_device

from mmseg_inceptionnext.errors import InputError

from .accuracy_plot import draw_accuracy
from .machine import machine
from .measure import Kernels, alternate, check_amp, classifier_step, empty_gpu, forward_pass, kernels_of
from .paper import TABLE_4
from .throughput import FORMATS

BASELINE = 'inception_next_tiny'
DEFAULT = (BASELINE, 'convnext_tiny', 'resnet50', 'swin_tiny_patch4_window7_224')
SIDE = 224


class Settings(NamedTuple):
    """What is measured.

    Attributes:
        mode: ``infer`` (images in, logits out) or ``train`` (cross-entropy on random labels, gradients, AdamW).
        batch_size: images of one call, of 224 x 224 pixels.
        memory_format: ``nchw``, ``nhwc``, ``both``, or ``best`` for the faster of both, as the paper reports.
        amp: ``fp32``, or autocast to ``fp16`` or ``bf16``.
        compile: measure each model through torch.compile too.
    """
    mode: str = 'infer'
    batch_size: int = 128
    memory_format: str = 'both'
    amp: str = 'fp32'
    compile: bool = False


class Result(NamedTuple):
    """One classifier in one memory format.

    Attributes:
        name: timm's.
        compiled: whether it ran through torch.compile.
        memory_format: ``nchw`` or ``nhwc``.
        settings: what was measured.
        times: seconds of each call.
        kernels: of one call, and the seconds that they take; on a GPU only.
    """
    name: str
    compiled: bool
    memory_format: str
    settings: Settings
    times: List[float]
    kernels: Optional[Kernels] = None

    @property
    def images_per_second(self) -> float:
        return self.settings.batch_size / statistics.median(self.times)

    @property
    def published(self) -> Optional[int]:
        """The paper's images a second in this mode, on an A100; None for a classifier that it does not have."""
        return getattr(TABLE_4[self.name], self.settings.mode) if self.name in TABLE_4 else None


def classifier_names(names: Sequence[str]) -> List[str]:
    """The classifiers that are meant: those named, four families' if none is, the paper's ten for ``all``.

    Raises:
        ValueError: if timm has no such classifier, or one is named twice.
    """
    if list(names) == ['all']:
        return list(TABLE_4)
    for name in names:
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise InputError(f'timm {timm.__version__} has no classifier {name!r}; allowed are its names, such as '
                             f'{", ".join(close or DEFAULT)}, or all alone for those of the paper')
    if len(set(names)) < len(names):
        raise InputError(f'--classifiers {" ".join(names)}: give each once')
    return list(names or DEFAULT)


def measure_classifiers(names: Sequence[str], settings: Settings, runs: int = 7) -> List[Result]:
    """Measures timm's classifiers in turn in this process; weights are random, and nothing is downloaded.

    Args:
        names: timm's names.
        settings: what is measured.
        runs: calls of each that are timed, after those to warm up.

    Returns:
        For each classifier its memory formats, or the faster one, as it is and compiled.

    Raises:
        ValueError: if the device cannot autocast to ``settings.amp``.
    """
    check_amp(settings.amp)
    empty_gpu()
    formats = [settings.memory_format] if settings.memory_format in FORMATS else list(FORMATS)
    variants = [(name, compiled, memory_format) for name in names
                for compiled in ((False, True) if settings.compile else (False, )) for memory_format in formats]
    calls = {variant: _call(*variant, settings) for variant in variants}
    times = alternate(calls, runs)
    results = [Result(*variant, settings, times[variant], kernels_of(calls[variant])) for variant in variants]
    if settings.memory_format != 'best':
        return results
    return [max(pair, key=lambda result: result.images_per_second) for pair in zip(results[::2], results[1::2])]


def _call(name: str, compiled: bool, memory_format: str, settings: Settings) -> Callable[[], object]:
    torch.manual_seed(0)
    model = timm.create_model(name).to(get_device(), memory_format=FORMATS[memory_format])
    model.train(settings.mode == 'train')
    inputs = torch.randn(settings.batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(get_device(), memory_format=FORMATS[memory_format])
    if compiled:
        model = torch.compile(model)
    return (classifier_step if settings.mode == 'train' else forward_pass)(model, inputs, settings.amp)


def baseline_of(result: Result, results: Sequence[Result]) -> Result:
    """What a result is compared with: InceptionNeXt-T, or else the first classifier, run in the same way."""
    name = BASELINE if any(other.name == BASELINE for other in results) else results[0].name
    best = result.settings.memory_format == 'best'
    return next(other for other in results if other.name == name and other.compiled == result.compiled
                and other.settings == result.settings and (best or other.memory_format == result.memory_format))


def to_json(results: Sequence[Result], path: str) -> None:
    """Writes every single measurement."""
    amps = list(dict.fromkeys(result.settings.amp for result in results))
    content = [dict(result._asdict(), settings=result.settings._asdict(),
                    kernels=result.kernels and result.kernels._asdict()) for result in results]
    with open(path, 'w') as file:
        json.dump(dict(machine=machine(amps), results=content), file, indent=2)


def plot(results: Sequence[Result], path: str) -> None:
    """Draws the paper's accuracy against the measured throughput of its classifiers, as its figure 1 does.

    Args:
        results: of one mode and precision; the fastest of each classifier counts.
        path: the picture to write; its suffix says which kind.

    Raises:
        ValueError: if the paper has none of the classifiers.
    """
    speeds: Dict[str, float] = {}
    for result in results:
        speeds[result.name] = max(speeds.get(result.name, 0.), result.images_per_second)
    families: Dict[str, List[Tuple[str, float, float]]] = {}
    for name, speed in speeds.items():
        if name in TABLE_4:
            family, _, size = TABLE_4[name].name.rpartition('-')
            families.setdefault(family, []).append((size, speed, TABLE_4[name].top1))
    if not families:
        raise InputError(f'--plot: the paper has no accuracy of {", ".join(speeds)}; allowed are {", ".join(TABLE_4)}')
    settings = results[0].settings
    draw_accuracy(families, settings.mode, 'ImageNet-1K top-1 (%)', machine([settings.amp]), path)
