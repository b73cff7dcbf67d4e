"""The convolution of enlarged maps against the same in PyTorch's own operations."""
import pytest
import torch
from torch.nn import functional as F

from mmseg_inceptionnext.models.decode_heads.upsampled_conv import BLOCK, conv3x3_of_upsampled
from mmseg_inceptionnext.models.interpolation import apply_tile, interpolation_matrix, resizing

SIZES = {
    'halves': ((16, 24), [(8, 12), (4, 6), (2, 3)]),
    'odd': ((17, 33), [(9, 17), (5, 9), (3, 5)]),
    'not halves': ((19, 13), [(7, 11), (19, 13), (1, 1)]),
    'larger maps': ((9, 10), [(20, 31), (9, 3)]),
    'several blocks': ((BLOCK + 5, 2 * BLOCK + 1), [(18, 30), (2, 70)]),
    'one pixel': ((1, 1), [(1, 1), (4, 3)]),
}


def tensors(size, sizes, batch, dtype=torch.float64, channels_last=False):
    base = torch.randn(batch, 6, *size, dtype=dtype)
    maps = [torch.randn(batch, 4 + i, *s, dtype=dtype) for i, s in enumerate(sizes)]
    weights = [torch.randn(6, 4 + i, 3, 3, dtype=dtype) for i in range(len(sizes))]
    if channels_last:
        base, maps = (base.contiguous(memory_format=torch.channels_last),
                      [x.contiguous(memory_format=torch.channels_last) for x in maps])
    return [x.requires_grad_() for x in (base, *maps, *weights)]


def expected_of(base, maps, weights, align_corners):
    return base + sum(
        F.conv2d(F.interpolate(x, size=base.shape[2:], mode='bilinear', align_corners=align_corners), w, padding=1)
        for x, w in zip(maps, weights))


def result_of(base, maps, weights, align_corners):
    return conv3x3_of_upsampled(base * 1, maps, weights, align_corners)


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('size,sizes', SIZES.values(), ids=list(SIZES))
def test_values_and_gradients(size, sizes, align_corners, batch, channels_last):
    base, *others = tensors(size, sizes, batch, channels_last=channels_last)
    maps, weights = others[:len(sizes)], others[len(sizes):]
    expected = expected_of(base, maps, weights, align_corners)
    result = result_of(base, maps, weights, align_corners)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(expected)
    for mine, theirs in zip(torch.autograd.grad(result, [base, *others], grad),
                            torch.autograd.grad(expected, [base, *others], grad)):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(result_of(base, maps, weights, align_corners), expected, rtol=1e-10, atol=1e-10)


def test_a_base_with_a_gradient_is_not_overwritten():
    base, x, weight = tensors((8, 8), [(4, 4)], 1, channels_last=True)
    before = base.detach().clone()
    conv3x3_of_upsampled(base, [x], [weight], False)
    assert torch.equal(base, before)


def test_gradcheck():
    base, x, weight = tensors((5, 4), [(3, 2)], 2)
    assert torch.autograd.gradcheck(lambda *args: conv3x3_of_upsampled(args[0] * 1, [args[1]], [args[2]], False),
                                    (base, x, weight))


@pytest.mark.parametrize('size,new_size', [(7, 7), (7, 20), (20, 7), (1, 5), (5, 1)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_matrices_are_pytorchs_interpolation(size, new_size, align_corners):
    x = torch.randn(1, 3, size, 6, dtype=torch.float64)
    expected = F.interpolate(x, size=(new_size, 6), mode='bilinear', align_corners=align_corners)
    result = torch.einsum('Hh,nchw->ncHw', interpolation_matrix(size, new_size, align_corners), x)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('size,new_size', [((9, 7), (70, 150)), ((70, 150), (9, 7)), ((33, 65), (33, 65))])
def test_tiles_cover_the_image_once(size, new_size):
    image = torch.randn(*size, 5, dtype=torch.float64)
    result = torch.full((*new_size, 5), torch.nan, dtype=torch.float64)
    for rows, cols in resizing(size, new_size, False).tiles(image):
        assert result[rows.outputs, cols.outputs].isnan().all()
        result[rows.outputs, cols.outputs] = apply_tile(image, rows, cols)
    expected = F.interpolate(image.permute(2, 0, 1)[None], size=new_size, mode='bilinear')[0].permute(1, 2, 0)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
