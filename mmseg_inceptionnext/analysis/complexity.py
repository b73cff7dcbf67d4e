"""Parameters and multiply-accumulates of a network, module by module."""
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.config import build_model

from .stock import stock_model_cfg


class Part(NamedTuple):
    """A module: its name (dots inside), its parameters, and its MACs for one image. Its own modules count with it."""
    name: str
    params: int
    macs: int


def count_modules(model: nn.Module, run: Callable[[Tensor], object], shape: Sequence[int]) -> Dict[str, Part]:
    """Counts every module of a network by its name; the network itself is ``''``.

    It runs once on PyTorch's meta device, under PyTorch's own counter, so nothing is computed and no memory taken.
    Convolutions and matrix products count, those of attention too; norms, activations and resizing do not.

    Args:
        model: the network; it is moved to the meta device, its weights are lost.
        run: calls the modules that are to count with a tensor.
        shape: of that tensor.
    """
    model.to('meta').eval()
    counter, macs = FlopCounterMode(display=False), {}
    for name, module in model.named_modules():
        macs[name] = 0
        before, after = _hooks(name, counter, macs)
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    with counter, torch.no_grad():
        run(torch.empty(*shape, device='meta'))
    macs[''] = counter.get_total_flops() // 2
    return {name: Part(name, _num_params(module), macs[name]) for name, module in model.named_modules()}


def _hooks(name: str, counter: FlopCounterMode, macs: Dict[str, int]) -> Tuple[Callable, Callable]:
    """What adds the MACs between a module's start and end to ``macs[name]``; PyTorch 2.1's counter mixes modules up."""
    starts: List[int] = []

    def before(module, inputs) -> None:
        starts.append(counter.get_total_flops())

    def after(module, inputs, output) -> None:
        macs[name] += (counter.get_total_flops() - starts.pop()) // 2

    return before, after


def count_complexity(cfg: Config, shape: Tuple[int, int], depth: int = 1) -> List[Part]:
    """Counts the modules of ``cfg.model`` down to a depth, and their total.

    The auxiliary head has parameters and no MACs, since it runs in training only. What counts is the network as it is
    written, with MMSegmentation's UPerHead, as in the paper; FastUPerHead takes fewer.

    Args:
        cfg: a config with ``model``.
        shape: height and width of the image, in pixels.
        depth: 1 for backbone, neck and heads; 2 for their modules too, and so on.

    Raises:
        ConfigError: if the model cannot be built.

    Returns:
        The modules that have parameters or MACs, each after the one that holds it, and last their ``total``.
    """
    model = build_model(Config(dict(model=stock_model_cfg(cfg.model))), cfg.filename or 'the config')
    inputs = (1, cfg.model.backbone.get('in_channels', 3), *shape)
    found = count_modules(model, lambda x: model.decode_head(model.extract_feat(x)), inputs)
    total = found.pop('')
    parts = [part for part in found.values() if part.name.count('.') < depth and (part.params or part.macs)]
    return [*parts, total._replace(name='total')]


def _num_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
