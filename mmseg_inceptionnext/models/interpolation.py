"""Bilinear resizing as matrices, in blocks: each block of outputs takes the few inputs that it needs."""
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F


def interpolation_matrix(size: int, new_size: int, align_corners: bool) -> Tensor:
    """(new_size, size), float64: PyTorch's own weights of linear interpolation, found by resizing the unit vectors."""
    unit = torch.eye(size, dtype=torch.float64)[None]
    return F.interpolate(unit, size=new_size, mode='linear', align_corners=align_corners)[0].t().contiguous()


@lru_cache(maxsize=64)
def shifted_interpolation(size: int, new_size: int, align_corners: bool) -> Tensor:
    """(new_size, 3, size), float64: the interpolation, shifted by -1, 0 and 1 outputs, with zeros from outside."""
    padded = F.pad(interpolation_matrix(size, new_size, align_corners), (0, 0, 1, 1))
    return torch.stack([padded[i:i + new_size] for i in range(3)], 1)


def shifted_interpolation_in_graph(size: Tensor, new_size: Tensor, align_corners: bool) -> Tensor:
    """:func:`shifted_interpolation` in float32, in operations that a tracer keeps, so that sizes may change later.

    Positions are fractions of whole numbers, so nothing is rounded but the weights themselves.
    """
    i, j = torch.arange(new_size), torch.arange(size)
    if align_corners:
        position, unit = i * (size - 1), torch.clamp(new_size - 1, min=1)
    else:
        position, unit = (2 * i + 1) * size - new_size, 2 * new_size
    position = torch.minimum(torch.clamp(position, min=0), (size - 1) * unit)
    first = torch.div(position, unit, rounding_mode='floor')
    fraction = (position - first * unit).float() / unit.float()
    distance = (first[:, None] - j).float() + fraction[:, None]
    padded = F.pad(torch.relu(1 - distance.abs()), (0, 0, 1, 1))
    return torch.stack([padded[:-2], padded[1:-1], padded[2:]], 1)


class Block(NamedTuple):
    """Part of a banded matrix: ``outputs`` are rows of it, ``inputs`` the columns that are not zero there."""
    outputs: slice
    inputs: slice
    matrix: Tensor


def blocks(matrix: Tensor, size: int) -> List[Block]:
    """A banded matrix, (outputs, inputs) or (outputs, any, inputs), in blocks of ``size`` outputs."""
    used = (matrix != 0).flatten(1, -2).any(1) if matrix.ndim > 2 else matrix != 0
    parts = []
    for start in range(0, len(matrix), size):
        outputs = slice(start, min(start + size, len(matrix)))
        columns = used[outputs].any(0).nonzero()
        inputs = slice(int(columns[0]), int(columns[-1]) + 1) if len(columns) else slice(0, 1)
        parts.append(Block(outputs, inputs, matrix[outputs][..., inputs].contiguous()))
    return parts


class Resampling(NamedTuple):
    """A linear map of images that treats rows and columns apart: (h, w, C) to (H, W, C).

    Attributes:
        y: (H, h), float64.
        x: (W, w), float64.
    """
    y: Tensor
    x: Tensor

    def then(self, other: 'Resampling') -> 'Resampling':
        """The map that does ``other`` after this one."""
        return Resampling(other.y @ self.y, other.x @ self.x)

    def tiles(self, like: Tensor, height: int = 32, width: int = 64) -> Iterator[Tuple[Block, Block]]:
        """Tiles of the output: for each the blocks along y and x, in the dtype and on the device of ``like``."""
        columns = [block._replace(matrix=block.matrix.to(like)) for block in blocks(self.x, width)]
        for rows in blocks(self.y, height):
            rows = rows._replace(matrix=rows.matrix.to(like))
            for cols in columns:
                yield rows, cols


def apply_tile(image: Tensor, rows: Block, cols: Block) -> Tensor:
    """One tile of a resampled image: (h, w, C) to (tile height, tile width, C)."""
    stretched = torch.matmul(cols.matrix, image[rows.inputs, cols.inputs])
    return (rows.matrix @ stretched.flatten(1)).view(len(rows.matrix), *stretched.shape[1:])


def apply_tile_transposed(grad: Tensor, rows: Block, cols: Block) -> Tensor:
    """The transpose of :func:`apply_tile`: what a gradient of the tile adds to the image's inputs of that tile."""
    shrunk = (rows.matrix.t() @ grad.flatten(1)).view(-1, *grad.shape[1:])
    return torch.matmul(cols.matrix.t(), shrunk)


def resizing(size: Tuple[int, int], new_size: Tuple[int, int], align_corners: bool) -> Resampling:
    """``torch.nn.functional.interpolate(..., size=new_size, mode='bilinear')``."""
    return Resampling(*(interpolation_matrix(a, b, align_corners) for a, b in zip(size, new_size)))
