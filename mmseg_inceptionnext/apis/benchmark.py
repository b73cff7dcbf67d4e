"""Ours against the stock way, with the same weights: agreement, time, memory."""
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import timm
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.models import fuse

from .config import load_config
from .stock import copy_weights, timm_model_cfg

MODES = ('predict', 'train', 'backbone', 'slide')
SLIDE = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


class Case(NamedTuple):
    """What one mode feeds and measures.

    Attributes:
        shape: of the input, (N, C, H, W).
        original: size of the class map.
        description: for the table.
    """
    shape: Tuple[int, int, int, int]
    original: Tuple[int, int]
    description: str


CASES = dict(
    predict=Case((1, 3, 512, 512), (512, 683), 'predict, 512 x 512 in, 512 x 683 out'),
    train=Case((2, 3, 512, 512), (512, 512), 'train step, batch 2, crop 512'),
    backbone=Case((1, 3, 512, 512), (512, 512), 'backbone, 512 x 512'),
    slide=Case((1, 3, 1024, 2048), (1024, 2048), 'slide, 1024 x 2048, window 512, stride 341'))
WARM_UP = Case((2, 3, 64, 64), (64, 64), '')


def build_pair(cfg: Config, seed: int = 0) -> Tuple[nn.Module, nn.Module]:
    """The stock model and ours with the same weights, all of them random, BatchNorm statistics and ``gamma`` too.

    Ours has no output norms here, since timm's backbone has none; nothing is dropped at random.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model_cfg = cfg.model
    model_cfg.backbone.update(out_norm_cfg=None, init_cfg=None, drop_path_rate=0.)
    for head in [model_cfg.decode_head, *([model_cfg.auxiliary_head] if 'auxiliary_head' in model_cfg else [])]:
        head.dropout_ratio = 0
    torch.manual_seed(seed)
    stock = randomise(revert_sync_batchnorm(MODELS.build(timm_model_cfg(model_cfg))))
    ours = revert_sync_batchnorm(MODELS.build(model_cfg))
    copy_weights(stock, ours)
    return stock, ours


def randomise(model: nn.Module) -> nn.Module:
    """Gives every parameter and BatchNorm statistic a value that no shortcut could survive."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel()**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.uniform_(parameter, 0.3, 1)
    return model


def function_of(mode: str, model: nn.Module, case: Case) -> Callable[[], object]:
    """What is timed: a call without arguments."""
    inputs = torch.randn(case.shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).device)
    if mode == 'train':
        return _train_step(model, inputs)
    metainfo = dict(ori_shape=case.original, img_shape=case.shape[2:], pad_shape=case.shape[2:])
    if mode == 'backbone':
        return torch.no_grad()(lambda: (model if not hasattr(model, 'backbone') else model.backbone)(inputs))
    model.test_cfg = Config(SLIDE if mode == 'slide' else dict(mode='whole'))
    return torch.no_grad()(lambda: model.predict(inputs, [SegDataSample(metainfo=dict(metainfo)) for _ in inputs]))


def _train_step(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(1)
    samples = []
    for image in inputs:
        labels = torch.randint(model.num_classes, (1, *image.shape[1:]), generator=generator)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels.to(inputs.device))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = model.loss(inputs, samples)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()

    return step


def alternate(functions: Dict[str, Callable[[], object]], runs: int) -> Dict[str, List[float]]:
    """Seconds of each function, run in turn after one run to warm up."""
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for i in range(runs + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                times[name].append(time.perf_counter() - start)
    return times


def agreement(stock: nn.Module, ours: nn.Module, mode: str, case: Case) -> str:
    """How far the outputs are apart."""
    if mode == 'train':
        return ''
    a, b = (function_of(mode, model, case)() for model in (stock, ours))
    if mode == 'backbone':
        return f'largest relative error {max(_relative_error(x, y) for x, y in zip(a, b)):.1e}'
    equal = (a[0].pred_sem_seg.data == b[0].pred_sem_seg.data).double().mean().item()
    text = f'{100 * equal:.4f} % equal classes'
    if mode == 'predict':
        inputs = torch.randn(case.shape, generator=torch.Generator().manual_seed(0)).to(next(ours.parameters()).device)
        with torch.no_grad():
            text += f', largest relative logit error {_relative_error(stock(inputs), ours(inputs)):.1e}'
    return text


def _relative_error(x: Tensor, y: Tensor) -> float:
    return ((x - y).abs().max() / x.abs().max()).item()


def macs_of(function: Callable[[], object]) -> int:
    """Multiply-accumulates by PyTorch's own counter: convolutions and matrix products, backward passes too."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops() // 2


def build_variants(config: str, mode: str) -> Dict[str, nn.Module]:
    """The models that a mode compares, by the names of the table's columns; stock first."""
    stock, ours = build_pair(load_config(config).copy())
    device = get_device()
    if mode == 'train':
        return dict(stock=stock.to(device).train(), ours=ours.to(device).train())
    ours = fuse(ours.to(device).eval(), inplace=True)
    models = dict(stock=stock.to(device).eval(), ours=ours)
    if mode == 'backbone':
        torch.manual_seed(0)
        models['timm ConvNeXt-T'] = timm.create_model('convnext_tiny', features_only=True).to(device).eval()
    return models


class Row(NamedTuple):
    """One line of the comparison: times in seconds, memory in bytes above the model's own, MACs of one call."""
    mode: str
    name: str
    times: List[float]
    macs: int
    memory: Optional[int] = None


def compare_with_stock(config: str, mode: str, runs: int, with_memory: bool = True) -> Tuple[List[Row], str]:
    """Measures one mode: the rows, the stock one first, and how far the outputs agree.

    All runs take place in one fresh process, in turn, so that what ran before leaves no trace in the memory allocator;
    the peak memory of each model in a process of its own.

    Raises:
        ConfigError: if there is no such config.
        ValueError: if timm has no counterpart of its backbone.
    """
    timm_model_cfg(load_config(config).model)  # before any process is started
    rows, agree = _in_fresh_process('_compare', config, mode, runs)
    rows = [Row(*row) for row in rows]
    if with_memory:
        rows = [row._replace(memory=_in_fresh_process('_peak_memory', config, mode, row.name)) for row in rows]
    return rows, agree


def _in_fresh_process(function: str, *args):
    """Calls a function of this module in a new process; what it takes and returns is data for JSON.

    Where memory is measured, glibc is told to give freed memory back at once; what it would keep differs between runs.
    """
    env = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': str(2**20), 'MALLOC_TRIM_THRESHOLD_': str(2**20)}
    command = [sys.executable, '-m', 'mmseg_inceptionnext.apis.benchmark', function, json.dumps(args)]
    result = subprocess.run(
        command, capture_output=True, text=True, env=env if function == '_peak_memory' else None)
    if result.returncode:
        raise RuntimeError(f'{function} failed in a process of its own:\n{result.stderr[-2000:]}')
    return json.loads(result.stdout.splitlines()[-1])


def _compare(config: str, mode: str, runs: int) -> Tuple[List[Row], str]:
    models = build_variants(config, mode)
    case = CASES[mode]
    functions = {name: function_of(mode, model, case) for name, model in models.items()}
    times = alternate(functions, runs)
    rows = [Row(mode, name, times[name], macs_of(function)) for name, function in functions.items()]
    return rows, agreement(models['stock'], models['ours'], mode, case)


def _peak_memory(config: str, mode: str, name: str) -> int:
    """Bytes above the model's own that a call takes at most."""
    model = build_variants(config, mode)[name]
    function_of(mode, model, WARM_UP)()  # the libraries' own code and buffers are not the call's
    function = function_of(mode, model, CASES[mode])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    before = _reset_peak()
    function()
    return _status('VmHWM') - before


def _reset_peak() -> int:
    """Starts to look for this process's peak of memory anew; returns what it holds now, in bytes. For Linux."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what building the model left behind would hide what the call takes
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')
    return _status('VmRSS')


def _status(key: str) -> int:
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def scaling(config: str, sides: Tuple[int, ...] = (256, 512, 1024, 1536), runs: int = 3) -> List[Tuple[int, float]]:
    """Seconds of our prediction for each million pixels, for square images: (side, seconds)."""
    return _in_fresh_process('_scaling', config, sides, runs)


def _scaling(config: str, sides: List[int], runs: int) -> List[Tuple[int, float]]:
    ours = build_variants(config, 'predict')['ours']
    functions = {side: function_of('predict', ours, Case((1, 3, side, side), (side, side), '')) for side in sides}
    return [(side, statistics.median(values) / side**2 * 1e6)
            for side, values in alternate(functions, runs).items()]


def peaks() -> Tuple[float, float]:
    """GMAC/s of this machine in float32, by a matrix product and by a 1x1 convolution: they use different libraries."""
    return _in_fresh_process('_peaks')


def _peaks(runs: int = 5) -> Tuple[float, float]:
    device = get_device()
    a = torch.randn(2048, 2048, device=device)
    image = torch.randn(1, 512, 64, 64, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2048, 512, 1, 1, device=device)
    times = alternate(dict(product=lambda: a @ a, conv=lambda: nn.functional.conv2d(image, weight)), runs)
    product, conv = (statistics.median(times[name]) for name in ('product', 'conv'))
    return 2048**3 / product / 1e9, 4096 * 512 * 2048 / conv / 1e9


def machine() -> str:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
    return f'{device}, {platform.machine()}, float32, torch {torch.__version__}, timm {timm.__version__}'


def to_json(rows: List[Row], path: str) -> None:
    """Writes every single measurement."""
    with open(path, 'w') as file:
        json.dump(dict(machine=machine(), rows=[row._asdict() for row in rows]), file, indent=2)


if __name__ == '__main__':
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
