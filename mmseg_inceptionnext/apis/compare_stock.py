"""Ours against the stock way, with the same weights: agreement, time, memory."""
import json
import statistics
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import timm
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_inceptionnext.models import fuse

from .config import load_config
from .measure import alternate, backbone_pass, in_fresh_process, machine, macs_of, peak_memory, prediction, train_step
from .stock import copy_weights, timm_model_cfg

MODES = ('predict', 'train', 'backbone', 'slide')
SLIDE = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


class Case(NamedTuple):
    """What one mode feeds and measures.

    Attributes:
        shape: of the input, (N, C, H, W).
        original: size of the class map.
        description: for the table.
    """
    shape: Tuple[int, int, int, int]
    original: Tuple[int, int]
    description: str


CASES = dict(
    predict=Case((1, 3, 512, 512), (512, 683), 'predict, 512 x 512 in, 512 x 683 out'),
    train=Case((2, 3, 512, 512), (512, 512), 'train step, batch 2, crop 512'),
    backbone=Case((1, 3, 512, 512), (512, 512), 'backbone, 512 x 512'),
    slide=Case((1, 3, 1024, 2048), (1024, 2048), 'slide, 1024 x 2048, window 512, stride 341'))
WARM_UP = Case((2, 3, 64, 64), (64, 64), '')


def build_pair(cfg: Config, seed: int = 0) -> Tuple[nn.Module, nn.Module]:
    """The stock model and ours with the same weights, all of them random, BatchNorm statistics and ``gamma`` too.

    Ours has no output norms here, since timm's backbone has none; nothing is dropped at random.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model_cfg = cfg.model
    model_cfg.backbone.update(out_norm_cfg=None, init_cfg=None, drop_path_rate=0.)
    for head in [model_cfg.decode_head, *([model_cfg.auxiliary_head] if 'auxiliary_head' in model_cfg else [])]:
        head.dropout_ratio = 0
    torch.manual_seed(seed)
    stock = randomise(revert_sync_batchnorm(MODELS.build(timm_model_cfg(model_cfg))))
    ours = revert_sync_batchnorm(MODELS.build(model_cfg))
    copy_weights(stock, ours)
    return stock, ours


def randomise(model: nn.Module) -> nn.Module:
    """Gives every parameter and BatchNorm statistic a value that no shortcut could survive."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel()**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.uniform_(parameter, 0.3, 1)
    return model


def function_of(mode: str, model: nn.Module, case: Case) -> Callable[[], object]:
    """What is timed: a call without arguments."""
    inputs = torch.randn(case.shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).device)
    if mode == 'train':
        return train_step(model, inputs)
    if mode == 'backbone':
        return backbone_pass(getattr(model, 'backbone', model), inputs)
    model.test_cfg = Config(SLIDE if mode == 'slide' else dict(mode='whole'))
    return prediction(model, inputs, case.original)


def agreement(stock: nn.Module, ours: nn.Module, mode: str, case: Case) -> str:
    """How far the outputs are apart."""
    if mode == 'train':
        return ''
    a, b = (function_of(mode, model, case)() for model in (stock, ours))
    if mode == 'backbone':
        return f'largest relative error {max(_relative_error(x, y) for x, y in zip(a, b)):.1e}'
    equal = (a[0].pred_sem_seg.data == b[0].pred_sem_seg.data).double().mean().item()
    text = f'{100 * equal:.4f} % equal classes'
    if mode == 'predict':
        inputs = torch.randn(case.shape, generator=torch.Generator().manual_seed(0)).to(next(ours.parameters()).device)
        with torch.no_grad():
            text += f', largest relative logit error {_relative_error(stock(inputs), ours(inputs)):.1e}'
    return text


def _relative_error(x: Tensor, y: Tensor) -> float:
    return ((x - y).abs().max() / x.abs().max()).item()


def build_variants(config: str, mode: str) -> Dict[str, nn.Module]:
    """The models that a mode compares, by the names of the table's columns; stock first."""
    stock, ours = build_pair(load_config(config).copy())
    device = get_device()
    if mode == 'train':
        return dict(stock=stock.to(device).train(), ours=ours.to(device).train())
    ours = fuse(ours.to(device).eval(), inplace=True)
    models = dict(stock=stock.to(device).eval(), ours=ours)
    if mode == 'backbone':
        torch.manual_seed(0)
        models['timm ConvNeXt-T'] = timm.create_model('convnext_tiny', features_only=True).to(device).eval()
    return models


class Row(NamedTuple):
    """One line of the comparison: times in seconds, memory in bytes above the model's own, MACs of one call."""
    mode: str
    name: str
    times: List[float]
    macs: int
    memory: Optional[int] = None


def compare_with_stock(config: str, mode: str, runs: int, with_memory: bool = True) -> Tuple[List[Row], str]:
    """Measures one mode: the rows, the stock one first, and how far the outputs agree.

    All runs take place in one fresh process, in turn, so that what ran before leaves no trace in the memory allocator;
    the peak memory of each model in a process of its own.

    Raises:
        ConfigError: if there is no such config.
        ValueError: if timm has no counterpart of its backbone.
    """
    timm_model_cfg(load_config(config).model)  # before any process is started
    rows, agree = in_fresh_process('compare_stock:_compare', config, mode, runs)
    rows = [Row(*row) for row in rows]
    if with_memory:
        rows = [row._replace(memory=in_fresh_process(
            'compare_stock:_peak_memory', config, mode, row.name, returns_memory=True)) for row in rows]
    return rows, agree


def _compare(config: str, mode: str, runs: int) -> Tuple[List[Row], str]:
    models = build_variants(config, mode)
    case = CASES[mode]
    functions = {name: function_of(mode, model, case) for name, model in models.items()}
    times = alternate(functions, runs)
    rows = [Row(mode, name, times[name], macs_of(function)) for name, function in functions.items()]
    return rows, agreement(models['stock'], models['ours'], mode, case)


def _peak_memory(config: str, mode: str, name: str) -> int:
    """Bytes above the model's own that a call takes at most."""
    model = build_variants(config, mode)[name]
    function_of(mode, model, WARM_UP)()  # the libraries' own code and buffers are not the call's
    return peak_memory(function_of(mode, model, CASES[mode]))


def scaling(config: str, sides: Tuple[int, ...] = (256, 512, 1024, 1536), runs: int = 3) -> List[Tuple[int, float]]:
    """Seconds of our prediction for each million pixels, for square images: (side, seconds)."""
    return in_fresh_process('compare_stock:_scaling', config, sides, runs)


def _scaling(config: str, sides: List[int], runs: int) -> List[Tuple[int, float]]:
    ours = build_variants(config, 'predict')['ours']
    functions = {side: function_of('predict', ours, Case((1, 3, side, side), (side, side), '')) for side in sides}
    return [(side, statistics.median(values) / side**2 * 1e6)
            for side, values in alternate(functions, runs).items()]


def to_json(rows: List[Row], path: str) -> None:
    """Writes every single measurement."""
    with open(path, 'w') as file:
        json.dump(dict(machine=machine(), rows=[row._asdict() for row in rows]), file, indent=2)
