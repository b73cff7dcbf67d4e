"""Folds norms and scales into the convolutions beside them, for inference."""
import copy
import logging
from functools import partial
from typing import Callable, Iterable, List, Sequence, Tuple

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmengine.logging import print_log
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones.metanext import ConvMlp, MetaNeXtBase, MetaNeXtBlock
from .classifiers import ImageClassifier
from .compat import is_compiling, is_traced
from .decode_heads import FastUPerHead
from .device_plan import plan_of
from .observed import Observed, is_hooked
from .winograd import WinogradConv2d

SIDE = 64  # of the images on which a model is observed, in pixels
ODD = 96, 160  # others, 3 x 5 times the stride of a backbone


def fuse(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Makes a model for inference with the same outputs to rounding.

    In a MetaNeXt backbone, neck and decode head each BatchNorm is folded into the convolution before it, or into one
    without padding after it, and ``gamma`` into the last convolution of its block. What runs before what is seen in
    passes of random images, see :class:`Observed`: only what a convolution and a norm pass on to each other alone is
    folded, and norms stay where hooks look on, or where the model cannot do with such images (a warning says so).
    Activations overwrite their inputs where nothing else takes these. The weights take the memory format of the
    device's :class:`DevicePlan` unless the model cannot run so, and on a CPU neck and head convolve by
    :class:`WinogradConv2d` where that is faster. The auxiliary head is dropped, unless a pass uses it.

    Args:
        model: a :class:`MetaNeXt` or :class:`IsotropicMetaNeXt`, a classifier with one, or a segmentor; fused ones are
            returned as they are.
        inplace: change ``model`` itself instead of a copy of it.

    Returns:
        The fused model, in eval mode; it refuses to be trained.

    Raises:
        TypeError: for any other model.
    """
    if not isinstance(model, (MetaNeXtBase, ImageClassifier, BaseSegmentor)):
        raise TypeError(f'fuse takes a MetaNeXt backbone, a classifier with one, or a segmentor, got '
                        f'{type(model).__name__}')
    if any(isinstance(module, _Fused) for module in model.modules()):
        return model
    model = (model if inplace else copy.deepcopy(model)).eval()
    with torch.no_grad():
        if isinstance(model, BaseSegmentor):
            _fuse_segmentor(model)
        else:
            backbone = model.backbone if isinstance(model, ImageClassifier) else model
            _fold(backbone, [backbone])
    model.fused = _Fused()
    return model


def cast_convolutions(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Casts the weights of convolutions and linear layers, for inference under autocast to the same dtype.

    Autocast would cast them in each call anew. The results are the same, bit for bit.

    Args:
        model: changed in place.
        dtype: half precision.

    Returns:
        The same model.
    """
    if isinstance(model, BaseSegmentor):
        convolve_by_winograd(model, lambda *_: False)  # which is for single precision
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)
    return model


class _Fused(nn.Module):
    """Marks a fused model and keeps it from training."""

    def train(self, mode: bool = True) -> '_Fused':
        if mode:
            raise RuntimeError('a fused model cannot be trained: its norms are folded into its convolutions. Train the '
                               'model that it was made from and fuse that again')
        return super().train(mode)


class _FusedMlp(nn.Module):
    """A ConvMlp that overwrites its hidden map, the widest of the network; on a CPU it runs a few rows at a time."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = mlp.fc1, mlp.act, mlp.fc2
        self.is_gelu = isinstance(mlp.act, nn.GELU) and mlp.act.approximate == 'none'

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        limit = None if is_traced() or is_compiling() else plan_of(x.device).mlp_bytes
        if limit is None:
            return self._run(x)
        rows = max(1, limit // (n * self.fc1.out_channels * width * x.element_size()))
        if rows >= height:
            return self._run(x)
        result = None
        for top in range(0, height, rows):
            part = self._run(x[:, :, top:top + rows])
            if result is None:
                size = n, part.shape[1], height, width
                result = torch.empty(
                    size, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
            result[:, :, top:top + rows] = part
        return result

    def _run(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(torch.ops.aten.gelu_(hidden) if self.is_gelu else self.act(hidden))


def _fuse_segmentor(model: BaseSegmentor) -> None:
    parts = [part for part in (getattr(model, 'neck', None), model.decode_head) if part is not None]
    backbone = [part for part in [getattr(model, 'backbone', None)] if isinstance(part, MetaNeXtBase)]
    auxiliary = model.auxiliary_head.modules() if model.with_auxiliary_head else ()
    ran: List[nn.Module] = []
    handles = [module.register_forward_pre_hook(lambda module, _: ran.append(module)) for module in auxiliary]
    if not _fold(model, parts + backbone) and backbone:
        _fold(backbone[0], backbone)
    for handle in handles:
        handle.remove()
    if handles and not ran:
        model.auxiliary_head = None
    convolve_by_winograd(model, WinogradConv2d.pays)


def convolve_by_winograd(model: BaseSegmentor, pays: Callable[[nn.Module, int], bool]) -> None:
    """Puts Winograd's method into the 3x3 convolutions of neck and head for which it pays, and no others.

    Args:
        model: a fused segmentor, changed in place.
        pays: says so of a convolution and the number of its inputs that are convolved.
    """
    head = model.decode_head
    for module in [*(model.neck.modules() if model.with_neck else ()), *head.modules()]:
        if not isinstance(module, ConvModule) or (isinstance(head, FastUPerHead) and module is head.bottleneck):
            continue  # that one convolves all of its inputs, or the first of them: as the plan has it
        if isinstance(module.conv, WinogradConv2d):
            module.conv = module.conv.plain()
        num_inputs = module.conv.in_channels
        if isinstance(head, FastUPerHead) and module is head.fpn_bottleneck:
            num_inputs = head.channels  # the others are enlarged maps, convolved at their own size
        if pays(module.conv, num_inputs) and not is_hooked(module.conv):
            module.conv = WinogradConv2d(module.conv, num_inputs)


def _fold(model: nn.Module, parts: Sequence[nn.Module]) -> bool:
    """Folds what is in some parts of a model, as passes of the whole show that it runs; false if these fail."""
    modules = {module for part in parts for module in part.modules()}
    seen = _observed(model, modules)
    if not seen:
        return False
    in_all = set.intersection(*(set(one.pairs()) for one in seen))
    pairs = [*(pair for pair in seen[0].pairs() if pair in in_all),
             *(pair for part in parts for pair in _pairs_without_calls(part))]
    for first, second in pairs:
        if isinstance(second, nn.ReLU):
            second.inplace = True
        elif isinstance(second, _BatchNorm) and isinstance(first, nn.Conv2d):
            _fold_into_previous(first, second)
    for first, second in pairs:  # a norm between two convolutions is an identity by now
        if isinstance(first, _BatchNorm) and isinstance(second, nn.Conv2d):
            _fold_into_next(first, second)
    for module in modules:
        if isinstance(module, MetaNeXtBlock):
            _fuse_mlp(module, seen)
    return True


def _observed(model: nn.Module, modules: Iterable[nn.Module]) -> List[Observed]:
    """A pass of noise, in images that are small or else as large as in training; it finds the memory format, too.

    And one of images of which the maps have odd sizes, if the model can do with these: it may run otherwise then.
    """
    whole = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    sizes = [(SIDE, SIDE), *([tuple(whole)] if whole else [])]
    own_format = plan_of(next(model.parameters()).device).memory_format
    # The views of some heads need contiguous maps, or a single image.
    for memory_format, count in ((own_format, 2), (torch.contiguous_format, 2), (own_format, 1)):
        model.to(memory_format=memory_format)
        for size in sizes:
            try:
                seen = [Observed(filter(_is_foldable, modules), model, partial(_run, model, size, count))]
            except Exception as failure:  # whatever a model raises that cannot do with such images
                error = failure
                continue
            try:
                return [*seen, Observed(filter(_is_foldable, modules), model, partial(_run, model, ODD, count))]
            except Exception:  # of a model for images of one size, as which it was seen
                return seen
    print_log(f'{type(model).__name__}: its norms stay apart from its convolutions, since it cannot be run on images '
              f'of {" or ".join(map(str, sizes))} pixels: {error!r}', logger='current', level=logging.WARNING)
    return []


def _run(model: nn.Module, size: Tuple[int, int], count: int) -> object:
    """Runs a model on images of noise, without torch.compile, which would take minutes."""
    compiled = {module: vars(module).pop('_compiled_call_impl') for module in model.modules()
                if '_compiled_call_impl' in vars(module)}
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    images = torch.randn(count, conv.in_channels, *size, device='cpu', generator=torch.Generator().manual_seed(0))
    images = images.to(dtype=conv.weight.dtype, device=conv.weight.device)
    try:
        if not isinstance(model, BaseSegmentor):
            return model(images)
        meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)
        return model.encode_decode(images, [meta] * count)
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


def _is_foldable(module: nn.Module) -> bool:
    """Whether a module is a plain convolution, a BatchNorm with statistics, or a ReLU; a subclass may do anything."""
    if isinstance(module, _BatchNorm):
        return (type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward) and not module.training
                and module.running_mean is not None)
    return type(module) in (nn.Conv2d, Conv2d, nn.ReLU)


def _pairs_without_calls(head: nn.Module) -> List[Tuple[nn.Module, nn.Module]]:
    """The convolutions of a :class:`FastUPerHead` whose weights it takes itself, with their norms."""
    names = '_forward_feature', 'psp_forward', '_conv_of_resized'
    if not isinstance(head, FastUPerHead) or any(
            getattr(type(head), name) is not getattr(FastUPerHead, name) for name in names):
        return []
    pairs = [(module.conv, module.norm) for module in (head.bottleneck, head.fpn_bottleneck) if module.with_norm]
    return [pair for pair in pairs if all(_is_foldable(module) and not is_hooked(module) for module in pair)]


def _fuse_mlp(block: MetaNeXtBlock, seen: List[Observed]) -> None:
    mlp = block.mlp
    if type(mlp) is not ConvMlp or any(map(is_hooked, mlp.modules())):
        return
    if block.gamma is not None and all(one.ran_once(mlp.fc2) for one in seen) and (
            type(block)._forward is MetaNeXtBlock._forward):
        _set(mlp.fc2, mlp.fc2.weight * block.gamma.view(-1, 1, 1, 1), mlp.fc2.bias * block.gamma)
        block.gamma = None
    block.mlp = _FusedMlp(mlp)


def _fold_into_previous(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Folds a BatchNorm into the convolution before it."""
    scale, shift = _scale_and_shift(norm)
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    _set(conv, conv.weight * scale.view(-1, 1, 1, 1), shift)
    _make_identity(norm)


def _fold_into_next(norm: nn.Module, conv: nn.Conv2d) -> None:
    """Folds a BatchNorm into the convolution after it.

    Exact only without padding: a padded zero would have to become the norm's shift.
    """
    if conv.groups != 1 or conv.padding not in ((0, 0), 'valid'):
        return
    scale, shift = _scale_and_shift(norm)
    bias = torch.einsum('ocyx,c->o', conv.weight.double(), shift)
    if conv.bias is not None:
        bias = bias + conv.bias
    _set(conv, conv.weight * scale.view(1, -1, 1, 1), bias)
    _make_identity(norm)


def _scale_and_shift(norm: nn.Module) -> Tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies by and adds, in float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """New parameters, since the old ones may be those of another module, too."""
    dtype = conv.weight.dtype
    conv.weight, conv.bias = (nn.Parameter(x.to(dtype), requires_grad=False) for x in (weight, bias))


def _make_identity(norm: nn.Module) -> None:
    """Turns the norm itself into an identity, wherever it is held."""
    norm._parameters.clear()
    norm._buffers.clear()
    norm.__class__ = nn.Identity
