"""Grad-CAM of a stage of the backbone, through the library grad-cam."""
import cv2
import numpy as np
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from mmseg_inceptionnext.errors import InputError

OPACITY = 0.55  # of the colours over the image
BAR_WIDTH, MARGIN, ROW_HEIGHT, TEXT_SIZE = 18, 10, 20, 13  # pixels, of the legend


class NotPredictedError(ValueError):
    """No pixel is predicted as the class."""


class _Tapped(nn.Module):
    """(N, C, H, W) to logits at the size at which the head gives them; one output of the backbone passes ``tap``."""

    def __init__(self, model: nn.Module, stage: int) -> None:
        super().__init__()
        self.model, self.stage, self.tap = model, stage, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = list(self.model.backbone(x))
        features[self.stage] = self.tap(features[self.stage])
        if self.model.with_neck:
            features = self.model.neck(features)
        return self.model.decode_head(features)


def check_grad_cam(model: nn.Module) -> None:
    """Says why :func:`grad_cam` cannot be had for a model.

    Raises:
        ValueError: if the library is missing, or if the model is anything but a backbone, perhaps a neck, and one
            decode head with a channel for each class.
    """
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError as error:
        raise InputError(f'Grad-CAM needs the library grad-cam: pip install grad-cam ({error})') from error
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, BaseDecodeHead) or head.out_channels < 2:
        kind = type(head).__name__ + (' with one channel' if getattr(head, 'out_channels', 0) == 1 else '')
        raise InputError('Grad-CAM is for models with one decode head that has a channel for each class; that of this '
                         f'{type(model).__name__} is {kind}')


def grad_cam(model: nn.Module, inputs: Tensor, class_id: int, stage: int) -> np.ndarray:
    """What in a stage's map speaks for a class: Grad-CAM of the sum of the class's logits where it is predicted.

    The channels of the map are added up, each weighted by the mean of its gradient, and what is negative is set to 0
    (Selvaraju et al., 2017, arXiv:1610.02391; over the predicted pixels as in Vinogradova et al., 2020,
    arXiv:2002.11434).

    Args:
        model: an ``EncoderDecoder`` in evaluation mode.
        inputs: a normalised image, (1, C, H, W).
        class_id: of the class.
        stage: of the backbone, from 0.

    Returns:
        H x W, float32, the largest value 1, unless all are 0.

    Raises:
        NotPredictedError: if the class is predicted nowhere.
    """
    from pytorch_grad_cam import GradCAM

    def logit_where_predicted(logits: Tensor) -> Tensor:
        predicted = logits.argmax(0) == class_id
        if not predicted.any():
            raise NotPredictedError('the class is predicted nowhere')
        return logits[class_id][predicted].sum()

    tapped = _Tapped(model, stage)
    with torch.enable_grad(), GradCAM(tapped, [tapped.tap]) as cam:
        result = cam(inputs.detach().requires_grad_(), [logit_where_predicted])[0]
    model.zero_grad(set_to_none=True)
    return result


def draw_cam(image: np.ndarray, cam: np.ndarray, predicted: np.ndarray, class_name: str, stage: int) -> Image.Image:
    """Paints a map over its image, with a white line around the pixels predicted as the class, and a legend.

    Args:
        image: H x W x 3, uint8, RGB.
        cam: H x W, from 0 to 1.
        predicted: H x W, bool, the pixels of the class.
        class_name: of the class.
        stage: of the backbone, from 1.

    Returns:
        A picture of H x (W + legend), at least as tall as the legend.
    """
    painted = np.round((1 - OPACITY) * image + OPACITY * _colors(cam)).astype(np.uint8)
    outlines, _ = cv2.findContours(predicted.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(painted, outlines, -1, (255, 255, 255), 1 + max(image.shape) // 1000)
    lines = [f'Grad-CAM of stage {stage}', f'for the class {class_name}',
             f'(white line: predicted, {100 * predicted.mean():.1f} %)']
    lines += [] if cam.any() else ['zero everywhere']
    legend = _legend(lines, height=max(image.shape[0], 220))
    canvas = Image.new('RGB', (image.shape[1] + legend.width, legend.height), 'white')
    canvas.paste(Image.fromarray(painted), (0, 0))
    canvas.paste(legend, (image.shape[1], 0))
    return canvas


def _colors(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as colours, (..., 3), RGB from 0 to 255."""
    from matplotlib import colormaps
    return 255 * colormaps['turbo'](np.clip(values, 0, 1))[..., :3]


def _legend(lines, height: int) -> Image.Image:
    font = ImageFont.load_default(TEXT_SIZE)
    width = int(max(font.getlength(line) for line in lines)) + 2 * MARGIN
    legend = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(legend)
    for row, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + row * ROW_HEIGHT), line, fill='black', font=font)
    top = 2 * MARGIN + len(lines) * ROW_HEIGHT
    length = min(height - top - MARGIN, 256)
    bar = np.broadcast_to(_colors(np.linspace(1, 0, length))[:, None], (length, BAR_WIDTH, 3))
    legend.paste(Image.fromarray(bar.round().astype(np.uint8)), (MARGIN, top))
    for value, y in ((1, top), (0.5, top + length // 2), (0, top + length - 1)):
        text = {1: '1, speaks most for it', 0: '0, not at all or against it'}.get(value, str(value))
        draw.line((MARGIN, y, MARGIN + BAR_WIDTH + 4, y), fill='black')
        draw.text((2 * MARGIN + BAR_WIDTH, y - TEXT_SIZE // 2 - 1), text, fill='black', font=font)
    return legend
