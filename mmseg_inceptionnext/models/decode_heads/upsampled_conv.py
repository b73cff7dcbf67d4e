"""A 3x3 convolution of enlarged maps, computed at their own low resolution. Exact: both operations are linear."""
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_inceptionnext.models.compat import autocast_type, is_compiling, is_traced, once_differentiable
from mmseg_inceptionnext.models.device_plan import DevicePlan, plan_of
from mmseg_inceptionnext.models.interpolation import add_product, parts, resized, shifted_matrix


def conv3x3_of_upsampled(base: Tensor, maps: Sequence[Tensor], weights: Sequence[Tensor], align_corners: bool
                         ) -> Tensor:
    """Adds to ``base`` the 3x3 convolutions (stride 1, padding 1) of maps resized bilinearly to its size.

    ``base + sum_i conv3x3(resize(maps[i]), weights[i])`` without a resized map. With ``W_t`` the weights of tap ``t``
    and ``S_t`` the shift by that tap which brings in zeros, ``conv3x3(resize(f)) = sum_t S_t resize(W_t f)``: nine 1x1
    convolutions at the size of ``f``. Resizing and shifting treat rows and columns apart, so what follows are products
    with two small banded matrices: along x, then along y, which adds the taps up.

    Under autocast it computes in the dtype of ``base``. Half precision is rounded after the 1x1 convolutions, after the
    products along x and at the end: one product along y adds up all maps, in float32 as matrix products do. In single
    precision they are added one by one, which takes less memory. It can be differentiated once.

    Args:
        base: (N, O, H, W), no leaf that wants a gradient; it is overwritten.
        maps: (N, C_i, h_i, w_i) each, of any sizes.
        weights: (O, C_i, 3, 3) each.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        (N, O, H, W), channels-last in memory.
    """
    if not maps:
        return base
    dtype = base.dtype  # autocast gives the convolution's result a dtype of its own
    # Without a cast where there is none: the exporter of PyTorch 2.1 would no longer know a kernel's shape.
    maps, weights = ([x if x.dtype == dtype else x.to(dtype) for x in tensors] for tensors in (maps, weights))
    if is_traced() or is_compiling():
        return _traceable(base, maps, weights, align_corners)
    if dtype in (torch.float16, torch.bfloat16):
        return _ConvOfUpsampled.apply(base, align_corners, len(maps), *maps, *weights)
    for x, weight in zip(maps, weights):
        base = _ConvOfUpsampled.apply(base, align_corners, 1, x, weight)
    return base


def _traceable(base: Tensor, maps: Sequence[Tensor], weights: Sequence[Tensor], align_corners: bool) -> Tensor:
    """The formula as it stands, in operations that tracers understand; traced sizes stay free."""
    n, out, height, width = base.shape
    along_y, rows = [], []
    for x, weight in zip(maps, weights):
        h, w = x.shape[-2:]
        along_y.append(shifted_matrix(h, height, align_corners, x).flatten(1).to(x))  # (H, (dy, h))
        along_x = shifted_matrix(w, width, align_corners, x).transpose(1, 2).flatten(1).to(x)  # (W, (w, dx))
        for tap in _taps(weight):
            products = F.conv2d(x.contiguous(memory_format=torch.channels_last), tap)
            products = products.permute(0, 2, 3, 1).reshape(n, h, 3 * w, out)
            rows.append(torch.matmul(along_x, products).reshape(n, h, width * out))
    total = base.permute(0, 2, 3, 1).reshape(n, height, width * out)
    total = total + torch.matmul(torch.cat(along_y, 1), torch.cat(rows, 1))
    return total.reshape(n, height, width, out).permute(0, 3, 1, 2)


class _ConvOfUpsampled(torch.autograd.Function):
    """The same in tiles, with a backward pass that needs nothing but the maps and the weights."""

    @staticmethod
    def forward(ctx, base: Tensor, align_corners: bool, num_maps: int, *maps_and_weights: Tensor) -> Tensor:
        maps, weights = maps_and_weights[:num_maps], maps_and_weights[num_maps:]
        ctx.align_corners, ctx.num_maps, ctx.plan = align_corners, num_maps, plan_of(base.device)
        ctx.save_for_backward(*maps_and_weights)
        result = base.contiguous(memory_format=torch.channels_last)
        if result is base:
            ctx.mark_dirty(base)
        total = result.permute(0, 2, 3, 1)
        with torch.autocast(autocast_type(base), enabled=False):
            taps = [_taps(weight) for weight in weights]
            for tile in _tiles(maps, total, align_corners, ctx.plan):
                target, matrix, rows = _output_and_rows(total, tile)
                _fill(rows, maps, taps, tile)
                add_product(target.view(*target.shape[:2], -1), matrix, rows.flatten(2).transpose(0, 1))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        maps, weights = ctx.saved_tensors[:ctx.num_maps], ctx.saved_tensors[ctx.num_maps:]
        total = grad.permute(0, 2, 3, 1).contiguous()
        with torch.autocast(autocast_type(grad), enabled=False):
            taps = [_taps(weight) for weight in weights]
            sums = torch.promote_types(grad.dtype, torch.float32)
            map_grads = [torch.zeros_like(x, dtype=sums, memory_format=torch.channels_last) for x in maps]
            tap_grads = [torch.zeros_like(tap, dtype=sums) for tap in taps]
            for tile in _tiles(maps, total, ctx.align_corners, ctx.plan):
                part, matrix, rows = _output_and_rows(total, tile)
                torch.bmm(matrix.t().expand(len(part), -1, -1), part.flatten(2), out=rows.flatten(2).transpose(0, 1))
                _add_gradients(map_grads, tap_grads, rows, maps, taps, tile)
        weight_grads = [g.view(3, 3, -1, g.shape[2]).permute(2, 3, 0, 1).contiguous() for g in tap_grads]
        return grad, None, None, *(g.to(grad.dtype) for g in [*map_grads, *weight_grads])


class _Block(NamedTuple):
    """Neighbouring rows or columns of the output, those that they take of each map, and the products that make them.

    The matrices are (outputs, inputs). Of columns there is one for each map, with inputs in the order (column, dx); of
    rows a single one for all maps, with inputs in the order (map, dy, row).
    """
    outputs: slice
    inputs: List[slice]
    matrices: List[Tensor]


class _Tile(NamedTuple):
    images: slice
    rows: _Block
    cols: _Block


def _tiles(maps: Sequence[Tensor], total: Tensor, align_corners: bool, plan: DevicePlan) -> Iterator[_Tile]:
    """Tiles of the output, (N, H, W, O), which cover it once."""
    n, height, width, out = total.shape
    heights, widths = (tuple(x.shape[axis] for x in maps) for axis in (2, 3))
    settings = align_corners, plan.conv_side, total.dtype, total.device
    rows, columns = _blocks(heights, height, True, *settings), _blocks(widths, width, False, *settings)
    stretched = rows[-1].matrices[0].shape[1] * min(plan.conv_side, width) * out * total.element_size()
    for images in parts(n, plan.conv_bytes // stretched):
        for row in rows:
            for cols in columns:
                yield _Tile(images, row, cols)


def _output_and_rows(total: Tensor, tile: _Tile) -> Tuple[Tensor, Tensor, Tensor]:
    """A tile: of the output, its matrix, and an empty tensor for what that takes, (rows of all maps, n, columns, O)."""
    part, matrix = total[tile.images, tile.rows.outputs, tile.cols.outputs], tile.rows.matrices[0]
    return part, matrix, total.new_empty(matrix.shape[1], len(part), *part.shape[2:])


def _fill(rows: Tensor, maps: Sequence[Tensor], taps: Sequence[Tensor], tile: _Tile) -> None:
    """The taps' 1x1 convolutions of all maps, stretched along x: into (rows of all maps, n, columns, O)."""
    start = 0
    for tap, matrix, (flat, height) in zip(taps, tile.cols.matrices, _parts_of_maps(maps, tile)):
        for dy in range(3):
            products = F.conv2d(flat, tap[dy]).permute(0, 2, 3, 1).reshape(flat.shape[2], matrix.shape[1], -1)
            target = rows[start:start + height].view(len(products), *rows.shape[2:])
            torch.bmm(matrix.expand(len(products), -1, -1), products, out=target)
            start += height


def _add_gradients(map_grads: Sequence[Tensor], tap_grads: Sequence[Tensor], rows: Tensor, maps: Sequence[Tensor],
                   taps: Sequence[Tensor], tile: _Tile) -> None:
    """The transpose of :func:`_fill`: adds the gradients of the maps and of the taps' weights, from those of rows."""
    start = 0
    for i, (matrix, (flat, height)) in enumerate(zip(tile.cols.matrices, _parts_of_maps(maps, tile))):
        part = rows[start:start + 3 * height].flatten(0, 1)
        start += 3 * height
        grads = torch.bmm(matrix.t().expand(len(part), -1, -1), part)  # ((dy, row, image), (column, dx), O)
        grads = grads.view(3, 1, *flat.shape[2:], -1).permute(0, 1, 4, 2, 3)
        target = map_grads[i][tile.images, :, tile.rows.inputs[i], tile.cols.inputs[i]]
        for dy in range(3):
            x_grad, tap_grad, _ = torch.ops.aten.convolution_backward(
                grads[dy], flat, taps[i][dy], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False])
            target.add_(x_grad[0].unflatten(1, (height, -1)).permute(2, 0, 1, 3))
            tap_grads[i][dy].add_(tap_grad)


def _parts_of_maps(maps: Sequence[Tensor], tile: _Tile) -> Iterator[Tuple[Tensor, int]]:
    """What a tile takes of each map, as one image, (1, C, height * n, width), with rows (row, image); and height."""
    for x, rows, cols in zip(maps, tile.rows.inputs, tile.cols.inputs):
        part = x[tile.images, :, rows, cols].permute(2, 0, 3, 1).contiguous()
        yield part.flatten(0, 1)[None].permute(0, 3, 1, 2), len(part)


def _taps(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to the weights of three 1x1 convolutions, one for each dy: (3, 3 O, C, 1, 1), outputs (dx, O)."""
    return weight.permute(2, 3, 0, 1).contiguous().view(3, -1, weight.shape[1], 1, 1)


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def _blocks(sizes: Tuple[int, ...], new_size: int, of_rows: bool, align_corners: bool, side: int, dtype: torch.dtype,
            device: torch.device) -> List[_Block]:
    found = []
    for outputs in parts(new_size, side):
        inputs, matrices = zip(*(_shifted(size, new_size, align_corners, outputs, device) for size in sizes))
        if of_rows:
            matrices = [torch.cat([m.flatten(1) for m in matrices], 1)]
        else:
            matrices = [m.transpose(1, 2).flatten(1) for m in matrices]
        found.append(_Block(outputs, inputs, [m.to(dtype) for m in matrices]))
    return found


def _shifted(size: int, new_size: int, align_corners: bool, outputs: slice, device: torch.device
             ) -> Tuple[slice, Tensor]:
    """The inputs that some outputs of a resizing take, shifted by -1, 0 and 1, and the matrix (outputs, 3, inputs)."""
    around = slice(max(outputs.start - 1, 0), min(outputs.stop + 1, new_size))
    block = resized(size, new_size, align_corners).block(around, device)
    matrix = block.matrix
    if matrix is None:
        matrix = torch.eye(around.stop - around.start, device=device)
    padded = F.pad(matrix, (0, 0, int(outputs.start == 0), int(outputs.stop == new_size)))
    count = outputs.stop - outputs.start
    return block.inputs, torch.stack([padded[i:i + count] for i in range(3)], 1)
