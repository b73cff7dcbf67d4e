"""PyTorch's fused Adam and AdamW: quicker on a GPU, and able to leave a step out there without asking the host."""
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper
from torch.optim import Adam, AdamW, Optimizer

FUSABLE = (Adam, AdamW)  # not SGD: its fused step moves the momentum on, or leaves it at random, when it is left out
CHOSEN = ('foreach', 'fused', 'capturable', 'differentiable')  # settings that say how a step is computed


def fuse_optimizer(cfg: Config) -> None:
    """Sets ``fused=True`` for the Adam or AdamW of a config that trains on a GPU and says nothing of how to compute."""
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    known = optimizer.get('type') in (*FUSABLE, *(kind.__name__ for kind in FUSABLE))
    # a runner of another type may share the parameters out, or take the optimizer from elsewhere
    if known and get_device() == 'cuda' and 'runner_type' not in cfg and not set(CHOSEN) & set(optimizer):
        optimizer.fused = True


def leaves_out_steps(optimizer: Optional[Optimizer]) -> bool:
    """Whether a step changes nothing, step counts included, where ``optimizer.found_inf``, a float32 tensor, is 1."""
    return type(optimizer) in FUSABLE and all(group.get('fused') for group in optimizer.param_groups)


def keep_own_steps(wrapper: BaseOptimWrapper, state: dict) -> None:
    """Lets an optimizer go on computing its steps as it was set up to, when it loads the state of another.

    A state says how its steps were computed, and PyTorch would take that over: an optimizer that is set up fused would
    not be any more, and one on a CPU would be, where it may not exist. Its moments may lie in memory otherwise than the
    parameters do now, as channels-last or not, which a fused step on a CPU does not see and computes with. Step counts
    go where the host can read them, as in a new optimizer, unless the steps are counted on the device.

    Args:
        wrapper: holds the optimizer that will load; several are left as they are.
        state: a ``state_dict()``; changed.
    """
    optimizer = getattr(wrapper, 'optimizer', None)
    if not isinstance(optimizer, Optimizer) or 'param_groups' not in state:
        return
    own = {key: optimizer.defaults[key] for key in CHOSEN if key in optimizer.defaults}
    on_device = own.get('fused') or own.get('capturable')
    for group, saved in zip(optimizer.param_groups, state['param_groups']):
        saved.update(own)
        for parameter, index in zip(group['params'], saved['params']):
            values = state['state'].get(index, {})
            for key, value in values.items():
                if torch.is_tensor(value) and key == 'step':
                    values[key] = value if on_device else value.cpu()
                elif torch.is_tensor(value) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
