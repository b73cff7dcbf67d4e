"""Time, peak memory, kernels and multiply-accumulates of calls, and what the machine is and can do."""
import ctypes
import gc
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from typing import Callable, ContextManager, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from mmengine.device import get_device
from torch import nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.errors import InputError

PRECISIONS = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def on_gpu() -> bool:
    """Whether calls run on a CUDA device."""
    return torch.cuda.is_available()


def _now() -> float:
    """Seconds, when the GPU has done what it was told to."""
    if on_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


def autocast(device: torch.device, amp: str) -> ContextManager:
    """Autocast to one of :data:`PRECISIONS`; ``fp32`` casts nothing."""
    return nullcontext() if amp == 'fp32' else torch.autocast(device.type, PRECISIONS[amp])


def check_amp(amp: str) -> None:
    """Raises InputError if PyTorch would compute in another precision on this device."""
    x = torch.zeros(1, 1, device=get_device())
    try:
        with autocast(x.device, amp):
            found = F.linear(x, x).dtype
    except RuntimeError:
        found = None
    if found != PRECISIONS[amp]:
        raise InputError(f'--amp {amp}: PyTorch {torch.__version__} cannot autocast to it on {x.device.type}; '
                         'fp32 always works, a GPU has fp16, a CPU bf16')


def warm_ups() -> int:
    """Calls before those that count: on a GPU cuDNN looks for its fastest algorithms, and clocks rise."""
    return 3 if on_gpu() else 1


def alternate(functions: Dict[str, Callable[[], object]], runs: int) -> Dict[str, List[float]]:
    """Seconds of each function, run in turn, after runs to warm up; on a GPU from idle to idle."""
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for _ in range(warm_ups() + runs):
        for name, function in functions.items():
            start = _now()
            function()
            times[name].append(_now() - start)
    return {name: found[-runs:] for name, found in times.items()}


class Kernels(NamedTuple):
    """What a GPU does in one call: the number of kernels, and the seconds that they take together."""
    count: int
    seconds: float


def kernels_of(function: Callable[[], object]) -> Optional[Kernels]:
    """Kernels of a call that is warm, by PyTorch's profiler; None on a CPU, or if the profiler sees none.

    Copies and fills by the GPU's copy engine are not kernels.
    """
    if not on_gpu():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    found = [event for event in profiler.events()
             if event.device_type == DeviceType.CUDA and not event.name.startswith(('Memcpy', 'Memset'))
             and not getattr(event, 'is_user_annotation', False)]
    return Kernels(len(found), sum(event.time_range.elapsed_us() for event in found) / 1e6) if found else None


def macs_of(function: Callable[[], object]) -> int:
    """Multiply-accumulates by PyTorch's own counter: convolutions and matrix products, backward passes too."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops() // 2


def isolated(function: Callable, *args):
    """Calls a function where nothing that ran before disturbs it; what it takes and returns can be pickled.

    That is a new process on a CPU. On a GPU it is this process, where a new one would spend most of its time on
    importing, with the GPU's memory emptied before, and cuDNN's algorithms tried out, as the configs train.
    """
    if not on_gpu():
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            return pool.submit(function, *args).result()
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        return function(*args)
    finally:
        torch.backends.cudnn.benchmark = before


def free_at_once() -> None:
    """Lets glibc give freed memory back at once: what it would keep differs between runs."""
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        ctypes.CDLL(None).mallopt(option, 2**20)


def peak_memory(function: Callable[[], object], warm_up: Callable[[], object], model: nn.Module) -> int:
    """Bytes that a call takes at most, above what is held before it. For Linux, or on a GPU.

    Args:
        function: what is called.
        warm_up: called before, so that the libraries' own code and buffers do not count.
        model: what counts as held on a GPU; there gradients and the optimizer's state are left from earlier calls.
    """
    if on_gpu():
        for _ in range(warm_ups()):
            warm_up()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - sum(
            x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    warm_up()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what building the model left behind would hide what the call takes
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # starts to look for the peak anew
    before = _status('VmRSS')
    function()
    return _status('VmHWM') - before


def _status(key: str) -> int:
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def peaks(amp: str, runs: int = 5) -> Tuple[float, float]:
    """GMAC/s of this machine in a precision, by a matrix product and by a 1x1 convolution: two different libraries."""
    options = dict(device=get_device(), dtype=PRECISIONS[amp])
    side, batch = (8192, 64) if on_gpu() else (2048, 1)
    a = torch.randn(side, side, **options)
    image = torch.randn(batch, 512, 64, 64, **options).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2048, 512, 1, 1, **options)
    times = alternate(dict(product=lambda: a @ a, conv=lambda: F.conv2d(image, weight)), runs)
    product, conv = (statistics.median(times[name]) for name in ('product', 'conv'))
    return side**3 / product / 1e9, batch * 4096 * 512 * 2048 / conv / 1e9


def set_tf32(allowed: Optional[bool]) -> None:
    """Lets a GPU round the float32 inputs of convolutions and of matrix products to TF32, or not; None: as it is."""
    if allowed is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def machine(amps: Sequence[str]) -> str:
    """What the figures were measured on, and in which precisions; on a GPU with what may run in TF32."""
    precisions = [str(PRECISIONS[amp])[len('torch.'):] + ' autocast' * (amp != 'fp32') for amp in amps]
    parts = [torch.cuda.get_device_name() if on_gpu() else f'CPU, {torch.get_num_threads()} threads',
             platform.machine(), ' and '.join(precisions), f'torch {torch.__version__}', f'timm {timm.__version__}']
    if on_gpu():
        flags = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        parts.append('TF32 {} for convolutions, {} for matrix products'.format(*('on' if x else 'off' for x in flags)))
    return ', '.join(parts)
