"""Calls that predict and train, and their time, peak memory, kernels and multiply-accumulates."""
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Callable, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from mmengine.device import get_device
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.errors import InputError

PRECISIONS = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def autocast(device: torch.device, amp: str) -> ContextManager:
    """Autocast to one of :data:`PRECISIONS`; ``fp32`` casts nothing."""
    return nullcontext() if amp == 'fp32' else torch.autocast(device.type, PRECISIONS[amp])


def half_precision() -> str:
    """The precision that ``--amp`` without a value stands for."""
    return 'fp16' if get_device() == 'cuda' else 'bf16'


def check_amp(amp: str) -> None:
    """Tries a precision out.

    Raises:
        ValueError: if PyTorch would compute in another one on this device.
    """
    device = torch.device(get_device())
    x = torch.zeros(1, 1, device=device)
    try:
        with autocast(device, amp):
            found = F.linear(x, x).dtype
    except RuntimeError:
        found = None
    if found != PRECISIONS[amp]:
        raise InputError(f'--amp {amp}: PyTorch {torch.__version__} cannot autocast to it on {device.type}; '
                         'fp32 always works, a GPU has fp16, a CPU bf16')


def prediction(model: nn.Module, inputs: Tensor, size: Tuple[int, int], amp: str = 'fp32') -> Callable[[], object]:
    """A call of a segmentor: images in, class maps of ``size`` (H, W) out."""
    metainfo = dict(ori_shape=size, img_shape=inputs.shape[2:], pad_shape=inputs.shape[2:])

    def predict() -> List[SegDataSample]:
        with torch.no_grad(), autocast(inputs.device, amp):
            return model.predict(inputs, [SegDataSample(metainfo=dict(metainfo)) for _ in inputs])

    return predict


def forward_pass(model: nn.Module, inputs: Tensor, amp: str = 'fp32') -> Callable[[], object]:
    """A call of a backbone or a classifier: images in, maps or logits out."""

    def forward() -> object:
        with torch.no_grad(), autocast(inputs.device, amp):
            return model(inputs)

    return forward


def train_step(model: nn.Module, inputs: Tensor, amp: str = 'fp32') -> Callable[[], None]:
    """A call that trains a segmentor on random labels, or a backbone on the mean of its maps.

    Loss under autocast, gradients, AdamW; without the loss scaling of fp16, which takes next to no time.
    """
    if not hasattr(model, 'decode_head'):
        return _step(model, lambda: sum(out.float().mean() for out in model(inputs)), inputs.device, amp)
    generator = torch.Generator().manual_seed(1)
    samples = []
    for image in inputs:
        labels = torch.randint(model.num_classes, (1, *image.shape[1:]), generator=generator)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels.to(inputs.device))))

    def loss() -> Tensor:
        return sum(value for name, value in model.loss(inputs, samples).items() if 'loss' in name)

    return _step(model, loss, inputs.device, amp)


def classifier_step(model: nn.Module, inputs: Tensor, amp: str = 'fp32') -> Callable[[], None]:
    """A call that trains a classifier of 1000 classes on random labels: cross-entropy, gradients, AdamW."""
    labels = torch.randint(1000, (len(inputs), ), generator=torch.Generator().manual_seed(1)).to(inputs.device)
    return _step(model, lambda: F.cross_entropy(model(inputs), labels), inputs.device, amp)


def _step(model: nn.Module, loss: Callable[[], Tensor], device: torch.device, amp: str) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, amp):
            value = loss()
        value.backward()
        optimizer.step()

    return step


def on_gpu() -> bool:
    """Whether calls run on a CUDA device."""
    return torch.cuda.is_available()


def warm_ups() -> int:
    """Calls before those that count: on a GPU cuDNN looks for its fastest algorithms, and clocks rise."""
    return 3 if on_gpu() else 1


@contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Lets cuDNN try its algorithms in here, as the configs train; a CPU has none of it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@cudnn_benchmark()
def warm_up(function: Callable[[], object]) -> None:
    """Calls a function a few times, so that nothing is compiled or tried out in the calls that count."""
    for _ in range(warm_ups()):
        function()


@cudnn_benchmark()
def alternate(functions: Dict[str, Callable[[], object]], runs: int) -> Dict[str, List[float]]:
    """Seconds of each function, run in turn after its runs to warm up: by CUDA's events, or a CPU's clock."""
    seconds = _seconds_by_events if on_gpu() else _seconds_by_clock
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for i in range(-warm_ups(), runs):
        for name, function in functions.items():
            found = seconds(function)
            if i >= 0:
                times[name].append(found)
    return times


def _seconds_by_clock(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _seconds_by_events(function: Callable[[], object]) -> float:
    """From the GPU idle before the call to the GPU idle after it: waiting for the host counts."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


class Kernels(NamedTuple):
    """What a GPU does in one call: the number of kernels, and the seconds that they take together."""
    count: int
    seconds: float


@cudnn_benchmark()
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


def isolated(function: str, *args, returns_memory: bool = False):
    """Calls a function, given as ``module:name`` of ``apis``, where nothing that ran before disturbs it.

    That is a new process on a CPU (see :func:`in_fresh_process`). On a GPU it is this process, with the GPU's memory
    emptied before: there a process spends most of its time on importing.
    """
    if not on_gpu():
        return in_fresh_process(function, *args, returns_memory=returns_memory)
    empty_gpu()
    return _named(function)(*args)


def empty_gpu() -> None:
    """Gives back what no one holds any more, compiled code too."""
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def in_fresh_process(function: str, *args, returns_memory: bool = False):
    """Calls a function, given as ``module:name`` of this package's ``analysis``, in a new process.

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


def _named(function: str) -> Callable:
    module, name = function.split(':')
    return getattr(import_module(f'mmseg_inceptionnext.analysis.{module}'), name)


@cudnn_benchmark()
def peak_memory(function: Callable[[], object], model: Optional[nn.Module] = None) -> int:
    """Bytes that a call takes at most, above what is held before it. For Linux, or on the GPU.

    On a GPU a ``model`` is what counts as held: there gradients and the optimizer's state are left from earlier calls.
    """
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        if model is not None:
            before = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
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


if __name__ == '__main__':
    print(json.dumps(_named(sys.argv[1])(*json.loads(sys.argv[2]))))
