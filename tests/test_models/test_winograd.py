"""Winograd's convolution against the plain one in float64, and where a fused model has it."""
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from mmseg_inceptionnext import fuse
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.models import winograd
from mmseg_inceptionnext.models.winograd import WinogradConv2d

from utils import ROOT, randomise


def pair(inputs=20, outputs=24, num_inputs=20, bias=True):
    conv = randomise(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)).requires_grad_(False)
    reference = nn.Conv2d(num_inputs, outputs, 3, padding=1, bias=bias).double()
    reference.weight.data.copy_(conv.weight[:, :num_inputs])
    if bias:
        reference.bias.data.copy_(conv.bias)
    return WinogradConv2d(conv, num_inputs), reference


def relative_error(x, y):
    return ((x - y).abs().max() / y.abs().max()).item()


@pytest.mark.parametrize('size', [(1, 1), (4, 4), (5, 9), (16, 12), (31, 33)])
@pytest.mark.parametrize('batch,tiles', [(1, 1), (3, 7), (1, 128), (3, 128)])
def test_equals_the_plain_convolution(monkeypatch, size, batch, tiles):
    monkeypatch.setattr(winograd, 'TILES', tiles)
    for kwargs in (dict(), dict(num_inputs=12, bias=False)):
        module, reference = pair(**kwargs)
        x = torch.randn(batch, module.num_inputs, *size)
        expected = reference(x.double())
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            before = given.clone()
            assert relative_error(module(given), expected) < 5e-6
            assert torch.equal(given, before)


def test_the_points_keep_the_error_small():
    """With 0, 1, -1, 2 and -2 in their place it is 7e-6."""
    module, reference = pair(512, 256, 512)
    x = torch.randn(1, 512, 16, 16)
    assert relative_error(module(x), reference(x.double())) < 3e-6


def test_the_transforms_are_exact():
    d, g = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    y = winograd.OUTPUT @ ((winograd.WEIGHT @ g) * (winograd.INPUT @ d))
    torch.testing.assert_close(y, torch.nn.functional.conv1d(d.view(1, 1, 6), g.view(1, 1, 3)).flatten())


def test_other_types_and_gradients_are_plain():
    module, reference = pair()
    x = torch.randn(2, 20, 9, 10)
    torch.testing.assert_close(module.double()(x.double()), reference(x.double()))
    module.float()
    x.requires_grad_()
    module.weight.requires_grad_()
    module(x).sum().backward()
    x_grad, weight_grad = torch.autograd.grad(reference(x.double()).sum(), [x, reference.weight])
    torch.testing.assert_close(x.grad, x_grad, rtol=1e-4, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(module.weight.grad, weight_grad, rtol=1e-4, atol=1e-4, check_dtype=False)
    module.weight.requires_grad_(False)
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        assert module(x).dtype == torch.bfloat16


@pytest.mark.compile
def test_compiles_and_traces_as_the_plain_convolution():
    module, reference = pair()
    x = torch.randn(2, 20, 9, 10)
    with torch.no_grad():
        traced = torch.jit.trace(module, x)
        assert 'bmm' not in str(traced.inlined_graph) and 'conv' in str(traced.inlined_graph)
        for run in (traced, torch.compile(module, fullgraph=True, backend='eager')):
            assert relative_error(run(x), reference(x.double())) < 1e-6  # a tile's would be more


@pytest.mark.parametrize('name,expected', [
    ('upernet', {'decode_head.fpn_convs.0.conv', 'decode_head.fpn_convs.1.conv', 'decode_head.fpn_convs.2.conv',
                 'decode_head.fpn_bottleneck.conv'}),
    ('fpn', {f'neck.fpn_convs.{i}.conv' for i in range(4)})])
def test_fused_segmentors_have_it_where_it_pays(monkeypatch, name, expected):
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: True)
    cfg = load_config(str(ROOT / f'configs/{name}_inceptionnext_a_ade20k.py')).model
    cfg.backbone.init_cfg = None
    model = randomise(MODELS.build(cfg)).eval()
    fused = fuse(model)
    assert {name for name, module in fused.named_modules() if isinstance(module, WinogradConv2d)} == expected
    assert not any('transformed' in key for key in fused.state_dict())
    x = torch.randn(2, 3, 41, 53)
    with torch.no_grad():
        expected = model.double()(x.double())
        assert relative_error(fused(x), expected) < 1e-5
        assert relative_error(fused.double()(x.double()), expected) < 1e-6  # plain, with weights of single precision
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: False)
    assert not any(isinstance(module, WinogradConv2d) for module in fuse(model.float()).modules())
