"""Token mixers: the modules that move information between pixels."""
import torch
from mmseg.registry import MODELS
from torch import Tensor, nn


def same_padding(kernel_size: int, dilation: int = 1) -> int:
    """Padding that keeps the size of a map under a stride-1 convolution.

    Raises:
        ValueError: if the kernel is even, which has no symmetric padding.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f'kernel sizes must be odd so that a map keeps its size, got {kernel_size}')
    return dilation * (kernel_size - 1) // 2


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
        branch_ratio: share of the channels given to each of the three branches, at most 1/3.
        dilation: spacing of the kernel taps, in pixels.

    Shape: (N, C, H, W) to (N, C, H, W).

    Raises:
        ValueError: if a kernel is even, or if a branch would get no channel or the three more than there are.
    """

    def __init__(self,
                 in_channels: int,
                 square_kernel_size: int = 3,
                 band_kernel_size: int = 11,
                 branch_ratio: float = 0.125,
                 dilation: int = 1) -> None:
        super().__init__()
        branch = int(in_channels * branch_ratio)
        if not 0 < 3 * branch <= in_channels:
            raise ValueError(f'branch_ratio={branch_ratio} gives each of the three branches {branch} of {in_channels} '
                             f'channels; use a ratio between {1 / in_channels:.3g} (one channel) and 1/3')
        square_padding = same_padding(square_kernel_size, dilation)
        band_padding = same_padding(band_kernel_size, dilation)
        self.dwconv_hw = nn.Conv2d(
            branch, branch, square_kernel_size, padding=square_padding, dilation=dilation, groups=branch)
        self.dwconv_w = nn.Conv2d(
            branch, branch, (1, band_kernel_size), padding=(0, band_padding), dilation=(1, dilation), groups=branch)
        self.dwconv_h = nn.Conv2d(
            branch, branch, (band_kernel_size, 1), padding=(band_padding, 0), dilation=(dilation, 1), groups=branch)
        self.split_sizes = (in_channels - 3 * branch, branch, branch, branch)

    def forward(self, x: Tensor) -> Tensor:
        identity, hw, w, h = torch.split(x, self.split_sizes, dim=1)
        return torch.cat((identity, self.dwconv_hw(hw), self.dwconv_w(w), self.dwconv_h(h)), dim=1)
