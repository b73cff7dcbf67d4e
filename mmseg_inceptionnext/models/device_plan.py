"""What differs between a CPU and a GPU in how the same values are computed."""
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Iterator, NamedTuple, Optional, Union

import torch
from torch import nn


class DevicePlan(NamedTuple):
    """Sizes and forms of work that suit a kind of device.

    A CPU wants pieces that stay in its caches. A GPU wants few large products, and time is lost with each launch.

    Attributes:
        tile_bytes: of logits at full size that are held at once.
        conv_side: outputs along each side that :func:`conv3x3_of_upsampled` computes at once, of
        conv_bytes: as many images as take so much memory between its steps.
        conv_pooled: whether pyramid pooling's few pixels are convolved so, too; it saves work, not launches.
        mlp_bytes: of the hidden map of a fused MLP that are held at once; None for all of it.
        memory_format: of the model's weights, which the maps follow.
    """
    tile_bytes: int
    conv_side: int
    conv_bytes: int
    conv_pooled: bool
    mlp_bytes: Optional[int]
    memory_format: torch.memory_format


CPU = DevicePlan(tile_bytes=5 * 2**18, conv_side=64, conv_bytes=2**22, conv_pooled=True, mlp_bytes=12 * 2**20,
                 memory_format=torch.channels_last)
GPU = DevicePlan(tile_bytes=152 * 2**20, conv_side=192, conv_bytes=256 * 2**20, conv_pooled=False, mlp_bytes=None,
                 memory_format=torch.channels_last)

_asked: ContextVar[Optional[DevicePlan]] = ContextVar('_asked', default=None)


def plan_of(device: torch.device) -> DevicePlan:
    """The plan for what runs on a device."""
    return _asked.get() or (CPU if device.type == 'cpu' else GPU)


@contextmanager
def using_plan(plan: DevicePlan) -> Iterator[None]:
    """Uses a plan whatever the device, such as the GPU's on a CPU."""
    token = _asked.set(plan)
    try:
        yield
    finally:
        _asked.reset(token)


class InPlannedFormat(nn.Module):
    """A model that, moved to a device by ``to`` or ``cuda``, takes the memory format of its :class:`DevicePlan`."""

    def to(self, *args, **kwargs) -> nn.Module:
        """As ``torch.nn.Module.to``; without a memory format it takes the one that suits the device."""
        model = super().to(*args, **kwargs)
        return model if 'memory_format' in kwargs else super().to(memory_format=self._plan.memory_format)

    def cuda(self, device: Union[None, int, str, torch.device] = None) -> nn.Module:
        """As ``torch.nn.Module.cuda``, and as ``to``."""
        super().cuda(device)
        return super().to(memory_format=self._plan.memory_format)

    @property
    def _plan(self) -> DevicePlan:
        return plan_of(next(self.parameters()).device)
