"""Bilinear resizing as small matrices: each block of outputs takes the few inputs that it needs.

Rows and columns are resampled apart. Along each, every output lies at a position between two inputs, and the weights
of these follow from the position in closed form; nothing is held that grows faster than the side of an image.
"""
from functools import lru_cache
from math import isqrt
from typing import Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .compat import autocast_type

Size = Tuple[int, int]
MIN_ROWS = 64  # of a tile that is as wide as the image; where fewer would fit, tiles are squarer


class Step(NamedTuple):
    """Linear interpolation along an axis: output ``i`` lies at ``(factor * i + offset) / unit``, kept inside.

    Positions are fractions of whole numbers, so that nothing is rounded but the weights themselves.

    Attributes:
        size: number of inputs.
        new_size: number of outputs.
    """
    size: int
    new_size: int
    factor: int
    offset: int
    unit: int

    def inputs(self, outputs: slice) -> slice:
        """The inputs that some neighbouring outputs take."""
        ends = sorted(min(max(self.factor * i + self.offset, 0), (self.size - 1) * self.unit)
                      for i in (outputs.start, outputs.stop - 1))
        return slice(ends[0] // self.unit, -(-ends[1] // self.unit) + 1)

    def matrix(self, outputs: slice, inputs: slice, device: torch.device) -> Tensor:
        """The weights, (outputs, inputs), in float64; in float32 on a device that has no other."""
        i = torch.arange(outputs.start, outputs.stop, device=device)
        j = torch.arange(inputs.start, inputs.stop, device=device)
        position = (i * self.factor + self.offset).clamp(0, (self.size - 1) * self.unit)
        return _weights(position, j, self.unit, torch.float32 if device.type == 'mps' else torch.float64)

    @property
    def is_identity(self) -> bool:
        return self.size == self.new_size and not self.offset and (self.factor == self.unit or self.size == 1)


def _weights(position: Tensor, j: Tensor, unit, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs): how much an output at ``position / unit`` takes of input ``j``."""
    return (1 - (position[:, None] - j * unit).abs().to(dtype) / unit).relu()


class Block(NamedTuple):
    """Some outputs of a resampling along an axis, the inputs that they take, and the matrix (outputs, inputs).

    There is no matrix where the outputs are the inputs.
    """
    outputs: slice
    inputs: slice
    matrix: Optional[Tensor]


class Axis(NamedTuple):
    """Linear maps of one axis, one after the other, from ``size`` to ``new_size``; no step is the identity."""
    size: int
    new_size: int
    steps: Tuple[Step, ...] = ()

    def then(self, other: 'Axis') -> 'Axis':
        """The map that does ``other`` after this one."""
        return Axis(self.size, other.new_size, self.steps + other.steps)

    def block(self, outputs: slice, device: torch.device) -> Block:
        """The part that computes some neighbouring outputs."""
        matrix, taken = None, outputs
        for step in reversed(self.steps):
            inputs = step.inputs(taken)
            weights = step.matrix(taken, inputs, device)
            matrix, taken = weights if matrix is None else matrix @ weights, inputs
        return Block(outputs, taken, matrix)


def _axis(*step: int) -> Axis:
    step = Step(*step)
    return Axis(step.size, step.new_size, () if step.is_identity else (step, ))


def _line(size, new_size, align_corners: bool) -> tuple:
    """``factor``, ``offset`` and ``unit`` of a :class:`Step` that resizes as ``interpolate(..., mode='bilinear')``."""
    if align_corners:
        unit = new_size - 1
        return size - 1, 0, unit.clamp(min=1) if isinstance(unit, Tensor) else max(unit, 1)
    return 2 * size, size - new_size, 2 * new_size


def resized(size: int, new_size: int, align_corners: bool) -> Axis:
    """``torch.nn.functional.interpolate(..., mode='bilinear')`` along one axis."""
    return _axis(size, new_size, *_line(size, new_size, align_corners))


def window(size: int, start: int, stop: int, flip: bool = False) -> Axis:
    """The inputs from ``start`` to ``stop``, in reverse order with ``flip``."""
    return _axis(size, stop - start, *((-1, stop - 1) if flip else (1, start)), 1)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def blocks(axis: Axis, length: int, dtype: torch.dtype, device: torch.device) -> List[Block]:
    """All outputs of an axis in blocks of at most ``length``, as equal as can be; made on the device, once."""
    return [Block(block.outputs, block.inputs, None if block.matrix is None else block.matrix.to(dtype).contiguous())
            for block in (axis.block(part, device) for part in parts(axis.new_size, length))]


def parts(size: int, length: int) -> List[slice]:
    """``size`` neighbours in groups of at most ``length``, as equal as can be."""
    number = -(-size // max(length, 1))
    return [slice(i * size // number, (i + 1) * size // number) for i in range(number)]


class Resampling(NamedTuple):
    """A linear map of images that treats rows and columns apart: (N, h, w, C) to (N, H, W, C)."""
    y: Axis
    x: Axis

    @property
    def new_size(self) -> Size:
        return self.y.new_size, self.x.new_size

    def then(self, other: 'Resampling') -> 'Resampling':
        """The map that does ``other`` after this one."""
        return Resampling(self.y.then(other.y), self.x.then(other.x))

    def blocks(self, channels: int, dtype: torch.dtype, device: torch.device, tile_bytes: int
               ) -> Tuple[List[Block], List[Block]]:
        """Blocks along y and x: each pair makes a tile of one image of at most about so many bytes."""
        pixels = max(8 * tile_bytes // (channels * torch.finfo(dtype).bits), 1)
        width = self.x.new_size
        if pixels < MIN_ROWS * width:
            width = max(min(width, 2 * isqrt(pixels // 2)), 1)
        return tuple(blocks(axis, length, dtype, device) for axis, length in zip(self, (pixels // width, width)))

    def tiles(self, images: Tensor, tile_bytes: int) -> Iterator[Tuple[slice, slice, Tensor]]:
        """The resampled images in tiles, which cover them once: rows, columns and values (N, rows, columns, C)."""
        row_blocks, column_blocks = self.blocks(images.shape[-1], images.dtype, images.device, tile_bytes)
        for rows in row_blocks:
            for cols in column_blocks:
                yield rows.outputs, cols.outputs, resample(images, rows, cols)


def resizing(size: Size, new_size: Size, align_corners: bool) -> Resampling:
    """``torch.nn.functional.interpolate(..., size=new_size, mode='bilinear')``."""
    return Resampling(*(resized(a, b, align_corners) for a, b in zip(size, new_size)))


def resample(images: Tensor, rows: Block, cols: Block) -> Tensor:
    """One tile of resampled images: (N, h, w, C) to (N, rows, columns, C)."""
    return _along_y(rows.matrix, resample_columns(images[:, rows.inputs], cols))


def resample_columns(images: Tensor, block: Block) -> Tensor:
    """(N, h, w, C) to (N, h, columns, C): one block of columns, of all rows."""
    return _along_x(block.matrix, images[:, :, block.inputs])


def resample_rows(images: Tensor, block: Block) -> Tensor:
    """(N, h, W, C) to (N, rows, W, C): one block of rows."""
    return _along_y(block.matrix, images[:, block.inputs])


def add_transposed_rows(total: Tensor, grad: Tensor, block: Block) -> None:
    """Adds to ``total``, (N, h, W, C), what a gradient of :func:`resample_rows` gives its input."""
    total = total[:, block.inputs]
    if block.matrix is None:
        total.add_(grad)
    else:
        add_product(total.view(*total.shape[:2], -1), block.matrix.t(), grad.flatten(2))


def add_transposed_columns(total: Tensor, grad: Tensor, block: Block) -> None:
    """Adds to ``total``, (N, h, w, C), what a gradient of :func:`resample_columns` gives its input."""
    total[:, :, block.inputs].add_(_along_x(None if block.matrix is None else block.matrix.t(), grad))


def add_product(total: Tensor, matrix: Tensor, x: Tensor) -> None:
    """``total += matrix @ x`` for a batch: (N, a, c), (a, b) and (N, b, c)."""
    with torch.autocast(autocast_type(x), enabled=False):
        torch.baddbmm(total, matrix.expand(len(x), -1, -1), x, out=total)


def _along_x(matrix: Optional[Tensor], images: Tensor) -> Tensor:
    return images if matrix is None else _product(matrix, images.flatten(0, 1)).unflatten(0, images.shape[:2])


def _along_y(matrix: Optional[Tensor], images: Tensor) -> Tensor:
    return images if matrix is None else _product(matrix, images.flatten(2)).unflatten(2, images.shape[2:])


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """(a, b) and (N, b, c) to (N, a, c)."""
    with torch.autocast(autocast_type(x), enabled=False):
        return torch.bmm(matrix.expand(len(x), -1, -1), x)


def shifted_matrix(size, new_size, align_corners: bool, like: Tensor) -> Tensor:
    """(new_size, 3, size): the interpolation of a whole axis, shifted by -1, 0 and 1 outputs, with zeros from outside.

    In operations that tracers keep, so that the sizes, numbers that they trace, may change later. ``like`` has the
    device, and the dtype unless that is half precision.
    """
    matrix = interpolation_matrix(size, new_size, align_corners, like)
    padded = torch.nn.functional.pad(matrix, (0, 0, 1, 1))
    return torch.stack([padded[:-2], padded[1:-1], padded[2:]], 1)


def interpolation_matrix(size, new_size, align_corners: bool, like: Tensor) -> Tensor:
    """(new_size, size): the interpolation of a whole axis; see :func:`shifted_matrix`."""
    position, unit = _positions(size, new_size, align_corners, like.device)
    return _weights(position, torch.arange(size, device=like.device), unit, _at_least_single(like))


def neighbours(size, new_size, align_corners: bool, like: Tensor) -> Tuple[Tensor, Tensor]:
    """(new_size,) each: the input before every output of a whole axis, and the weight of the one after it.

    As in :func:`shifted_matrix`, a tracer keeps the sizes.
    """
    position, unit = _positions(size, new_size, align_corners, like.device)
    before = torch.div(position, unit, rounding_mode='floor')
    return before, (position - before * unit).to(_at_least_single(like)) / unit


def between(x: Tensor, dim: int, before: Tensor, weight: Tensor) -> Tensor:
    """Interpolates one axis of images (N, h, w, C), as :func:`neighbours` or a part of it says."""
    first, second = (x.index_select(dim, i) for i in (before, before + (weight > 0).long()))
    return first + (second - first) * weight.reshape(*[-1 if axis == dim else 1 for axis in range(4)])


def _positions(size, new_size, align_corners: bool, device: torch.device) -> tuple:
    """(new_size,): where each output lies, in parts of an input, and the number of parts that make one."""
    factor, offset, unit = _line(size, new_size, align_corners)
    position = (torch.arange(new_size, device=device) * factor + offset).clamp(min=0)
    last = (size - 1) * unit
    return torch.minimum(position, last if isinstance(last, Tensor) else torch.full_like(position, last)), unit


def average_matrix(size: int, length, like: Tensor) -> Tensor:
    """(size, length): the mean over each of ``size`` parts of an axis, as ``AdaptiveAvgPool2d`` forms them.

    The parts may overlap. As in :func:`shifted_matrix`, a tracer keeps ``length``.
    """
    i, j = torch.arange(size, device=like.device)[:, None], torch.arange(length, device=like.device)
    first = torch.div(i * length, size, rounding_mode='floor')
    end = torch.div((i + 1) * length + size - 1, size, rounding_mode='floor')
    dtype = _at_least_single(like)
    return torch.logical_and(j >= first, j < end).to(dtype) / (end - first).to(dtype)


def _at_least_single(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)
