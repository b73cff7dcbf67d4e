"""Resampling by blocks against PyTorch's own interpolation, in float64."""
import pytest
import torch
from torch.nn import functional as F

from mmseg_inceptionnext.models import interpolation
from mmseg_inceptionnext.models.interpolation import (
    Resampling,
    average_matrix,
    blocks,
    interpolation_matrix,
    parts,
    resized,
    resizing,
    window,
)

CPU, FLOAT64 = torch.device('cpu'), torch.float64


def assembled(resampling, images, tile_bytes):
    """All tiles, each written once."""
    result = torch.full((len(images), *resampling.new_size, images.shape[3]), torch.nan, dtype=images.dtype)
    for rows, cols, tile in resampling.tiles(images, tile_bytes):
        assert result[:, rows, cols].isnan().all()
        result[:, rows, cols] = tile
    return result


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [1, 2, 3, 7, 16, 50, 71])
@pytest.mark.parametrize('new_size', [1, 2, 3, 7, 20, 50, 131])
def test_resizing_is_pytorchs(size, new_size, align_corners):
    x = torch.randn(2, 3, size, 6, dtype=FLOAT64)
    expected = F.interpolate(x, size=(new_size, 9), mode='bilinear', align_corners=align_corners)
    for tile_bytes in (1, 2000, 2**20):
        result = assembled(resizing((size, 6), (new_size, 9), align_corners), x.permute(0, 2, 3, 1), tile_bytes)
        torch.testing.assert_close(result.permute(0, 3, 1, 2), expected, rtol=1e-12, atol=1e-12)
    matrix = interpolation_matrix(size, new_size, align_corners, x)
    expected = F.interpolate(x, size=(new_size, 6), mode='bilinear', align_corners=align_corners)
    torch.testing.assert_close(torch.einsum('Hh,nchw->ncHw', matrix, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('align_corners', [False, True])
def test_what_follows_each_other_is_one_map(flip, align_corners):
    """Enlarge, cut, turn, resize, as predictions do."""
    x = torch.randn(2, 3, 13, 8, dtype=FLOAT64)
    big = F.interpolate(x, size=(50, 8), mode='bilinear', align_corners=align_corners)[:, :, 4:43]
    expected = F.interpolate(big.flip(2) if flip else big, size=(71, 8), mode='bilinear', align_corners=align_corners)
    y = resized(13, 50, align_corners).then(window(50, 4, 43, flip)).then(resized(39, 71, align_corners))
    for tile_bytes in (300, 2**20):
        result = assembled(Resampling(y, window(8, 0, 8)), x.permute(0, 2, 3, 1), tile_bytes)
        torch.testing.assert_close(result.permute(0, 3, 1, 2), expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_done_where_sizes_are_equal():
    for align_corners in (False, True):
        assert not resized(33, 33, align_corners).steps and not window(33, 0, 33).steps
    images = torch.randn(1, 9, 7, 2)
    (_, _, tile), = resizing((9, 7), (9, 7), False).tiles(images, 2**20)
    assert tile.data_ptr() == images.data_ptr()


@pytest.mark.parametrize('size,new_size', [(2500, 10000), (625, 10000), (10000, 10000), (10000, 2500)])
def test_large_images_have_small_matrices(size, new_size):
    """They grow with the side of the image, not with its square, and no input that is not needed is taken."""
    axis = resized(size, new_size, False).then(window(new_size, 1, new_size)).then(resized(new_size - 1, 9000, False))
    found = blocks(axis, 32, torch.float32, CPU)
    assert sum(block.matrix.numel() for block in found) < 120 * max(size, new_size)
    for block in found:
        assert block.matrix.shape == (block.outputs.stop - block.outputs.start, block.inputs.stop - block.inputs.start)
        torch.testing.assert_close(block.matrix.sum(1), torch.ones(len(block.matrix)))


def test_matrices_are_kept_and_serve_training_after_inference():
    axis = resized(9, 31, False)
    with torch.inference_mode():
        first = blocks(axis, 16, torch.float32, CPU)
    assert blocks(axis, 16, torch.float32, CPU) is first
    images = torch.randn(1, 9, 9, 2, requires_grad=True)
    result, = (tile for _, _, tile in resizing((9, 9), (31, 31), False).tiles(images, 2**20))
    result.sum().backward()
    torch.testing.assert_close(images.grad.sum(), torch.tensor(2. * 31**2))


@pytest.mark.parametrize('size,length', [(10, 3), (9, 9), (1, 5), (100, 7), (5, 0)])
def test_parts_are_of_equal_length(size, length):
    found = parts(size, length)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(size))
    lengths = {part.stop - part.start for part in found}
    assert max(lengths) <= max(length, 1) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize('size', [1, 2, 3, 6])
@pytest.mark.parametrize('length', [1, 2, 5, 6, 16, 23])
def test_averages_are_those_of_adaptive_pooling(size, length):
    x = torch.randn(2, 3, length, dtype=FLOAT64)
    expected = F.adaptive_avg_pool1d(x, size)
    torch.testing.assert_close(x @ average_matrix(size, length, x).t(), expected, rtol=1e-12, atol=1e-12)


def test_positions_are_exact_in_single_precision():
    """PyTorch rounds positions, so that it is off by 1e-4 for large sides; these weights are off by 1e-7."""
    size, new_size = 4999, 9973
    i = torch.arange(new_size, dtype=FLOAT64)
    fraction = (((i + 0.5) * size / new_size - 0.5).clamp(0, size - 1)) % 1
    weights = torch.cat([block.matrix.topk(2).values for block in blocks(
        resized(size, new_size, False), 32, torch.float32, CPU)])
    torch.testing.assert_close(weights[:, 1].double(), torch.minimum(fraction, 1 - fraction), rtol=0, atol=2e-7)
    assert interpolation.blocks.cache_info().maxsize  # no more is kept than that
