"""Time, peak memory and multiply-accumulates of calls, and what the machine can do."""
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import import_module
from typing import Callable, Dict, List, Tuple

import timm
import torch
from mmengine.device import get_device
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def prediction(model: nn.Module, inputs: Tensor, size: Tuple[int, int]) -> Callable[[], object]:
    """A call of a segmentor: images in, class maps of ``size`` (H, W) out."""
    metainfo = dict(ori_shape=size, img_shape=inputs.shape[2:], pad_shape=inputs.shape[2:])
    return torch.no_grad()(lambda: model.predict(inputs, [SegDataSample(metainfo=dict(metainfo)) for _ in inputs]))


def backbone_pass(backbone: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """A call of a backbone: images in, maps out."""
    return torch.no_grad()(lambda: backbone(inputs))


def train_step(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """A call that trains a segmentor, or a backbone on the mean of its maps: loss, gradients, AdamW."""
    generator = torch.Generator().manual_seed(1)
    samples = []
    for image in inputs:
        labels = torch.randint(getattr(model, 'num_classes', 1), (1, *image.shape[1:]), generator=generator)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels.to(inputs.device))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if hasattr(model, 'decode_head'):
            losses = model.loss(inputs, samples)
            sum(value for name, value in losses.items() if 'loss' in name).backward()
        else:
            sum(out.float().mean() for out in model(inputs)).backward()
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


def macs_of(function: Callable[[], object]) -> int:
    """Multiply-accumulates by PyTorch's own counter: convolutions and matrix products, backward passes too."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops() // 2


def in_fresh_process(function: str, *args, returns_memory: bool = False):
    """Calls a function, given as ``module:name`` of this package's ``apis``, in a new process.

    Args:
        function: what to call.
        *args: data for JSON, as is what it returns.
        returns_memory: let glibc give freed memory back at once; what it would keep differs between runs.

    Raises:
        RuntimeError: if it fails, with the end of its error.
    """
    env = dict(os.environ)
    if returns_memory:
        env.update(MALLOC_MMAP_THRESHOLD_=str(2**20), MALLOC_TRIM_THRESHOLD_=str(2**20))
    result = subprocess.run([sys.executable, '-m', __name__, function, json.dumps(args)], capture_output=True,
                            text=True, env=env)
    if result.returncode:
        raise RuntimeError(f'{function} failed in a process of its own:\n{result.stderr[-2000:]}')
    return json.loads(result.stdout.splitlines()[-1])


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes that a call takes at most, above what is held before it. For Linux, or on the GPU."""
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


def peaks() -> Tuple[float, float]:
    """GMAC/s of this machine in float32, by a matrix product and by a 1x1 convolution: they use different libraries."""
    return in_fresh_process('measure:_peaks')


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


if __name__ == '__main__':
    module, name = sys.argv[1].split(':')
    print(json.dumps(getattr(import_module(f'mmseg_inceptionnext.apis.{module}'), name)(*json.loads(sys.argv[2]))))
