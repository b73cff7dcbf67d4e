"""Folds norms and scales into the convolutions beside them, for inference."""
import copy
from typing import Callable, Optional

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from mmseg.models.decode_heads import UPerHead
from mmseg.models.necks import FPN
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones.metanext import MetaNeXtBase, MetaNeXtBlock, MetaNeXtStage
from .compat import is_compiling
from .decode_heads import FastUPerHead
from .device_plan import plan_of
from .winograd import WinogradConv2d


def fuse(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Makes a model for inference with the same outputs to rounding.

    In the backbone each BatchNorm is folded into the convolution after it (into the one before it in the stem) and
    ``gamma`` into the last convolution of its block; in neck and decode head each BatchNorm into the convolution before
    it; the norms on the outputs into the 1x1 convolutions that take them, where nothing else takes them. Activations
    overwrite their inputs. The weights take the memory format of the device's :class:`DevicePlan`, and on a CPU neck
    and head convolve by :class:`WinogradConv2d` where that is faster. The auxiliary head, which only training uses, is
    dropped.

    Args:
        model: a :class:`MetaNeXt` or :class:`IsotropicMetaNeXt`, or a segmentor; fused ones are returned as they are.
        inplace: change ``model`` itself instead of a copy of it.

    Returns:
        The fused model, in eval mode; it refuses to be trained.

    Raises:
        TypeError: for any other model.
    """
    if not isinstance(model, (MetaNeXtBase, BaseSegmentor)):
        raise TypeError(f'fuse takes a MetaNeXt backbone or a segmentor, got {type(model).__name__}')
    if any(isinstance(module, _Fused) for module in model.modules()):
        return model
    model = (model if inplace else copy.deepcopy(model)).eval()
    with torch.no_grad():
        if isinstance(model, BaseSegmentor):
            _fuse_segmentor(model)
        else:
            _fuse_backbone(model)
    model.fused = _Fused()
    return model.to(memory_format=plan_of(next(model.parameters()).device).memory_format)


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
        limit = None if torch.onnx.is_in_onnx_export() or is_compiling() else plan_of(x.device).mlp_bytes
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
    if model.with_auxiliary_head:
        model.auxiliary_head = None
    for part in filter(None, (getattr(model, 'neck', None), model.decode_head)):
        fuse_conv_bn(part)
        for module in part.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True
    convolve_by_winograd(model, WinogradConv2d.pays)
    if isinstance(model.backbone, MetaNeXtBase):
        _fuse_backbone(model.backbone)
        _fold_output_norms(model)


def convolve_by_winograd(model: BaseSegmentor, pays: Callable[[nn.Module, int], bool]) -> None:
    """Puts Winograd's method into the 3x3 convolutions of neck and head for which it pays, and no others.

    Args:
        model: a fused segmentor, changed in place.
        pays: says so of a convolution and the number of its inputs that are convolved.
    """
    head = model.decode_head
    for module in [*(model.neck.modules() if model.with_neck else ()), *head.modules()]:
        if not isinstance(module, ConvModule):
            continue
        if isinstance(module.conv, WinogradConv2d):
            module.conv = module.conv.plain()
        num_inputs = module.conv.in_channels
        if isinstance(head, FastUPerHead) and module is head.fpn_bottleneck:
            num_inputs = head.channels  # the others are enlarged maps, convolved at their own size
        if pays(module.conv, num_inputs):
            module.conv = WinogradConv2d(module.conv, num_inputs)


def _fuse_backbone(backbone: MetaNeXtBase) -> None:
    fuse_conv_bn(backbone.stem)
    for module in list(backbone.modules()):
        if isinstance(module, MetaNeXtStage) and isinstance(module.downsample, nn.Sequential):
            module.downsample[0] = _fold_into_next(*module.downsample)
        elif isinstance(module, MetaNeXtBlock):
            module.norm = _fold_into_next(module.norm, module.mlp.fc1)
            if module.gamma is not None:
                module.mlp.fc2.weight.mul_(module.gamma.view(-1, 1, 1, 1))
                module.mlp.fc2.bias.mul_(module.gamma)
                module.gamma = None
            module.mlp = _FusedMlp(module.mlp)


def _fold_output_norms(model: BaseSegmentor) -> None:
    """Each output's norm into the convolutions that take the output."""
    for position, index in enumerate(model.backbone.out_indices):
        conv = _only_consumer(model, position)
        if conv is not None:
            norm = getattr(model.backbone, f'norm{index}')
            setattr(model.backbone, f'norm{index}', _fold_into_next(norm, conv))


def _only_consumer(model: BaseSegmentor, position: int) -> Optional[nn.Module]:
    """The 1x1 convolution that takes an output of the backbone; None if something else takes it, too."""
    level = None
    if model.with_neck:
        taker = model.neck
        if type(taker) is FPN and taker.start_level == 0 and not taker.add_extra_convs:
            level = position
    else:
        taker = model.decode_head
        if isinstance(taker, UPerHead) and list(taker.in_index).count(position) == 1:
            level = list(taker.in_index).index(position)  # that of the last is not among its lateral ones: it is padded
    return taker.lateral_convs[level].conv if level is not None and level < len(taker.lateral_convs) else None


def _fold_into_next(norm: nn.Module, conv: nn.Module) -> nn.Module:
    """Folds a BatchNorm into the convolution after it; returns what stays in its place.

    Exact only without padding: a padded zero would have to become the norm's shift.
    """
    if not isinstance(norm, _BatchNorm) or type(conv) is not nn.Conv2d or conv.groups != 1 or conv.padding not in (
            (0, 0), 'valid'):
        return norm  # a subclass may pad by itself, as timm's "same" convolution does
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    bias = torch.einsum('ocyx,c->o', conv.weight.double(), shift)
    if conv.bias is not None:
        bias = bias + conv.bias
    conv.weight.copy_(conv.weight * scale.view(1, -1, 1, 1))
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
    return nn.Identity()
