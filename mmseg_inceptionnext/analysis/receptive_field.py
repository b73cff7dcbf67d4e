"""The effective receptive field: how much each pixel of the input counts for the middle of a stage's map."""
from typing import Iterable, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from mmseg_inceptionnext.errors import InputError

SHARES = {0.2: 'white', 0.5: 'cyan', 0.95: 'lime'}  # of the contribution, whose squares are measured, and their colours


class ReceptiveField(NamedTuple):
    """How much each pixel counts.

    Attributes:
        contribution: H x W, float64, not negative.
        center: of the pixels that the middle of the map stands for, row and column, in pixels from the upper left
            corner of the input.
    """
    contribution: np.ndarray
    center: Tuple[float, float]

    def square(self, share: float) -> int:
        """The side, in pixels, of the smallest square around the center that holds a share of the contribution.

        Args:
            share: above 0 and up to 1.

        Raises:
            ValueError: if the contribution of all pixels together is zero or not finite.
        """
        total = self.contribution.sum()
        if not np.isfinite(total) or total <= 0:
            raise InputError(f'the gradients by the input add up to {total:g}, so there is no receptive field')
        # The sides from which on a square holds each row, and each column: its distance counts to both sides.
        rows, cols = (np.abs(2 * np.arange(size) + 1 - round(2 * middle)) + 1
                      for size, middle in zip(self.contribution.shape, self.center))
        sides = np.maximum(rows[:, None], cols)
        held = np.bincount(sides.ravel(), self.contribution.ravel()).cumsum()
        return int(np.searchsorted(held, share * total * (1 - 1e-9)))


def receptive_fields(backbone: nn.Module, inputs: Iterable[Tensor]) -> List[ReceptiveField]:
    """The effective receptive field of each output of a backbone (Luo et al., 2016, arXiv:1701.04128).

    The contribution of a pixel is the gradient by it of the middle of the output map, summed over the map's channels:
    the absolute value, summed over the pixel's colours and averaged over the inputs.

    Args:
        backbone: in evaluation mode, on the device of the inputs.
        inputs: normalised images, each (1, C, H, W), of one size; at least one.
    """
    totals: List[np.ndarray] = []
    count = 0
    for x in inputs:
        count += 1
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = backbone(x)
            middles = [output[..., output.shape[-2] // 2, output.shape[-1] // 2].sum() for output in outputs]
        gradients = [torch.autograd.grad(middle, x, retain_graph=True)[0] for middle in middles]
        new = [gradient[0].abs().sum(0).double().cpu().numpy() for gradient in gradients]
        totals = [a + b for a, b in zip(totals, new)] if totals else new
        centers = [_center(x.shape[-2:], output.shape[-2:]) for output in outputs]
    return [ReceptiveField(total / count, center) for total, center in zip(totals, centers)]


def _center(size: Sequence[int], map_size: Sequence[int]) -> Tuple[float, float]:
    """The middle of the input pixels that the middle pixel of a map stands for, if it divides the input evenly."""
    return tuple((pixels // 2 + 0.5) * side / pixels for side, pixels in zip(size, map_size))


def random_inputs(side: int, device: torch.device, num: int = 1) -> Iterator[Tensor]:
    """Normally distributed noise, always the same, as if it were normalised images: each (1, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num):
        yield torch.randn(1, 3, side, side, generator=generator).to(device)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def middle_square(image: Tensor, side: int) -> Tensor:
    """Cuts the middle out of an image: a square of ``side`` or, if it is smaller, of the largest multiple of 32."""
    height, width = image.shape[-2:]
    smallest = min(height, width)
    side = min(side, smallest // 32 * 32 or smallest)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top:top + side, left:left + side]


def fields_table(fields: Sequence[ReceptiveField]) -> str:
    """Text: for each stage the side of the square that holds each of :data:`SHARES`."""
    rows = ['effective receptive field: side of the square around the middle that holds a share of the contribution,',
            f'in pixels of an input of {_size(fields[0])}',
            'stage  ' + ''.join(f'{share:>6.0%}' for share in SHARES)]
    for i, field in enumerate(fields, 1):
        rows.append(f'{i:>5}  ' + ''.join(f'{field.square(share):>6}' for share in SHARES))
    return '\n'.join(rows)


def draw_fields(fields: Sequence[ReceptiveField], source: str, path: str) -> None:
    """Draws the fields side by side, with their squares.

    The colours follow the square root of the contribution, so that the outer parts show.

    Args:
        fields: see :func:`receptive_fields`.
        source: what they are the mean of, for the title.
        path: the picture to write.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    figure = Figure(figsize=(3.6 * len(fields) + 0.9, 4.6), layout='constrained')
    panels = list(figure.subplots(1, len(fields), squeeze=False)[0])
    for i, (field, axes) in enumerate(zip(fields, panels), 1):
        height, width = field.contribution.shape
        shown = axes.imshow(field.contribution / field.contribution.max(), cmap='magma', norm=PowerNorm(0.5, 0, 1),
                            extent=(0, width, height, 0), interpolation='nearest')
        sides = {share: field.square(share) for share in SHARES}
        for share, side in sides.items():
            corner = field.center[1] - side / 2, field.center[0] - side / 2
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=SHARES[share], linewidth=1.4))
        axes.set_title(f'stage {i}, sides in pixels\n' +
                       '   '.join(f'{share:.0%}: {side}' for share, side in sides.items()), fontsize='medium')
        axes.set_xlabel('pixels of the input')
    figure.colorbar(shown, ax=panels, label='contribution, largest = 1', ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], shrink=0.7,
                    format='{x:g}')
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=color, linewidth=2) for color in SHARES.values()]
    labels = [f'square with {share:.0%} of the contribution' for share in SHARES]
    figure.legend(handles, labels, ncols=len(labels), loc='outside lower center', facecolor='0.2', labelcolor='white')
    figure.suptitle('effective receptive field of the middle of each map: '
                    f'mean over {source} of {_size(fields[0])} pixels')
    figure.savefig(path, dpi=110)


def _size(field: ReceptiveField) -> str:
    return ' x '.join(str(side) for side in field.contribution.shape)
