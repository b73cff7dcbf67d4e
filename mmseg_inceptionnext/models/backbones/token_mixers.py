"""Token mixers: the modules that move information between pixels.

A block gives its mixer ``in_channels`` and ``dilation``; everything else stands in the config's ``token_mixer``.
"""
import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mmseg_inceptionnext.errors import InputError


def _depthwise(channels: int, height: int, width: int, dilation: int) -> nn.Conv2d:
    """A depthwise convolution by a kernel of height x width, which keeps the size; a side of 1 is not dilated."""
    kernel = height, width
    if not height % 2 or not width % 2:
        raise InputError(f'kernel sizes must be odd so that a map keeps its size, got {max(kernel)}')
    return nn.Conv2d(
        channels, channels, kernel, groups=channels, padding=tuple(dilation * (side - 1) // 2 for side in kernel),
        dilation=tuple(dilation if side > 1 else 1 for side in kernel))


@MODELS.register_module()
class InceptionDWConv2d(nn.Module):
    """Inception depthwise convolution (InceptionNeXt, section 3.2).

    The channels are split into four parts, in this order: an identity part, then three branches of
    ``int(in_channels * branch_ratio)`` channels, convolved depthwise by a square (``dwconv_hw``), a band along the
    width (``dwconv_w``, 1 x k) and a band along the height (``dwconv_h``, k x 1). The parts are then concatenated.
    Cost grows linearly with the band's length, and three eighths of the channels are touched at the default ratio.

    Args:
        in_channels: number of channels C of the map, kept on output.
        square_kernel_size: side of the square kernel, odd.
        band_kernel_size: length of both band kernels, odd.
        branch_ratio: share of the channels given to each branch; all branches together take at most all channels.
        with_square: whether there is the square branch. The channels of a branch that is left out join the identity
            part (the paper's table 8 leaves out one at a time).
        with_band_w: whether there is the band along the width.
        with_band_h: whether there is the band along the height.
        bands: ``'parallel'``, or ``'sequential'`` for one branch that both bands convolve in turn, the one along the
            width first. Parameters and MACs are the same; the identity part is larger by one branch.
        dilation: spacing of the kernel taps, in pixels.

    Shape: (N, C, H, W) to (N, C, H, W).

    Raises:
        ValueError: if a kernel is even, if a branch would get no channel or all of them more than there are, if no
            branch is left, or if ``bands`` is neither of the two or sequential without both bands.
    """

    def __init__(self, in_channels: int, square_kernel_size: int = 3, band_kernel_size: int = 11,
                 branch_ratio: float = 0.125, with_square: bool = True, with_band_w: bool = True,
                 with_band_h: bool = True, bands: str = 'parallel', dilation: int = 1) -> None:
        super().__init__()
        if bands not in ('parallel', 'sequential') or (bands == 'sequential' and not (with_band_w and with_band_h)):
            raise InputError(f"bands={bands!r}: use 'parallel', or 'sequential' with both with_band_w and with_band_h")
        branches = with_square + with_band_w + with_band_h - (bands == 'sequential')
        channels = int(in_channels * branch_ratio)
        if not branches:
            raise InputError('no branch is left: set one of with_square, with_band_w and with_band_h')
        if not 0 < branches * channels <= in_channels:
            raise InputError(f'branch_ratio={branch_ratio} gives each of the {branches} branches {channels} of '
                             f'{in_channels} channels; use a ratio between {1 / in_channels:.3g} (one channel) and '
                             f'1/{branches}')
        k, band = square_kernel_size, band_kernel_size
        self.dwconv_hw = _depthwise(channels, k, k, dilation) if with_square else None
        self.dwconv_w = _depthwise(channels, 1, band, dilation) if with_band_w else None
        self.dwconv_h = _depthwise(channels, band, 1, dilation) if with_band_h else None
        self.bands = bands
        self.split_sizes = (in_channels - branches * channels, *[channels] * branches)

    def forward(self, x: Tensor) -> Tensor:
        identity, *parts = torch.split(x, self.split_sizes, dim=1)
        if self.bands == 'sequential':
            *parts, band = parts
            parts, convs = [*parts, self.dwconv_w(band)], (self.dwconv_hw, self.dwconv_h)
        else:
            convs = self.dwconv_hw, self.dwconv_w, self.dwconv_h
        convs = [conv for conv in convs if conv is not None]
        return torch.cat((identity, *(conv(part) for conv, part in zip(convs, parts))), dim=1)


@MODELS.register_module()
class PartialDWConv2d(nn.Module):
    """Depthwise k x k convolution of a share of the channels; the others, which come first, stay as they are.

    ConvNeXt's token mixer is ``kernel_size=7, conv_ratio=1``; the paper's table 1 makes the kernel, then the share,
    smaller.

    Args:
        in_channels: number of channels C of the map, kept on output.
        kernel_size: side of the kernel, odd.
        conv_ratio: share of the channels that is convolved, above 0 and up to 1.
        dilation: spacing of the kernel taps, in pixels.

    Shape: (N, C, H, W) to (N, C, H, W).

    Raises:
        ValueError: if the kernel is even, or if no channel or more than all would be convolved.
    """

    def __init__(self, in_channels: int, kernel_size: int = 7, conv_ratio: float = 1., dilation: int = 1) -> None:
        super().__init__()
        channels = int(in_channels * conv_ratio)
        if not 0 < channels <= in_channels:
            raise InputError(f'conv_ratio={conv_ratio} convolves {channels} of {in_channels} channels; use a ratio '
                             f'between {1 / in_channels:.3g} (one channel) and 1')
        self.dwconv = _depthwise(channels, kernel_size, kernel_size, dilation)
        self.split_sizes = (in_channels - channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        identity, part = torch.split(x, self.split_sizes, dim=1)
        if not self.split_sizes[0]:
            return self.dwconv(x)
        return torch.cat((identity, self.dwconv(part)), dim=1)


@MODELS.register_module()
class SelfAttention2d(nn.Module):
    """Multi-head self-attention between all pixels of a map (the paper's MetaNeXt-Attn, table 5).

    Time grows with the square of the number of pixels.

    Args:
        in_channels: number of channels C of the map, kept on output.
        head_channels: channels of each head.
        dilation: has no effect, since every pixel sees all others; a block gives it to every mixer.

    Shape: (N, C, H, W) to (N, C, H, W).

    Raises:
        ValueError: if ``head_channels`` does not divide C.
    """

    def __init__(self, in_channels: int, head_channels: int = 64, dilation: int = 1) -> None:
        super().__init__()
        if head_channels < 1 or in_channels % head_channels:
            raise InputError(f'head_channels={head_channels} does not divide the {in_channels} channels')
        self.head_channels = head_channels
        self.qkv = nn.Conv2d(in_channels, 3 * in_channels, 1)
        self.proj = nn.Conv2d(in_channels, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(1, (3, -1, self.head_channels)).flatten(4).transpose(-1, -2)
        heads = scaled_dot_product_attention(*qkv.unbind(1))  # each (N, heads, H * W, head_channels)
        return self.proj(heads.transpose(-1, -2).reshape(x.shape))
