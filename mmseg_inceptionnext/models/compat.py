"""What PyTorch's own functions do not do, or not in all versions from 2.1 on."""
import functools
from typing import Callable

import torch
from torch import Tensor

AUTOCAST_TAKES_A_DEVICE = hasattr(torch, 'get_autocast_dtype')  # from PyTorch 2.4 on


def is_compiling() -> bool:
    """Whether torch.compile runs the model; PyTorch 2.1 cannot tell."""
    return getattr(torch.compiler, 'is_compiling', lambda: False)()


def is_traced() -> bool:
    """Whether ``torch.jit.trace`` or the export to ONNX records the model, which needs operations of PyTorch alone."""
    return torch.onnx.is_in_onnx_export() or (not is_compiling() and torch.jit.is_tracing())


def autocast_type(x: Tensor) -> str:
    """The ``device_type`` by which ``torch.autocast`` is switched for a tensor; it knows none for those on meta."""
    return 'cpu' if x.is_meta else x.device.type


def is_autocast_on_cpu() -> bool:
    """Whether autocast is on for the CPU."""
    return torch.is_autocast_enabled('cpu') if AUTOCAST_TAKES_A_DEVICE else torch.is_autocast_cpu_enabled()


def once_differentiable(backward: Callable) -> Callable:
    """For the ``backward`` of an autograd function: a second derivative is an error.

    PyTorch's decorator of this name raises only if the incoming gradients want one; results of others would be taken
    for constants, as in a penalty on the gradients of a loss, without a word.
    """

    @functools.wraps(backward)
    def wrapper(ctx, *grads: Tensor):
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not torch.is_grad_enabled():  # it is with create_graph=True
            return results
        mark = torch.zeros((), requires_grad=True)
        return tuple(result if result is None else _Refused.apply(result, mark) for result in results)

    return wrapper


class _Refused(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor, mark: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError('FastUPerHead and MemoryEfficientEncoderDecoder have first derivatives only, and a second '
                           'one was asked for, as by a penalty on gradients; use UPerHead and EncoderDecoder there')
