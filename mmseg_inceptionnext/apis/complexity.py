"""Parameters and multiply-accumulates of a segmentor, by part."""
from typing import List, NamedTuple, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from .stock import stock_model_cfg

PARTS = ('backbone', 'neck', 'decode_head', 'auxiliary_head')


class Part(NamedTuple):
    """One part of a segmentor: its parameters, and its MACs for one image."""
    name: str
    params: int
    macs: int


def count_complexity(cfg: Config, shape: Tuple[int, int]) -> List[Part]:
    """Counts the parts of ``cfg.model`` and their total.

    The network runs once on PyTorch's meta device, under PyTorch's own counter, so nothing is computed and no memory
    taken. Convolutions and matrix products count; norms, activations and resizing do not. The auxiliary head has
    parameters and no MACs, since it runs in training only. What counts is the network as it is written, with
    MMSegmentation's UPerHead, as in the paper; FastUPerHead takes fewer.

    Args:
        cfg: a config with ``model``.
        shape: height and width of the image, in pixels.

    Returns:
        The parts that the segmentor has, in order, and last their ``total``.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(stock_model_cfg(cfg.model)).to('meta').eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.empty(1, cfg.model.backbone.get('in_channels', 3), *shape, device='meta'), mode='tensor')
    flops, model_name = counter.get_flop_counts(), type(model).__name__
    parts = [
        Part(name, _num_params(getattr(model, name)), sum(flops.get(f'{model_name}.{name}', {}).values()) // 2)
        for name in PARTS if hasattr(model, name)
    ]
    return [*parts, Part('total', _num_params(model), counter.get_total_flops() // 2)]


def _num_params(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
