"""The convolution of enlarged maps against the same in PyTorch's own operations."""
import pytest
import torch
from torch.nn import functional as F

from mmseg_inceptionnext.models import device_plan
from mmseg_inceptionnext.models.decode_heads.upsampled_conv import conv3x3_of_upsampled

PLANS = dict(cpu=device_plan.CPU, gpu=device_plan.GPU,
             small=device_plan.CPU._replace(conv_side=7, conv_bytes=2**15))  # many tiles, some of two images

SIZES = {
    'halves': ((16, 24), [(8, 12), (4, 6), (2, 3)]),
    'odd': ((17, 33), [(9, 17), (5, 9), (3, 5)]),
    'not halves': ((19, 13), [(7, 11), (19, 13), (1, 1)]),
    'larger maps': ((9, 10), [(20, 31), (9, 3)]),
    'several tiles': ((69, 131), [(18, 30), (2, 70)]),
    'one pixel': ((1, 1), [(1, 1), (4, 3)]),
}


def tensors(size, sizes, batch, dtype=torch.float64, channels_last=False, outputs=6):
    base = torch.randn(batch, outputs, *size, dtype=dtype)
    maps = [torch.randn(batch, 4 + i, *s, dtype=dtype) for i, s in enumerate(sizes)]
    weights = [torch.randn(outputs, 4 + i, 3, 3, dtype=dtype) for i in range(len(sizes))]
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


@pytest.mark.parametrize('batch,align_corners,channels_last', [(1, False, True), (3, True, False), (3, False, True)])
@pytest.mark.parametrize('plan', PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize('size,sizes', SIZES.values(), ids=list(SIZES))
def test_values_and_gradients(size, sizes, align_corners, batch, channels_last, plan):
    with device_plan.using_plan(plan):
        compare(size, sizes, align_corners, batch, channels_last)


def compare(size, sizes, align_corners, batch, channels_last):
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


def test_autograd_knows_that_the_base_is_overwritten():
    base, x, weight = tensors((8, 8), [(4, 4)], 1, channels_last=True)
    with pytest.raises(RuntimeError, match='leaf'):
        conv3x3_of_upsampled(base, [x], [weight], False)
    squared = base * 1
    square = squared.square()  # wants its input as it was
    conv3x3_of_upsampled(squared, [x], [weight], False)
    with pytest.raises(RuntimeError, match='inplace operation'):
        square.sum().backward()


def test_gradcheck():
    base, x, weight = tensors((4, 3), [(2, 2)], 1, outputs=2)
    assert torch.autograd.gradcheck(lambda *args: conv3x3_of_upsampled(args[0] * 1, [args[1]], [args[2]], False),
                                    (base, x, weight))


def test_it_is_differentiated_once():
    base, x, weight = tensors((8, 8), [(4, 4)], 1)
    grad, = torch.autograd.grad(conv3x3_of_upsampled(base * 1, [x], [weight], False).square().sum(), x,
                                create_graph=True)
    with pytest.raises(RuntimeError, match='a second one was asked for'):
        grad.sum().backward()


@pytest.mark.parametrize('plan', PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_the_stock_way(dtype, plan):
    base, *others = (x.detach().to(dtype) for x in tensors((32, 48), [(16, 24), (8, 12), (4, 6)], 1))
    maps, weights = others[:3], others[3:]
    exact = expected_of(base.double(), [x.double() for x in maps], [w.double() for w in weights], False)
    try:
        resized = [F.interpolate(x, size=base.shape[2:], mode='bilinear') for x in maps]
        stock = base + F.conv2d(torch.cat(resized, 1), torch.cat(weights, 1), padding=1)
    except RuntimeError as error:
        pytest.skip(f'this PyTorch has no stock way on a CPU: {error}')
    with device_plan.using_plan(plan):
        result = result_of(base, maps, weights, False)
    assert result.dtype == dtype
    assert (result.double() - exact).norm() < 1.2 * (stock.double() - exact).norm()
