"""Paints a class map over its image, with a legend."""
from difflib import get_close_matches
from typing import Collection, Dict, List, Optional, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmseg_inceptionnext.errors import InputError

ROW_HEIGHT, SWATCH, MARGIN, TEXT_SIZE = 22, 16, 8, 13  # pixels, of the legend


def class_share(mask: np.ndarray, classes: Sequence[str]) -> Dict[str, float]:
    """Share of the pixels that each class present takes, largest first; the shares add up to 1."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    return {classes[i]: float(counts[i] / mask.size) for i in np.argsort(-counts, kind='stable') if counts[i]}


def check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise InputError(f'--opacity {opacity}: allowed is 0 (only the image) to 1 (only the classes)')


def find_classes(names: Collection[str], classes: Sequence[str]) -> List[str]:
    """The classes of these names, without the spaces around them; an InputError if one is none of the classes."""
    known = {name.strip(): name for name in classes}
    for name in names:
        if name.strip() not in known:
            close = get_close_matches(name, known) or (list(known) if len(known) <= 20 else [])
            hint = f'; there is {", ".join(close)}' if close else ', and none is similar'
            raise InputError(f'--classes {name}: not among the {len(known)} classes of this model{hint}')
    return [known[name.strip()] for name in names]


def paint(image: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]],
          opacity: float = 0.5, only: Optional[Collection[str]] = None) -> np.ndarray:
    """Paints classes over an image.

    Args:
        image: H x W x 3, uint8, RGB, as is what is returned.
        mask: H x W, the class id of each pixel.
        classes, palette: name of each class, and its colour, RGB from 0 to 255.
        opacity: of the paint, from 0 (the image) to 1 (the class map).
        only: the classes to paint; the image stays as it is elsewhere. Default: all.

    Raises:
        InputError: if the opacity is not from 0 to 1, or a name is none of the classes.
    """
    check_opacity(opacity)
    painted = cv2.addWeighted(image, 1 - opacity, np.asarray(palette, np.uint8)[mask], opacity, 0)
    if only is None:
        return painted
    return np.where(np.isin(classes, find_classes(only, classes))[mask][..., None], painted, image)


def draw_overlay(image: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]],
                 opacity: float = 0.5, only: Optional[Collection[str]] = None) -> Image.Image:
    """Paints classes over an image, see :func:`paint`, and lists those present, with their share, on the right: a
    picture of H x (W + legend); a legend with more rows than H holds makes it taller."""
    painted = Image.fromarray(paint(image, mask, classes, palette, opacity, only))
    listed = classes if only is None else find_classes(only, classes)
    share = {name: part for name, part in class_share(mask, classes).items() if name in listed}
    if not share:
        return painted
    legend = _legend(share, dict(zip(classes, palette)))
    canvas = Image.new('RGB', (painted.width + legend.width, max(painted.height, legend.height)), 'white')
    canvas.paste(painted, (0, 0))
    canvas.paste(legend, (painted.width, 0))
    return canvas


def percent(part: float) -> str:
    """A share from 0 to 1, as a legend has it."""
    return f'{100 * part:.1f} %' if part >= 0.001 else '< 0.1 %'


def _legend(share: Dict[str, float], colors: Dict[str, Sequence[int]]) -> Image.Image:
    font = ImageFont.load_default(TEXT_SIZE)
    texts = {name: f'{name}  {percent(part)}' for name, part in share.items()}
    text_width = max(font.getlength(text) for text in texts.values())
    legend = Image.new('RGB', (int(text_width) + SWATCH + 3 * MARGIN, ROW_HEIGHT * len(texts) + MARGIN), 'white')
    draw = ImageDraw.Draw(legend)
    for row, (name, text) in enumerate(texts.items()):
        y = MARGIN // 2 + row * ROW_HEIGHT
        box = (MARGIN, y + 2, MARGIN + SWATCH, y + 2 + SWATCH)
        draw.rectangle(box, fill=tuple(int(c) for c in colors[name]), outline='black')
        draw.text((SWATCH + 2 * MARGIN, y + 3), text, fill='black', font=font)
    return legend
