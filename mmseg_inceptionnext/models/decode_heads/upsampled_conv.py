"""A 3x3 convolution of enlarged maps, computed at their own low resolution. Exact: both operations are linear."""
from functools import lru_cache
from typing import List, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from ..compat import is_compiling
from ..interpolation import Block, blocks, shifted_interpolation, shifted_interpolation_in_graph

BLOCK = 32  # outputs that are computed at once, along each axis


def conv3x3_of_upsampled(base: Tensor, maps: Sequence[Tensor], weights: Sequence[Tensor], align_corners: bool
                         ) -> Tensor:
    """Adds to ``base`` the 3x3 convolutions (stride 1, padding 1) of maps resized bilinearly to its size.

    ``base + sum_i conv3x3(resize(maps[i]), weights[i])`` without a resized map. With ``W_t`` the weights of tap ``t``
    and ``S_t`` the shift by that tap which brings in zeros, ``conv3x3(resize(f)) = sum_t S_t resize(W_t f)``: nine 1x1
    convolutions at the size of ``f``. Resizing and shifting treat rows and columns apart, so what follows are products
    with two small banded matrices, along x and along y.

    Args:
        base: (N, O, H, W); it may be overwritten.
        maps: (N, C_i, h_i, w_i) each, of any sizes.
        weights: (O, C_i, 3, 3) each.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        (N, O, H, W), channels-last in memory.
    """
    dtype = base.dtype  # autocast gives the convolution's result a dtype of its own
    maps, weights = [x.to(dtype) for x in maps], [weight.to(dtype) for weight in weights]
    if torch.onnx.is_in_onnx_export() or is_compiling():
        return _traceable(base, maps, weights, align_corners)
    device = base.device.type
    with torch.autocast(device, enabled=False):
        return _ConvOfUpsampled.apply(base, align_corners, len(maps), *maps, *weights)


def _traceable(base: Tensor, maps: Sequence[Tensor], weights: Sequence[Tensor], align_corners: bool) -> Tensor:
    """The formula as it stands, in operations that tracers understand; traced sizes stay free."""
    n, out, height, width = base.shape
    shifted = shifted_interpolation_in_graph if torch.jit.is_tracing() else shifted_interpolation
    along_y, rows = [], []
    for x, weight in zip(maps, weights):
        h, w = x.shape[-2:]
        along_y.append(shifted(h, height, align_corners).flatten(1).to(x))  # (H, (dy, h))
        along_x = shifted(w, width, align_corners).transpose(1, 2).flatten(1).to(x)  # (W, (w, dx))
        rows += [torch.matmul(along_x, _conv_tap(x, tap)).reshape(n, h, width * out) for tap in _taps(weight)]
    total = base.permute(0, 2, 3, 1).reshape(n, height, width * out)
    total = total + torch.matmul(torch.cat(along_y, 1), torch.cat(rows, 1))  # of all maps at once
    return total.reshape(n, height, width, out).permute(0, 3, 1, 2)


class _ConvOfUpsampled(torch.autograd.Function):
    """The same in blocks, with a backward pass that needs nothing but the maps and the weights."""

    @staticmethod
    def forward(ctx, base: Tensor, align_corners: bool, num_maps: int, *maps_and_weights: Tensor) -> Tensor:
        ctx.align_corners, ctx.num_maps = align_corners, num_maps
        ctx.save_for_backward(*maps_and_weights)
        result = base.contiguous(memory_format=torch.channels_last)
        if any(ctx.needs_input_grad) and result.data_ptr() == base.data_ptr():
            result = result.clone()  # autograd is not to find its input changed
        total = result.permute(0, 2, 3, 1)
        for x, weight in zip(maps_and_weights[:num_maps], maps_and_weights[num_maps:]):
            rows, cols = _blocks(x.shape[-2:], total.shape[1:3], align_corners, x.dtype, x.device)
            for dy, tap in enumerate(_taps(weight)):
                _add_resized(total, _conv_tap(x, tap), [row._replace(matrix=row.matrix[:, dy]) for row in rows], cols)
        return result

    @staticmethod
    def backward(ctx, grad: Tensor):
        maps, weights = ctx.saved_tensors[:ctx.num_maps], ctx.saved_tensors[ctx.num_maps:]
        grad_hwc = grad.permute(0, 2, 3, 1).contiguous()
        grads = [_backward(x, weight, grad_hwc, ctx.align_corners) for x, weight in zip(maps, weights)]
        return grad, None, None, *(g[0] for g in grads), *(g[1] for g in grads)


def _add_resized(total: Tensor, taps: Tensor, rows: List[Block], cols: List[Block]) -> None:
    """Adds what three taps, (N, h, 3 w, O), become at full size to ``total``, (N, H, W, O)."""
    for col in cols:
        stretched = torch.matmul(col.matrix, taps[:, :, 3 * col.inputs.start:3 * col.inputs.stop])
        for row in rows:
            for target, source in zip(total[:, row.outputs, col.outputs], stretched[:, row.inputs]):
                _add_product(target, row.matrix, source)


def _backward(x: Tensor, weight: Tensor, grad: Tensor, align_corners: bool) -> Tuple[Tensor, Tensor]:
    """Gradients of one map and its weights: first those of the taps' 1x1 convolutions, at the map's size."""
    n, height, width, out = grad.shape
    h, w = x.shape[-2:]
    tap_grads = [grad.new_zeros(n, h, 3 * w, out) for _ in range(3)]
    rows, cols = _blocks((h, w), (height, width), align_corners, x.dtype, x.device)
    for col in cols:
        taken = slice(3 * col.inputs.start, 3 * col.inputs.stop)
        for dy in range(3):
            shrunk = grad.new_zeros(n, h, col.matrix.shape[0], out)
            for row in rows:
                for target, source in zip(shrunk[:, row.inputs], grad[:, row.outputs, col.outputs]):
                    _add_product(target, row.matrix[:, dy].t(), source)
            tap_grads[dy][:, :, taken] += torch.matmul(col.matrix.t(), shrunk)
    x_grad, weight_grads = 0, []
    for tap_grad, tap in zip(tap_grads, _taps(weight)):
        tap_grad = tap_grad.view(n, h, w, 3 * out).permute(0, 3, 1, 2)
        x_grad = x_grad + conv2d_input(x.shape, tap, tap_grad)
        weight_grads.append(conv2d_weight(x, tap.shape, tap_grad).view(3, out, -1))
    return x_grad, torch.stack(weight_grads).permute(2, 3, 0, 1).contiguous()


def _add_product(target: Tensor, matrix: Tensor, x: Tensor) -> None:
    """``target += matrix @ x`` along the first axis."""
    flat = target.flatten(1)
    torch.addmm(flat, matrix, x.flatten(1), out=flat)  # addmm_ would escape PyTorch's counter of operations


def _taps(weight: Tensor) -> List[Tensor]:
    """(O, C, 3, 3) to the weights of three 1x1 convolutions, one for each dy, with 3 O outputs in the order (dx, O)."""
    return [weight[:, :, dy].permute(2, 0, 1).reshape(-1, weight.shape[1], 1, 1) for dy in range(3)]


def _conv_tap(x: Tensor, tap: Tensor) -> Tensor:
    """One of the taps' 1x1 convolutions of a map: (N, h, 3 w, O), whose third axis is (w, dx)."""
    n, _, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, tap).permute(0, 2, 3, 1).reshape(n, h, 3 * w, -1)


@lru_cache(maxsize=64)
def _blocks(size: Tuple[int, int], new_size: Tuple[int, int], align_corners: bool, dtype: torch.dtype,
            device: torch.device) -> Tuple[List[Block], List[Block]]:
    """Resizing with the shifts in blocks: along y the matrices are (H, dy, h), along x (W, (w, dx))."""
    y, x = (blocks(shifted_interpolation(a, b, align_corners), BLOCK) for a, b in zip(size, new_size))
    return ([block._replace(matrix=block.matrix.to(device, dtype)) for block in y],
            [block._replace(matrix=block.matrix.transpose(1, 2).flatten(1).to(device, dtype)) for block in x])
