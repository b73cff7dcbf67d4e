"""Each token mixer against its formula, written another way."""
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from mmseg_inceptionnext.models import InceptionDWConv2d, PartialDWConv2d, SelfAttention2d

from utils import randomise

X = torch.randn(2, 16, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def depthwise(x, conv, dilation=1):
    padding = [dilation * (k // 2) for k in conv.weight.shape[2:]]
    return conv2d(x, conv.weight, conv.bias, padding=padding, groups=x.shape[1], dilation=dilation)


@pytest.mark.parametrize('dilation', [1, 2])
def test_inception_dwconv_is_four_parts_in_order(dilation):
    mixer = randomise(InceptionDWConv2d(16, band_kernel_size=5, dilation=dilation)).double()
    identity, hw, w, h = X.split((10, 2, 2, 2), dim=1)
    expected = torch.cat((identity, depthwise(hw, mixer.dwconv_hw, dilation), depthwise(w, mixer.dwconv_w, dilation),
                          depthwise(h, mixer.dwconv_h, dilation)), dim=1)
    assert mixer.dwconv_w.weight.shape[2:] == (1, 5) and mixer.dwconv_h.weight.shape[2:] == (5, 1)
    torch.testing.assert_close(mixer(X), expected)


@pytest.mark.parametrize('off,left', [
    ('with_square', ('dwconv_w', 'dwconv_h')), ('with_band_w', ('dwconv_hw', 'dwconv_h')),
    ('with_band_h', ('dwconv_hw', 'dwconv_w'))])
def test_a_branch_left_out_joins_the_identity(off, left):
    mixer = randomise(InceptionDWConv2d(16, **{off: False})).double()
    identity, first, second = X.split((12, 2, 2), dim=1)
    convs = [getattr(mixer, name) for name in left]
    expected = torch.cat((identity, depthwise(first, convs[0]), depthwise(second, convs[1])), dim=1)
    torch.testing.assert_close(mixer(X), expected)
    assert {name.split('.')[0] for name in mixer.state_dict()} == set(left)


def test_bands_in_sequence_convolve_the_same_channels():
    mixer = randomise(InceptionDWConv2d(16, band_kernel_size=5, bands='sequential')).double()
    identity, hw, bands = X.split((12, 2, 2), dim=1)
    expected = torch.cat((identity, depthwise(hw, mixer.dwconv_hw),
                          depthwise(depthwise(bands, mixer.dwconv_w), mixer.dwconv_h)), dim=1)
    torch.testing.assert_close(mixer(X), expected)
    parallel = InceptionDWConv2d(16, band_kernel_size=5)
    assert {k: v.shape for k, v in mixer.state_dict().items()} == {k: v.shape for k, v in parallel.state_dict().items()}


@pytest.mark.parametrize('ratio,convolved', [(1, 16), (0.5, 8), (3 / 8, 6), (1 / 16, 1)])
@pytest.mark.parametrize('kernel_size', [3, 7])
def test_partial_dwconv_convolves_the_last_channels(kernel_size, ratio, convolved):
    mixer = randomise(PartialDWConv2d(16, kernel_size, ratio)).double()
    expected = torch.cat((X[:, :16 - convolved], depthwise(X[:, 16 - convolved:], mixer.dwconv)), dim=1)
    torch.testing.assert_close(mixer(X), expected)


def test_self_attention_is_torchs_multihead_attention():
    mixer = randomise(SelfAttention2d(16, head_channels=4)).double()
    reference = nn.MultiheadAttention(16, 4, batch_first=True).double()
    reference.load_state_dict({
        'in_proj_weight': mixer.qkv.weight.flatten(1), 'in_proj_bias': mixer.qkv.bias,
        'out_proj.weight': mixer.proj.weight.flatten(1), 'out_proj.bias': mixer.proj.bias})
    for x in (X, X[:1, :, :5].contiguous(memory_format=torch.channels_last)):
        tokens = x.flatten(2).transpose(1, 2)
        expected = reference(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(mixer(x), expected)


def macs(module, shape):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.to('meta')(torch.empty(shape, device='meta'))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize('channels', [8, 64, 96, 768])
@pytest.mark.parametrize('k', [3, 7, 11, 21])
def test_cost_is_table_2s_formula(channels, k):
    """Params (2k + 9) C / 8 and FLOPs (2k + 9) C H W / 4, in which a MAC is two FLOPs and biases do not count."""
    mixer = InceptionDWConv2d(channels, band_kernel_size=k)
    assert 8 * sum(p.numel() for p in mixer.parameters() if p.ndim > 1) == (2 * k + 9) * channels
    assert 8 * macs(mixer, (1, channels, 12, 10)) == (2 * k + 9) * channels * 12 * 10
    whole = PartialDWConv2d(channels, k)
    assert sum(p.numel() for p in whole.parameters() if p.ndim > 1) == k**2 * channels
    assert macs(whole, (1, channels, 12, 10)) == k**2 * channels * 12 * 10


def test_attention_products_count():
    linear, products = 4 * 64**2 * 30, 2 * 64 * 30**2
    assert macs(SelfAttention2d(64), (1, 64, 5, 6)) == linear + products


@pytest.mark.parametrize('config,words', [
    (dict(type='InceptionDWConv2d', band_kernel_size=10), ['must be odd', '10']),
    (dict(type='InceptionDWConv2d', branch_ratio=0.5), ['branch_ratio=0.5', '3 branches 8 of 16', '1/3']),
    (dict(type='InceptionDWConv2d', branch_ratio=0.01), ['branch_ratio=0.01', '0 of 16', '0.0625']),
    (dict(type='InceptionDWConv2d', bands='series'), ["bands='series'", "'parallel'", "'sequential'"]),
    (dict(type='InceptionDWConv2d', bands='sequential', with_band_h=False), ['with_band_h']),
    (dict(type='InceptionDWConv2d', with_square=False, with_band_h=False, with_band_w=False), ['no branch is left']),
    (dict(type='PartialDWConv2d', kernel_size=4), ['must be odd', '4']),
    (dict(type='PartialDWConv2d', conv_ratio=0.), ['conv_ratio=0.0', '0 of 16']),
    (dict(type='PartialDWConv2d', conv_ratio=1.5), ['conv_ratio=1.5', '24 of 16']),
    (dict(type='SelfAttention2d', head_channels=5), ['head_channels=5', '16 channels']),
])
def test_bad_settings_are_named(config, words):
    with pytest.raises(ValueError) as error:
        MODELS.build(dict(config, in_channels=16))
    assert all(word in str(error.value) for word in words), error.value
