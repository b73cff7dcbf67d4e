"""UPerHead whose 3x3 convolution of enlarged maps is computed at the maps' own size."""
from functools import lru_cache
from typing import List, Sequence, Tuple

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor
from torch.fx import Proxy
from torch.nn import functional as F

from mmseg_inceptionnext.models.compat import autocast_type, is_compiling, is_traced
from mmseg_inceptionnext.models.device_plan import plan_of
from mmseg_inceptionnext.models.interpolation import (
    Size,
    average_matrix,
    blocks,
    interpolation_matrix,
    resample,
    resizing,
)
from mmseg_inceptionnext.models.winograd import WinogradConv2d

from .upsampled_conv import conv3x3_of_upsampled


@MODELS.register_module()
class FastUPerHead(UPerHead):
    """UPerHead with the same arguments, parameters, outputs and gradients, and a fraction of the multiplications.

    Stock UPerNet enlarges three of four maps to the size of the largest, concatenates them and convolves the result.
    Here each map is convolved at its own size and the result enlarged, which is equal up to rounding: see
    :func:`conv3x3_of_upsampled`. At 512 x 512 the whole network's work falls from 233 to about 130 GMACs. Checkpoints
    of ``UPerHead`` load strictly, and the other way.

    Pooling, and resizing where only deterministic algorithms are allowed, are matrix products, whose gradients are
    deterministic on a GPU too.

    Shape: four maps (N, C_i, H_i, W_i) to logits (N, num_classes, H_0, W_0).
    """

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """The features before the classifier: (N, channels, H_0, W_0)."""
        given, inputs = inputs, self._transform_inputs(inputs)
        if isinstance(inputs[-1], Proxy):
            return super()._forward_feature(given)  # of torch.fx, which has no sizes to make matrices of
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        maps.append(self.psp_forward(inputs))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = self._resize(maps[i], maps[i - 1].shape[2:]).add_(maps[i - 1])
        for i, conv in enumerate(self.fpn_convs):  # one by one: each result takes the place of what it came from
            maps[i] = conv(maps[i])
        return self._conv_of_resized(self.fpn_bottleneck, maps)

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pyramid pooling of the last map: (N, C, H, W) to (N, channels, H, W)."""
        if is_traced() or isinstance(inputs[-1], Proxy):
            return super().psp_forward(inputs)
        x = inputs[-1]
        n, channels, *size = x.shape
        scales = tuple(self.psp_modules.pool_scales)
        dtype = torch.promote_types(x.dtype, torch.float32)
        make = _pooling if is_compiling() else _pooling_kept
        pooling, enlarging = make(scales, tuple(size), self.align_corners, dtype, x.device)
        with torch.autocast(autocast_type(x), enabled=False):
            pixels = x.permute(0, 2, 3, 1).reshape(n, -1, channels).to(dtype)
            pooled = torch.bmm(pooling.expand(n, -1, -1), pixels).to(x.dtype)  # (N, pixels of all scales, C)
        pooled = [
            module[1](part.unflatten(1, (scale, scale)).permute(0, 3, 1, 2)) for module, scale, part in
            zip(self.psp_modules, scales, pooled.split([s * s for s in scales], 1))]
        if not is_compiling() and plan_of(x.device).conv_pooled:
            return self._conv_of_resized(self.bottleneck, [x, *pooled])
        for i, (y, matrix) in enumerate(zip(pooled, enlarging)):
            with torch.autocast(autocast_type(x), enabled=False):
                pixels = y.permute(0, 2, 3, 1).flatten(1, 2).to(dtype)
                enlarged = torch.bmm(matrix.expand(n, -1, -1), pixels).to(y.dtype)
            pooled[i] = enlarged.unflatten(1, size).permute(0, 3, 1, 2)
        return self.bottleneck(torch.cat([x, *pooled], 1))

    def _resize(self, x: Tensor, size: Size) -> Tensor:
        if torch.are_deterministic_algorithms_enabled() and not is_traced():
            return resize_by_products(x, tuple(size), self.align_corners)
        return resize(x, size=size, mode='bilinear', align_corners=self.align_corners)

    def _conv_of_resized(self, module: ConvModule, maps: List[Tensor]) -> Tensor:
        """``module(cat([maps[0], *(resized to its size: maps[1:])]))``; takes the first out of the list, to free it."""
        conv = module.conv
        weights = conv.weight.split([x.shape[1] for x in maps], dim=1)
        if isinstance(conv, WinogradConv2d):  # of a fused model
            base = conv(maps.pop(0))
        else:
            base = F.conv2d(maps.pop(0), weights[0], conv.bias, padding=1)
        y = conv3x3_of_upsampled(base, maps, weights[1:], self.align_corners)
        if module.with_norm:
            y = module.norm(y)
        return module.activate(y) if module.with_activation else y


def resize_by_products(x: Tensor, size: Size, align_corners: bool) -> Tensor:
    """Bilinear resizing of (N, C, h, w), channels-last, as two matrix products, each with a deterministic gradient."""
    images = x.permute(0, 2, 3, 1).to(torch.promote_types(x.dtype, torch.float32))
    (rows, ), (cols, ) = (blocks(axis, axis.new_size, images.dtype, x.device)
                          for axis in resizing(tuple(x.shape[2:]), size, align_corners))
    return resample(images, rows, cols).permute(0, 3, 1, 2).to(x.dtype)


def _pooling(scales: Tuple[int, ...], size: Size, align_corners: bool, dtype: torch.dtype, device: torch.device
             ) -> Tuple[Tensor, List[Tensor]]:
    """The pyramid of a map of H x W pixels as matrices: (pixels of all scales, H W), and (H W, S S) for each scale."""
    like = torch.empty((), dtype=dtype, device=device)
    pooling = [_kron(*(average_matrix(scale, length, like) for length in size)) for scale in scales]
    enlarging = [_kron(*(interpolation_matrix(scale, length, align_corners, like) for length in size))
                 for scale in scales]
    return torch.cat(pooling), enlarging


_pooling_kept = lru_cache(maxsize=64)(torch.inference_mode(False)(_pooling))  # made once


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """``torch.kron`` of two matrices; PyTorch's own would compile for one size only."""
    return (a[:, None, :, None] * b[:, None]).flatten(2).flatten(0, 1)
