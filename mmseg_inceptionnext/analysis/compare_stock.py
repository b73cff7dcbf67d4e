"""Ours against the stock way, with the same weights: agreement, time, memory."""
import copy
import json
import statistics
from functools import lru_cache
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.models.compiled import compile_model
from mmseg_inceptionnext.models.fuse import cast_convolutions
from mmseg_inceptionnext.models.sync_bn import without_sync_bn

from .machine import machine
from .measure import (
    PRECISIONS,
    Kernels,
    alternate,
    check_amp,
    forward_pass,
    isolated,
    kernels_of,
    macs_of,
    on_gpu,
    peak_memory,
    prediction,
    train_step,
    warm_up,
)
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
    train=Case((2, 3, 512, 512), (512, 512), 'train step, crop 512'),
    backbone=Case((1, 3, 512, 512), (512, 512), 'backbone, 512 x 512'),
    slide=Case((1, 3, 1024, 2048), (1024, 2048), 'slide, 1024 x 2048, window 512, stride 341'))
WARM_UP = Case((2, 3, 64, 64), (64, 64), '')


class Options(NamedTuple):
    """How both ways run.

    Attributes:
        amp: ``fp32``, or autocast to ``fp16`` or ``bf16``.
        batch_size: images of a call; None for the mode's own, see :data:`CASES`.
        channels_last: weights and inputs of stock in that memory format, which ours sees to by itself.
        compile: compare both through torch.compile too.
    """
    amp: str = 'fp32'
    batch_size: Optional[int] = None
    channels_last: bool = False
    compile: bool = False


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
    stock = randomise(without_sync_bn(MODELS.build(timm_model_cfg(model_cfg))))
    ours = without_sync_bn(MODELS.build(model_cfg))
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


def case_of(mode: str, options: Options) -> Case:
    """The case of a mode, with the batch that was asked for."""
    case = CASES[mode]
    return case._replace(shape=(options.batch_size or case.shape[0], *case.shape[1:]))


def variants_of(mode: str, options: Options) -> List[str]:
    """What a mode compares, stock first."""
    names = ['stock', 'ours']
    names += ['ours, not fused'] * (mode == 'predict')
    names += ['stock, compiled', 'ours, compiled'] * options.compile
    return names + ['timm ConvNeXt-T'] * (mode == 'backbone')


def build_variants(config: str, mode: str, options: Options, names: Sequence[str] = ()) -> Dict[str, nn.Module]:
    """The models of :func:`variants_of` on the device, or those of ``names`` only, each with weights of its own."""
    return {name: _variant(name, _sources(config), mode, options) for name in names or variants_of(mode, options)}


@lru_cache(maxsize=1)  # building takes longer than copying
def _sources(config: str) -> Dict[str, nn.Module]:
    """Stock and ours on the CPU, to be copied."""
    return dict(zip(('stock', 'ours'), build_pair(load_config(config).copy())))


def _variant(name: str, sources: Dict[str, nn.Module], mode: str, options: Options) -> nn.Module:
    way, _, change = name.partition(', ')
    if way in sources:
        model = copy.deepcopy(sources[way])
    else:
        torch.manual_seed(0)
        model = timm.create_model('convnext_tiny', features_only=True)
    model = model.to(get_device()).train(mode == 'train')
    if way != 'ours':
        model = model.to(memory_format=_memory_format(way, options))
    elif mode != 'train' and change != 'not fused':
        model = fuse(model, inplace=True)
        if options.amp != 'fp32':
            cast_convolutions(model, PRECISIONS[options.amp])  # as Segmenter does
    return compile_model(model) if change == 'compiled' else model


def _memory_format(name: str, options: Options) -> torch.memory_format:
    to_change = options.channels_last and not name.startswith('ours')
    return torch.channels_last if to_change else torch.contiguous_format


def function_of(mode: str, name: str, model: nn.Module, case: Case, options: Options
                ) -> Callable[[], object]:
    """What is timed: a call of one variant without arguments."""
    inputs = _inputs(case, model).contiguous(memory_format=_memory_format(name, options))
    if mode == 'train':
        return train_step(model, inputs, options.amp)
    if mode == 'backbone':
        return forward_pass(getattr(model, 'backbone', model), inputs, options.amp)
    model.test_cfg = Config(SLIDE if mode == 'slide' else dict(mode='whole'))
    return prediction(model, inputs, case.original, options.amp)


def _inputs(case: Case, model: nn.Module) -> Tensor:
    inputs = torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
    return inputs.to(next(model.parameters()).device)


def agreement(models: Dict[str, nn.Module], mode: str, case: Case, options: Options) -> str:
    """How far the outputs of stock and ours are apart."""
    if mode == 'train':
        return ''
    a, b = (function_of(mode, name, models[name], case, options)() for name in ('stock', 'ours'))
    if mode == 'backbone':
        return f'largest relative error {max(_relative_error(x, y) for x, y in zip(a, b)):.1e}'
    equal = [(x.pred_sem_seg.data == y.pred_sem_seg.data).double().mean().item() for x, y in zip(a, b)]
    text = f'{100 * statistics.mean(equal):.4f} % equal classes'
    if mode == 'predict':
        logits = [forward_pass(models[name], _inputs(case, models[name]), options.amp)() for name in ('stock', 'ours')]
        text += f', largest relative logit error {_relative_error(*logits):.1e}'
    return text


def _relative_error(x: Tensor, y: Tensor) -> float:
    x, y = x.float(), y.float()
    return ((x - y).abs().max() / x.abs().max()).item()


class Row(NamedTuple):
    """One line of the comparison.

    Attributes:
        mode: one of :data:`MODES`.
        name: of the variant.
        options: how it ran, with the batch size that it had.
        times: seconds of each call.
        macs: multiply-accumulates of one call.
        kernels: of one call, and the seconds that they take; on a GPU only.
        memory: the peak in bytes above the weights.
    """
    mode: str
    name: str
    options: Options
    times: List[float]
    macs: int
    kernels: Optional[Kernels] = None
    memory: Optional[int] = None


def compare_with_stock(config: str, mode: str, options: Options, runs: int, with_memory: bool = True
                       ) -> Tuple[List[Row], str]:
    """Measures one mode: the rows, the stock one first, and how far the outputs agree.

    All runs take place in turn, in one fresh process, so that what ran before leaves no trace in the memory allocator;
    the peak memory of each model in a process of its own. On a GPU they share this process.

    Raises:
        ConfigError: if there is no such config.
        ValueError: if timm has no counterpart of its backbone, or the device cannot autocast to ``options.amp``.
    """
    timm_model_cfg(load_config(config).model)  # before any process is started
    check_amp(options.amp)
    options = options._replace(batch_size=case_of(mode, options).shape[0])
    rows, agree = isolated('compare_stock:_compare', config, mode, options, runs)
    rows = [Row(*row)._replace(options=options) for row in rows]
    if with_memory:
        rows = [row._replace(memory=isolated('compare_stock:_peak_memory', config, mode, options, row.name,
                                             returns_memory=True)) for row in rows]
    return rows, agree


def _compare(config: str, mode: str, options: Sequence, runs: int) -> Tuple[List[Row], str]:
    options = Options(*options)
    models, case = build_variants(config, mode, options), case_of(mode, options)
    functions = {name: function_of(mode, name, model, case, options) for name, model in models.items()}
    times = alternate(functions, runs)
    # PyTorch's counter does not see into what it compiled.
    macs = {name: macs_of(function) for name, function in functions.items() if 'compiled' not in name}
    rows = [Row(mode, name, options, times[name], macs[name.replace(', compiled', '')], kernels_of(function))
            for name, function in functions.items()]
    return rows, agreement(models, mode, case, options)


def _peak_memory(config: str, mode: str, options: Sequence, name: str) -> int:
    """Bytes that a call takes at most, above the weights."""
    options = Options(*options)
    model, case = build_variants(config, mode, options, [name])[name], case_of(mode, options)
    function = function_of(mode, name, model, case, options)
    # The libraries' own code and buffers are not the call's. cuDNN and torch.compile are warm for one shape only.
    one_shape = on_gpu() or options.compile
    warm_up(function if one_shape else function_of(mode, name, model, WARM_UP, options))
    return peak_memory(function, model)


def scaling(config: str, options: Options, sides: Sequence[int] = (256, 512, 1024, 1536), runs: int = 3
            ) -> List[Tuple[int, float]]:
    """Seconds of our prediction for each million pixels, for one square image: (side, seconds)."""
    return isolated('compare_stock:_scaling', config, options, sides, runs)


def _scaling(config: str, options: Sequence, sides: Sequence[int], runs: int) -> List[Tuple[int, float]]:
    options = Options(*options)
    ours = build_variants(config, 'predict', options, ['ours'])['ours']
    cases = {side: Case((1, 3, side, side), (side, side), '') for side in sides}
    functions = {side: function_of('predict', 'ours', ours, case, options) for side, case in cases.items()}
    return [(side, statistics.median(values) / side**2 * 1e6)
            for side, values in alternate(functions, runs).items()]


def to_json(rows: Sequence[Row], path: str) -> None:
    """Writes every single measurement."""
    amps = list(dict.fromkeys(row.options.amp for row in rows))
    content = [dict(row._asdict(), options=row.options._asdict(), kernels=row.kernels and row.kernels._asdict())
               for row in rows]
    with open(path, 'w') as file:
        json.dump(dict(machine=machine(amps), rows=content), file, indent=2)
