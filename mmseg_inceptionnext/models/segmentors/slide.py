"""Sliding windows that hold the logits of one row of windows at a time, or of one column if that is shorter."""
from typing import Callable, Iterator, List, Tuple

import torch
from torch import Tensor

from ..interpolation import Resampling, apply_tile, blocks, resizing

TILE = 32  # rows and columns of the output that are computed at once


def slide_tiles(logits_of: Callable[[Tensor], Tensor], image: Tensor, post: Resampling, test_cfg: dict,
                align_corners: bool) -> Iterator[Tuple[slice, slice, Tensor]]:
    """The mean of the windows' logits, resampled, tile by tile.

    The logits in memory cover ``crop_size`` pixels along the longer side of the image and all of the shorter one.

    Args:
        logits_of: (N, C, H, W) to logits (N, h, w, classes).
        image: (C, H, W).
        post: from (H, W) to the output.
        test_cfg: with ``crop_size``, ``stride`` and, if wanted, ``batch_size``.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Yields:
        Rows, columns, and the logits (rows, columns, classes) of a tile.
    """
    size, stride = image.shape[1:], test_cfg['stride']
    if size[1] > size[0]:
        turned = dict(test_cfg, crop_size=test_cfg['crop_size'][::-1], stride=stride[::-1])
        for cols, rows, tile in slide_tiles(
                lambda crops: logits_of(crops.transpose(2, 3)).transpose(1, 2), image.transpose(1, 2),
                Resampling(post.x, post.y), turned, align_corners):
            yield rows, cols, tile.transpose(0, 1)
        return
    height, width = crop = [min(c, length) for c, length in zip(test_cfg['crop_size'], size)]
    tops, lefts = (window_starts(*axis) for axis in zip(size, crop, stride))
    count_y, count_x = (_counts(*axis) for axis in zip((tops, lefts), crop, size))
    waiting, columns = blocks(post.y, TILE), blocks(post.x, TILE)
    band = _Band(size[1], height + max(block.inputs.stop - block.inputs.start for block in waiting))
    batch_size = test_cfg.get('batch_size', 1)
    for y, done in zip(tops, [*tops[1:], size[0]]):
        band.scroll(min([y] + [block.inputs.start for block in waiting]))
        for xs in (lefts[i:i + batch_size] for i in range(0, len(lefts), batch_size)):
            logits = logits_of(torch.stack([image[:, y:y + height, x:x + width] for x in xs]))
            up = resizing(tuple(logits.shape[1:3]), (height, width), align_corners)
            for window, x in zip(logits, xs):
                band.add(window, up, y, x)
        band.divide(slice(y, done), count_y[y:done, None, None] * count_x[:, None])
        for rows in [block for block in waiting if block.inputs.stop <= done]:
            for cols in columns:
                yield rows.outputs, cols.outputs, band.tile(rows, cols)
        waiting = [block for block in waiting if block.inputs.stop > done]


class _Band:
    """Some neighbouring rows of an image of logits, in a buffer of a fixed size.

    Args:
        width: of the image.
        capacity: number of rows.
    """

    def __init__(self, width: int, capacity: int) -> None:
        self.width, self.capacity = width, capacity
        self.rows = None  # (capacity, width, classes)
        self.top = 0  # the row of the image that the first row is

    def scroll(self, top: int) -> None:
        """Drops the rows above ``top``; those that follow the others are zero."""
        shift, self.top = top - self.top, top
        if not shift or self.rows is None:
            return
        kept = max(self.capacity - shift, 0)
        for start in range(0, kept, shift):  # in steps that do not overlap
            stop = min(start + shift, kept)
            self.rows[start:stop] = self.rows[start + shift:stop + shift]
        self.rows[kept:] = 0

    def add(self, window: Tensor, up: Resampling, y: int, x: int) -> None:
        """Adds a window's logits, resampled, at a place in the image."""
        if self.rows is None:
            self.rows = window.new_zeros(self.capacity, self.width, window.shape[-1])
        target = self.rows[y - self.top:y - self.top + len(up.y), x:x + len(up.x)]
        for rows, cols in up.tiles(window):
            target[rows.outputs, cols.outputs] += apply_tile(window, rows, cols)

    def divide(self, rows: slice, counts: Tensor) -> None:
        self.rows[rows.start - self.top:rows.stop - self.top] /= counts.to(self.rows)

    def tile(self, rows, cols) -> Tensor:
        """One tile of the image, resampled by two blocks."""
        inputs = slice(rows.inputs.start - self.top, rows.inputs.stop - self.top)
        rows, cols = (block._replace(matrix=block.matrix.to(self.rows)) for block in (rows, cols))
        return apply_tile(self.rows, rows._replace(inputs=inputs), cols)


def window_starts(length: int, crop: int, stride: int) -> List[int]:
    """Where the windows start along an axis; the last one is moved back to end at the border."""
    number = max(length - crop + stride - 1, 0) // stride + 1
    return [min(i * stride, length - crop) for i in range(number)]


def _counts(starts: List[int], crop: int, length: int) -> Tensor:
    """How many windows cover each row or column."""
    counts = torch.zeros(length)
    for start in starts:
        counts[start:start + crop] += 1
    return counts
