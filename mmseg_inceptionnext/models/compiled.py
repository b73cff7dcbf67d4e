"""torch.compile for segmentors."""
from typing import List

import torch
from torch import nn

from mmseg_inceptionnext.errors import ConfigError

# Inductor (PyTorch 2.14) adds a block's branch to its input in place, also where parts of the input, as the token mixer
# splits it, are kept for the backward pass: the gradients of the depthwise convolutions would be wrong, without a word.
OPTIONS = dict(inplace_buffers=False)


def compile_model(model: nn.Module, backend: str = 'inductor') -> nn.Module:
    """Lets ``torch.compile`` run backbone, neck and heads of a segmentor; another module it compiles as one.

    The rest, losses and the resizing of predictions, stays as it is. Each part is one graph, compiled when it is first
    run, which takes up to minutes; a second size of images makes it one for all sizes. Weights and their names stay.

    Args:
        model: changed in place; of a segmentor that is to be fused, this may come before or after.
        backend: of ``torch.compile``.

    Returns:
        The same model.

    Raises:
        ConfigError: if this PyTorch cannot, as before version 2.3.
    """
    if not hasattr(torch.compiler, 'is_compiling'):  # PyTorch 2.1 would break graphs, and fail on free sizes
        raise ConfigError(f'--compile needs PyTorch 2.3 or newer, and this is {torch.__version__}: leave it out')
    for part in _parts(model):
        part.compile(backend=backend, options=OPTIONS if backend == 'inductor' else None)
    return model


def _parts(model: nn.Module) -> List[nn.Module]:
    if not hasattr(model, 'decode_head'):
        return [model]
    parts = [getattr(model, name, None) for name in ('backbone', 'neck', 'decode_head', 'auxiliary_head')]
    lists = [part if isinstance(part, nn.ModuleList) else [part] for part in parts]
    return [part for parts in lists for part in parts if part is not None]
