"""Models side by side: time, memory, work, and how far stock and ours agree."""
import os.path as osp
import statistics
import tempfile
from functools import partial
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.export.exportable import ExportableSegmentor
from mmseg_inceptionnext.export.onnx_export import trace

from .measure import Kernels, alternate, check_amp, free_at_once, isolated, kernels_of, macs_of, on_gpu, peak_memory
from .stock import build_pair
from .variants import Settings, Variant, build, call_of

THREADS = 2  # of ONNX Runtime


class Row(NamedTuple):
    """What was measured of one model; None for what was not."""
    variant: Variant
    settings: Settings
    times: List[float]  # seconds of each call
    macs: Optional[int] = None  # multiply-accumulates of a call
    kernels: Optional[Kernels] = None  # of a call; on a GPU only
    memory: Optional[int] = None  # the peak in bytes above the weights

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def compare(variants: Sequence[Variant], settings: Settings, runs: int = 7, with_memory: bool = True,
            best_format: bool = False) -> Tuple[List[Row], str]:
    """Measures models in turn: their rows, and how far the outputs of stock and ours agree.

    All take turns in one new process, so that what ran before leaves no trace in the memory allocator; the peak memory
    of each is that of a process of its own. On a GPU all share this process, where a model is alone then.

    Args:
        variants, settings: what is compared, and what they are given.
        runs: calls of each that are timed, after those to warm up.
        with_memory: measure the memory too.
        best_format: of the variants of one name keep the fastest, as the paper reports.

    Raises:
        ConfigError: if a config is missing or its model cannot be built.
        InputError: if the device cannot autocast to ``settings.amp``, or the GPU has too little memory.
    """
    check_amp(settings.amp)
    try:
        rows, agreement = isolated(measure_times, variants, settings, runs)
        if best_format:
            rows = [min((row for row in rows if row.variant.name == name), key=lambda row: row.median)
                    for name in dict.fromkeys(variant.name for variant in variants)]
        if with_memory:
            rows = [row._replace(memory=isolated(measure_memory, row.variant, settings)) for row in rows]
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(f'batch {settings.batch_size} of {settings.shape[0]} x {settings.shape[1]} (H x W) does not '
                         f'fit into the memory of the GPU: give a smaller --batch-size or --shape. {error}') from error
    return rows, agreement


def baseline_of(row: Row, rows: Sequence[Row]) -> Row:
    """What a row is compared with: the first one of its group with the same settings."""
    return next(other for other in rows if (other.settings, other.variant.group) == (row.settings, row.variant.group))


def measure_times(variants: Sequence[Variant], settings: Settings, runs: int) -> Tuple[List[Row], str]:
    """:func:`compare` in this process, without the memory."""
    models = {variant: build(variant, settings) for variant in variants}
    calls = {variant: call_of(model, variant, settings) for variant, model in models.items()}
    times = alternate(calls, runs)
    is_stock = variants[0].source == 'stock'
    # PyTorch's counter does not see into what it compiled.
    rows = [Row(variant, settings, times[variant], macs_of(call) if is_stock and not variant.compiled else None,
                kernels_of(call)) for variant, call in calls.items()]
    if not is_stock or settings.mode == 'train':
        return rows, ''
    pair = [(models[variant], variant, settings) for variant in variants[:2]]
    stock, ours = (call_of(*each)() for each in pair)
    if settings.backbone_only:
        return rows, f'largest relative error {max(map(_relative_error, stock, ours)):.1e}'
    equal = [(a.pred_sem_seg.data == b.pred_sem_seg.data).double().mean().item() for a, b in zip(stock, ours)]
    agreement = f'{100 * statistics.mean(equal):.4f} % equal classes'
    if settings.mode == 'predict':
        error = _relative_error(*(call_of(*each, logits=True)() for each in pair))
        agreement += f', largest relative logit error {error:.1e}'
    return rows, agreement


def _relative_error(x: Tensor, y: Tensor) -> float:
    return ((x.float() - y.float()).abs().max() / x.float().abs().max()).item()


def measure_memory(variant: Variant, settings: Settings) -> int:
    """Bytes that a call takes at most, above the weights, in this process."""
    if not on_gpu():
        free_at_once()
    model = build(variant, settings)
    call = warm_up = call_of(model, variant, settings)
    if not (on_gpu() or variant.compiled):  # cuDNN and torch.compile are warm for one shape only
        warm_up = call_of(model, variant, settings._replace(batch_size=2, shape=(64, 64), size=None))
    return peak_memory(call, warm_up, model)


def compare_onnx(config: str, shape: Tuple[int, int], runs: int = 7) -> Tuple[List[Row], str]:
    """Exports the same random weights twice, for images of one shape, and runs both files in turn in ONNX Runtime.

    Stock is MMSegmentation's segmentor over timm's backbone, as it is traced; ours is fused.

    Raises:
        ConfigError, InputError: if the config cannot be compared or exported, or ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"--onnx needs onnx and onnxruntime ({error}): pip install onnx onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    image = np.random.default_rng(0).integers(0, 256, (1, 3, *shape), np.uint8)
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in zip(('stock', 'ours'), build_pair(load_config(config).copy())):
            path = osp.join(folder, f'{name}.onnx')
            trace(ExportableSegmentor(model, fused=name == 'ours').eval(), path, shape)
            session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
            calls[name] = partial(session.run, None, dict(image=image))
    error = _relative_error(*(torch.from_numpy(call()[0]) for call in calls.values()))
    settings = Settings(f'ONNX Runtime on {THREADS} threads', shape=shape)
    rows = [Row(Variant(name, 'onnx', config), settings, times) for name, times in alternate(calls, runs).items()]
    return rows, f'largest relative logit error {error:.1e}'
