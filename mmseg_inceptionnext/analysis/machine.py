"""What the machine is and can do."""
import platform
import statistics
from typing import Optional, Sequence, Tuple

import timm
import torch
from mmengine.device import get_device
from torch import nn

from .measure import PRECISIONS, alternate, isolated, on_gpu


def peaks(amp: str = 'fp32') -> Tuple[float, float]:
    """GMAC/s of this machine in a precision, by a matrix product and by a 1x1 convolution.

    They use different libraries.
    """
    return tuple(isolated('machine:_peaks', amp))


def _peaks(amp: str, runs: int = 5) -> Tuple[float, float]:
    options = dict(device=get_device(), dtype=PRECISIONS[amp])
    side, batch = (8192, 64) if on_gpu() else (2048, 1)
    a = torch.randn(side, side, **options)
    image = torch.randn(batch, 512, 64, 64, **options).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2048, 512, 1, 1, **options)
    times = alternate(dict(product=lambda: a @ a, conv=lambda: nn.functional.conv2d(image, weight)), runs)
    product, conv = (statistics.median(times[name]) for name in ('product', 'conv'))
    return side**3 / product / 1e9, batch * 4096 * 512 * 2048 / conv / 1e9


def set_tf32(allowed: Optional[bool]) -> None:
    """Lets a GPU round the float32 inputs of convolutions and of matrix products to TF32, or not; None: as it is."""
    if allowed is not None:
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cuda.matmul.allow_tf32 = allowed


def machine(amps: Sequence[str] = ('fp32', )) -> str:
    """What the figures were measured on, and in which precisions; on a GPU with what may run in TF32."""
    device = torch.cuda.get_device_name() if on_gpu() else f'CPU, {torch.get_num_threads()} threads'
    precisions = ' and '.join(str(PRECISIONS[amp]).rpartition('.')[2] + ' autocast' * (amp != 'fp32') for amp in amps)
    parts = [device, platform.machine(), precisions, f'torch {torch.__version__}', f'timm {timm.__version__}']
    if on_gpu():
        convolutions, products = ('on' if flag else 'off' for flag in (
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        parts.append(f'TF32 {convolutions} for convolutions, {products} for matrix products')
    return ', '.join(parts)
