"""Training in mixed precision on any device."""
import warnings
from contextlib import contextmanager
from typing import Iterator, Optional, Union

import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from mmseg_inceptionnext.errors import ConfigError

DTYPES = dict(float16=torch.float16, bfloat16=torch.bfloat16)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass in half the bits by PyTorch's autocast, on the model's own device; weights stay float32.

    It takes the settings of MMEngine's ``AmpOptimWrapper`` and writes the same checkpoints. Unlike that one it runs on
    CPUs too, and looks for gradients that overflow under float16 only: bfloat16 has the range of float32.

    Args:
        dtype: ``float16`` or ``bfloat16``, or PyTorch's own of that name.
        loss_scale: for float16: ``dynamic``, a number that stays as it is, or settings of ``GradScaler``.
        **kwargs: of ``OptimWrapper``.

    Raises:
        ConfigError: if it is another dtype or scale, or this PyTorch cannot train in it on the model's device.
    """

    def __init__(self,
                 dtype: Union[str, torch.dtype] = 'float16',
                 loss_scale: Union[str, float, dict] = 'dynamic',
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.cast_dtype = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
        if self.cast_dtype not in DTYPES.values():
            raise ConfigError(f'optim_wrapper.dtype={dtype!r}: allowed are {", ".join(DTYPES)}')
        device = self.optimizer.param_groups[0]['params'][0].device.type
        check_autocast(device, self.cast_dtype)
        self._fixed_scale = float(loss_scale) if isinstance(loss_scale, (int, float)) else None
        self.loss_scaler = None
        if self.cast_dtype == torch.float16:
            self.loss_scaler = _loss_scaler(device, loss_scale)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Casts what runs within it, and lets gradients be added up without being exchanged where they are."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=self.cast_dtype):
            yield

    def backward(self, loss: Tensor, **kwargs) -> None:
        super().backward(self.loss_scaler.scale(loss) if self.loss_scaler else loss, **kwargs)

    def step(self, **kwargs) -> None:
        """Takes a step; with float16 none if gradients have overflowed, and then the loss is scaled by less."""
        if self.loss_scaler is None:
            super().step(**kwargs)
            return
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._fixed_scale)

    def state_dict(self) -> dict:
        state = super().state_dict()
        if self.loss_scaler:
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Takes the state of any precision; the scale of the loss stays as it is where the state has none."""
        scale = state_dict.pop('loss_scaler', None)
        if self.loss_scaler and scale:
            self.loss_scaler.load_state_dict(scale)
        super().load_state_dict(state_dict)


def check_autocast(device: str, dtype: torch.dtype) -> None:
    """Raises ConfigError if this PyTorch cannot train in a dtype on a kind of device: in float16 on CPUs before 2.4."""
    if device == 'cpu' and dtype == torch.float16 and not (hasattr(torch.amp, 'GradScaler') and _casts(device, dtype)):
        raise ConfigError(f'--amp fp16 needs a GPU: PyTorch {torch.__version__} does not train in float16 on CPUs. Use '
                          "--amp bf16 (in a config optim_wrapper.dtype='bfloat16') or a newer PyTorch")


def _casts(device: str, dtype: torch.dtype) -> bool:
    """Whether autocast really does; where it cannot, it raises or switches itself off with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with torch.autocast(device, dtype=dtype):
                return torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == dtype
        except RuntimeError:
            return False


def _loss_scaler(device: str, loss_scale: Union[str, float, dict]):
    settings: Optional[dict] = None
    if loss_scale == 'dynamic':
        settings = {}
    elif isinstance(loss_scale, (int, float)):
        settings = dict(init_scale=float(loss_scale))
    elif isinstance(loss_scale, dict):
        settings = dict(loss_scale)
    if settings is None:
        raise ConfigError(f"optim_wrapper.loss_scale={loss_scale!r}: allowed are 'dynamic', a number, and a dict of "
                          "GradScaler's settings")
    if hasattr(torch.amp, 'GradScaler'):  # PyTorch 2.3 or newer: it scales on all devices, before on CUDA only
        return torch.amp.GradScaler(device=device, **settings)
    return torch.cuda.amp.GradScaler(**settings)
