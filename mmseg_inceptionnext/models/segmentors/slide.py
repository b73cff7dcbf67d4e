"""Sliding windows that hold the logits of one row of windows at a time, or of one column if that is shorter."""
from functools import lru_cache
from typing import Callable, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from mmseg_inceptionnext.models.device_plan import plan_of
from mmseg_inceptionnext.models.interpolation import Resampling, resample, resizing


def slide_tiles(logits_of: Callable[[Tensor], Tensor], num_logits: int, image: Tensor, post: Resampling, test_cfg: dict,
                align_corners: bool, start: int = 0, turns: bool = True) -> Iterator[Tuple[slice, slice, Tensor]]:
    """The mean of the windows' logits, resampled, tile by tile.

    Args:
        logits_of: (N, C, H, W) to logits (N, h, w, num_logits), float32 or float64.
        num_logits: of a pixel.
        image: (C, H, W), or what reads it: with ``shape``, ``dtype``, ``device``, ``new_zeros`` and ``transpose``, and
            whose windows may be None where there is nothing to predict.
        post: from (H, W) to the output.
        test_cfg: with ``crop_size``, ``stride`` and, if wanted, ``batch_size``.
        align_corners: as in ``torch.nn.functional.interpolate``.
        start: leave out the tiles that begin above this row (of a wide image: left of this column).
        turns: go through wide images column by column of windows, which holds less.

    Yields:
        Rows, columns, and the logits (1, rows, columns, num_logits) of a tile.
    """
    size, stride = image.shape[1:], test_cfg['stride']
    if turns and is_wide(size):
        turned = dict(test_cfg, crop_size=test_cfg['crop_size'][::-1], stride=stride[::-1])
        for cols, rows, tile in slide_tiles(
                lambda crops: logits_of(crops.transpose(2, 3)).transpose(1, 2), num_logits, image.transpose(1, 2),
                Resampling(post.x, post.y), turned, align_corners, start):
            yield rows, cols, tile.transpose(1, 2)
            del tile  # before the next one is made
        return
    height, width = crop = [min(c, length) for c, length in zip(test_cfg['crop_size'], size)]
    tops, lefts = (window_starts(*axis) for axis in zip(size, crop, stride))
    band = _Band(image, num_logits, post, height, start)
    count_y, count_x = (_counts(tuple(starts), *rest, band.rows.dtype, image.device)
                        for starts, *rest in zip((tops, lefts), crop, size))
    batch_size = test_cfg.get('batch_size', 1)
    for y, done in zip(tops, [*tops[1:], size[0]]):
        if y + height <= start:
            continue
        band.scroll(y)
        for xs in (lefts[i:i + batch_size] for i in range(0, len(lefts), batch_size)):
            crops = [(x, image[:, y:y + height, x:x + width]) for x in xs]
            crops = [(x, crop) for x, crop in crops if crop is not None]
            if not crops:
                continue
            logits = logits_of(torch.stack([crop for _, crop in crops]))
            up = resizing(tuple(logits.shape[1:3]), (height, width), align_corners)
            for i, (x, _) in enumerate(crops):
                band.add(logits[i:i + 1], up, y, x)
        band.divide(slice(y, done), count_y[y:done, None, None] * count_x[:, None])
        yield from band.finished(done)


class _Band:
    """Neighbouring rows of an image of logits, in a buffer of a fixed size, from which the output is made.

    The arguments are those of :func:`slide_tiles`, and the height of a window.
    """

    def __init__(self, image: Tensor, num_logits: int, post: Resampling, height: int, start: int) -> None:
        self.tile_bytes = plan_of(image.device).tile_bytes
        dtype = torch.promote_types(image.dtype, torch.float32)
        blocks, self.columns = post.blocks(num_logits, dtype, image.device, self.tile_bytes)
        self.waiting = [block for block in blocks if block.outputs.start >= start]
        capacity = height + max(block.inputs.stop - block.inputs.start for block in blocks)
        self.rows = image.new_zeros(1, capacity, image.shape[2], num_logits, dtype=dtype)
        self.top = 0  # the row of the image that the first row is

    def scroll(self, y: int) -> None:
        """Makes room for windows at ``y``: drops the rows above that no output waits for."""
        top = min([y] + [block.inputs.start for block in self.waiting])
        shift, self.top = top - self.top, top
        if not shift:
            return
        capacity = self.rows.shape[1]
        kept = max(capacity - shift, 0)
        for start in range(0, kept, shift):  # in steps that do not overlap
            stop = min(start + shift, kept)
            self.rows[:, start:stop] = self.rows[:, start + shift:stop + shift]
        self.rows[:, kept:] = 0

    def add(self, logits: Tensor, up: Resampling, y: int, x: int) -> None:
        """Adds the logits of a window, (1, h, w, num_logits), resampled, at a place in the image."""
        height, width = up.new_size
        target = self.rows[:, y - self.top:y - self.top + height, x:x + width]
        for rows, cols, tile in up.tiles(logits, self.tile_bytes):
            target[:, rows, cols].add_(tile)
            del tile  # before the next one is made

    def divide(self, rows: slice, counts: Tensor) -> None:
        self._rows(rows).div_(counts)

    def finished(self, done: int) -> Iterator[Tuple[slice, slice, Tensor]]:
        """The tiles of the output whose rows of the image, those above ``done``, are complete."""
        ready = [block for block in self.waiting if block.inputs.stop <= done]
        self.waiting = [block for block in self.waiting if block.inputs.stop > done]
        for rows in ready:
            inputs = self._rows(rows.inputs)
            block = rows._replace(inputs=slice(0, inputs.shape[1]))
            for cols in self.columns:
                yield rows.outputs, cols.outputs, resample(inputs, block, cols)

    def _rows(self, rows: slice) -> Tensor:
        return self.rows[:, rows.start - self.top:rows.stop - self.top]


def is_wide(size: Sequence[int]) -> bool:
    """Whether an image of this height and width is gone through column by column of windows."""
    return size[1] > size[0]


def window_starts(length: int, crop: int, stride: int) -> List[int]:
    """Where the windows start along an axis; the last one is moved back to end at the border."""
    number = max(length - crop + stride - 1, 0) // stride + 1
    return [min(i * stride, length - crop) for i in range(number)]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _counts(starts: Tuple[int, ...], crop: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How many windows cover each row or column."""
    counts = torch.zeros(length, dtype=dtype, device=device)
    for start in starts:
        counts[start:start + crop] += 1
    return counts
