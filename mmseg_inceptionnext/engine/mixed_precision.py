"""Training in mixed precision on any device."""
import warnings
from contextlib import contextmanager
from typing import Iterator, Union

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

from mmseg_inceptionnext.errors import ConfigError

DTYPES = dict(float16=torch.float16, bfloat16=torch.bfloat16)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(AmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper``, with the same checkpoints, that also runs on CPUs; weights stay float32.

    It looks for gradients that overflow under float16 only: bfloat16 has the range of float32.

    Args:
        dtype: ``float16`` or ``bfloat16``, or PyTorch's own of that name.
        loss_scale: for float16: ``dynamic``, a number that stays as it is, or settings of ``GradScaler``.
        **kwargs: of ``OptimWrapper``.

    Raises:
        ConfigError: if it is another dtype or scale, or this PyTorch cannot train in it on the model's device.
    """

    def __init__(self, dtype: Union[str, torch.dtype] = 'float16', loss_scale: Union[str, float, dict] = 'dynamic',
                 **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)  # that of AmpOptimWrapper refuses CPUs
        self.cast_dtype = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
        if self.cast_dtype not in DTYPES.values():
            raise ConfigError(f'optim_wrapper.dtype={dtype!r}: allowed are {", ".join(DTYPES)}')
        device = self.optimizer.param_groups[0]['params'][0].device.type
        check_autocast(device, self.cast_dtype)
        self._scale_update_param = float(loss_scale) if isinstance(loss_scale, (int, float)) else None
        self.loss_scaler = _loss_scaler(device, loss_scale, enabled=self.cast_dtype == torch.float16)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Casts what runs within it, and lets gradients be added up without being exchanged where they are."""
        device = next(model.parameters()).device.type
        with OptimWrapper.optim_context(self, model), torch.autocast(device, dtype=self.cast_dtype):
            yield

    def state_dict(self) -> dict:
        return {key: value for key, value in super().state_dict().items() if key != 'loss_scaler' or value}

    def load_state_dict(self, state_dict: dict) -> None:
        """Takes the state of any precision; the scale of the loss stays as it is where the state has none."""
        if not (state_dict.get('loss_scaler') and self.loss_scaler.is_enabled()):
            state_dict.pop('loss_scaler', None)
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


def _loss_scaler(device: str, loss_scale: Union[str, float, dict], enabled: bool = True):
    if isinstance(loss_scale, (int, float)):
        loss_scale = dict(init_scale=float(loss_scale))
    elif loss_scale != 'dynamic' and not isinstance(loss_scale, dict):
        raise ConfigError(f"optim_wrapper.loss_scale={loss_scale!r}: allowed are 'dynamic', a number, and a dict of "
                          "GradScaler's settings")
    settings = dict({} if loss_scale == 'dynamic' else loss_scale, enabled=enabled)
    if hasattr(torch.amp, 'GradScaler'):  # PyTorch 2.3 or newer: it scales on all devices, before on CUDA only
        return torch.amp.GradScaler(device=device, **settings)
    return torch.cuda.amp.GradScaler(**settings)
