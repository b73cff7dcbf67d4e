"""Parameters and multiply-accumulates of a network, module by module."""
from functools import partial
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.config import build_model
from mmseg_inceptionnext.export.exportable import heads_of

from .stock import stock_model_cfg


class Part(NamedTuple):
    """A module, with those inside it."""
    name: str  # with dots
    params: int
    macs: int  # multiply-accumulates for one image


def count_modules(model: nn.Module, run: Callable[[Tensor], object], shape: Sequence[int]) -> Dict[str, Part]:
    """Counts every module of a network by its name; the network itself is ``''``.

    It runs once on PyTorch's meta device, under PyTorch's own counter, so nothing is computed and no memory taken.
    Convolutions and matrix products count, those of attention too; norms, activations and resizing do not.

    Args:
        model: the network, which loses its weights.
        run: calls the modules that are to count with a tensor.
        shape: of that tensor.
    """
    model.to('meta').eval()
    counter, macs, starts = FlopCounterMode(display=False), {}, []

    def after(name, *_) -> None:
        macs[name] += (counter.get_total_flops() - starts.pop()) // 2

    # By hooks: the counter of PyTorch 2.1 mixes modules up.
    for name, module in model.named_modules():
        macs[name] = 0
        module.register_forward_pre_hook(lambda *_: starts.append(counter.get_total_flops()))
        module.register_forward_hook(partial(after, name))
    with counter, torch.no_grad():
        run(torch.empty(*shape, device='meta'))
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, nn.ModuleList):  # which is not called itself
            macs[name] = sum(macs.get(f'{name}.{i}', 0) for i in range(len(module)))
    macs[''] = counter.get_total_flops() // 2
    return {name: Part(name, sum(p.numel() for p in module.parameters()), macs[name])
            for name, module in model.named_modules()}


def count_complexity(cfg: Config, shape: Tuple[int, int], depth: int = 1) -> List[Part]:
    """Counts the modules of ``cfg.model`` down to a depth, and their total.

    The auxiliary head has parameters and no MACs, since it runs in training only. What counts is the network as it is
    written, with MMSegmentation's UPerHead, as in the paper; FastUPerHead takes fewer.

    Args:
        cfg: a config with ``model``.
        shape: height and width of the image, in pixels.
        depth: 1 for backbone, neck and heads; 2 for their modules too, and so on.

    Returns:
        The modules that have parameters or MACs, each after the one that holds it, and last their ``total``.
    """
    model = build_model(Config(dict(model=stock_model_cfg(cfg.get('model')))), cfg.filename or 'the config')
    inputs = (1, cfg.model.backbone.get('in_channels', 3), *shape)
    found = count_modules(model, partial(_decode, model), inputs)
    total = found.pop('')
    parts = [part for part in found.values() if part.name.count('.') < depth and (part.params or part.macs)]
    return [*parts, total._replace(name='total')]


def _decode(model: nn.Module, images: Tensor) -> None:
    maps, logits = model.extract_feat(images), ()
    for head in heads_of(model):
        logits = head(maps, *logits),
