"""What a GPU would be asked to do, seen on a machine without one.

PyTorch's fake tensors have a device, a dtype and a shape, and no values, so CUDA's own rules for autocast and dtypes
hold. They know no backward pass: that is counted on tensors of the CPU.
"""
import contextlib
from collections import Counter
from typing import Callable, Iterator, Optional

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ('aten._local_scalar_dense', 'aten.nonzero', 'aten.masked_select', 'aten.is_nonzero')


class Operations(TorchDispatchMode):
    """Counts, while it is entered, what runs on a kind of device.

    Attributes:
        names: of the operations that are no views, and how often each ran.
        copies: to the device.
        waits: for values from the device.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.names, self.copies, self.waits = device, Counter(), 0, 0

    @property
    def total(self) -> int:
        return sum(self.names.values())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function)
        if name.startswith('prim.'):
            return result
        before = {x.device.type for x in args if isinstance(x, torch.Tensor)}
        after = result.device.type if isinstance(result, torch.Tensor) else None
        self.copies += after == self.device and bool(before) and self.device not in before
        self.waits += name.startswith(WAITS) and self.device in before
        is_view = any(value.alias_info is not None and not value.alias_info.is_write
                      for value in function._schema.returns)
        if self.device in {*before, after} and not is_view:
            self.names[name] += 1
        return result


@contextlib.contextmanager
def cuda_autocast(dtype: Optional[torch.dtype]) -> Iterator[None]:
    """CUDA's autocast; ``torch.autocast('cuda')`` switches itself off where there is no GPU. None: without."""
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if not torch.autocast_decrement_nesting():
            torch.clear_autocast_cache()
        torch.set_autocast_enabled('cuda', before[0])
        torch.set_autocast_dtype('cuda', before[1])


def fake_mode() -> FakeTensorMode:
    """A mode that knows no values, and goes on where a shape depends on them, as stock's do."""
    return FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(
        allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True))


def to_fake_cuda(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The model with fake tensors on a GPU in the place of its own, in their memory formats."""
    with mode:
        for module in model.modules():
            for table in (module._parameters, module._buffers):
                for name, x in table.items():
                    if x is not None:
                        fake = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='cuda')
                        table[name] = nn.Parameter(fake, x.requires_grad) if isinstance(x, nn.Parameter) else fake
    return model


def operations_of(call: Callable[[], object], mode: FakeTensorMode, dtype: Optional[torch.dtype] = None) -> Operations:
    """The operations of a second call; the first has made what is kept."""
    with mode:
        for _ in range(2):
            with Operations('cuda') as found, cuda_autocast(dtype):
                call()
    return found
