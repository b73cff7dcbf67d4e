"""Whether a model runs to be traced, on every version of PyTorch."""
import torch


def is_compiling() -> bool:
    """Whether torch.compile runs the model; PyTorch 2.1 cannot tell."""
    return getattr(torch.compiler, 'is_compiling', lambda: False)()
