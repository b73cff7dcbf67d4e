"""3x3 convolutions with a quarter of the multiplications, for inference where that is faster."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .compat import is_autocast_on_cpu, is_compiling

TILE = 4  # outputs along each side of a tile, which takes TILE + 2 inputs
TILES = 128  # at once: enough for products of good size, few enough for the caches


def _values(degree: int) -> Tensor:
    """Takes a polynomial's coefficients to its values at five points and at infinity, in float64.

    Toom and Cook multiply polynomials by these. With the points 0, +-1/sqrt(2), +-sqrt(2) single precision loses a
    quarter of what it loses with the usual 0, +-1, +-2.
    """
    root = 2**0.5
    points = torch.tensor([0, 1 / root, -1 / root, root, -root], dtype=torch.float64)
    at_infinity = torch.eye(degree, dtype=torch.float64)[-1:]
    return torch.cat((torch.vander(points, degree, increasing=True), at_infinity))


# The transforms of Winograd's F(4, 3): of outputs (4, 6), weights (6, 3) and inputs (6, 6)
OUTPUT, WEIGHT, INPUT = _values(TILE).T, _values(3), torch.linalg.inv(_values(TILE + 2)).T


class WinogradConv2d(nn.Module):
    """A 3x3 convolution (stride 1, padding 1) by Winograd's F(4x4, 3x3), for single precision on a CPU.

    Each tile of 4 x 4 outputs takes 36 multiplications for each pair of channels instead of 144, as products of
    matrices; `Lavin and Gray <https://arxiv.org/abs/1509.09308>`_ describe the method. Results differ from the exact
    ones by 3e-6 of the largest, those of a plain convolution by 3e-7. What cannot be done so (other types and devices,
    gradients, autocast, tracing) is convolved plainly. The transformed weights take four times the memory of the plain
    ones, which stay.

    Args:
        conv: the convolution to replace; its parameters are taken over.
        num_inputs: how many of its input channels, counted from the first, are convolved.

    Shape: (N, num_inputs, H, W) to (N, out_channels, H, W), channels-last in memory.
    """

    def __init__(self, conv: nn.Conv2d, num_inputs: int) -> None:
        super().__init__()
        self.weight, self.bias, self.num_inputs = conv.weight, conv.bias, num_inputs
        weight = conv.weight[:, :num_inputs].detach().double()
        transformed = torch.einsum('iy,jx,ocyx->ijco', WEIGHT, WEIGHT, weight).flatten(0, 1)
        self.register_buffer('transformed', transformed.to(conv.weight.dtype).contiguous(), persistent=False)

    @staticmethod
    def pays(conv: nn.Module, num_inputs: int) -> bool:
        """Whether this was found to be faster than ``conv``, which the machine and the channels decide.

        On two cores 512 channels take half the time with AVX2 and 0.9 of it with AVX-512; 128 channels gain nothing.
        Above 512 x 512 the transformed weights are too large to be worth their memory.
        """
        return torch.backends.mkl.is_available() and WinogradConv2d._suits(conv, num_inputs, 256)

    @staticmethod
    def pays_in_onnx(conv: nn.Module, num_inputs: int) -> bool:
        """The same for ONNX Runtime, which takes 0.7 of the time for 512 channels with AVX-512, and no less for 256."""
        return WinogradConv2d._suits(conv, num_inputs, 512)

    @staticmethod
    def _suits(conv: nn.Module, num_inputs: int, channels: int) -> bool:
        return (type(conv) is nn.Conv2d and conv.weight.dtype == torch.float32 and conv.weight.device.type == 'cpu'
                and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
                and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, 'zeros')
                and min(num_inputs, conv.out_channels) >= channels and num_inputs * conv.out_channels <= 512**2)

    def plain(self) -> nn.Conv2d:
        """The convolution that was replaced."""
        conv = nn.Conv2d(self.weight.shape[1], len(self.weight), 3, padding=1, bias=self.bias is not None)
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export() and torch.jit.is_tracing():
            return self._in_graph(x)
        wants_grad = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        is_traced = torch.jit.is_tracing() or is_compiling()
        if x.dtype != torch.float32 or x.device.type != 'cpu' or wants_grad or is_traced or is_autocast_on_cpu():
            return F.conv2d(x, self.weight[:, :self.num_inputs], self.bias, padding=1)
        return self._in_tiles(x)

    def _in_graph(self, x: Tensor) -> Tensor:
        """The same in operations that a tracer keeps, so that sizes may change later: slices and products."""
        n, _, height, width = x.shape
        tiles_y, tiles_x = (torch.div(length + TILE - 1, TILE, rounding_mode='floor') for length in (height, width))
        inputs, outputs = INPUT.to(x), OUTPUT.to(x)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, TILE, 1, TILE))
        channels, padded = x.shape[3], x.shape[2]
        x = torch.stack([x[:, i:i + TILE * tiles_y:TILE] for i in range(TILE + 2)], 1)
        x = torch.matmul(inputs, x.reshape(n, 6, -1)).reshape(n, 6, tiles_y, padded, channels)
        x = torch.stack([x[:, :, :, i:i + TILE * tiles_x:TILE] for i in range(TILE + 2)], 2)
        x = torch.matmul(inputs, x.reshape(n, 6, 6, -1)).reshape(n, 36, tiles_y * tiles_x, channels)
        x = torch.matmul(x, self.transformed).reshape(n, 6, 6, -1)
        x = torch.matmul(outputs, torch.matmul(outputs, x).reshape(n, 6, -1))
        x = x.reshape(n, TILE, TILE, tiles_y, tiles_x, -1).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(n, TILE * tiles_y, TILE * tiles_x, -1)[:, :height, :width]
        return (x if self.bias is None else x + self.bias).permute(0, 3, 1, 2)

    def _in_tiles(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
        x = x.permute(0, 2, 3, 1)
        result = x.new_empty(n, tiles_y, TILE, tiles_x, TILE, self.transformed.shape[2])
        rows = max(1, TILES // (n * tiles_x))
        for top in range(0, tiles_y, rows):
            count = min(rows, tiles_y - top)
            first, last = TILE * top - 1, TILE * (top + count) + 1
            padding = (0, 0, 1, TILE * tiles_x - width + 1, int(first < 0), max(last - height, 0))
            part = F.pad(x[:, max(first, 0):last], padding).contiguous()
            result[:, top:top + count] = self._tiles(part, count, tiles_x)
        result = result.flatten(3, 4).flatten(1, 2)[:, :height, :width]
        return (result if self.bias is None else result.add_(self.bias)).permute(0, 3, 1, 2)

    def _tiles(self, x: Tensor, tiles_y: int, tiles_x: int) -> Tensor:
        """(N, 4 tiles_y + 2, 4 tiles_x + 2, C) to the outputs (N, tiles_y, 4, tiles_x, 4, O)."""
        n, _, width, channels = x.shape
        inputs, outputs = INPUT.to(x), OUTPUT.to(x)
        x = x.flatten(2).unfold(1, TILE + 2, TILE).transpose(2, 3)  # (N, tiles_y, 6, (width, C))
        x = torch.matmul(inputs, x).view(-1, width, channels)
        x = x.unfold(1, TILE + 2, TILE).transpose(2, 3)  # ((N, tiles_y, 6), tiles_x, 6, C)
        x = torch.matmul(inputs, x).view(n * tiles_y, 6, tiles_x, 6, channels)
        x = x.permute(1, 3, 0, 2, 4).reshape(36, -1, channels)
        x = torch.bmm(x, self.transformed)  # (36, (N, tiles_y, tiles_x), O)
        x = torch.matmul(outputs, x.view(6, 6, -1)).view(6, -1)
        x = torch.matmul(outputs, x).view(TILE, TILE, n, tiles_y, tiles_x, -1)
        return x.permute(2, 3, 0, 4, 1, 5)
