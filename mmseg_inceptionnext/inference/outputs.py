"""What is predicted of an image, and the files that it is written to."""
import io
import os.path as osp
from dataclasses import dataclass
from typing import Collection, Dict, Optional, Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmseg_inceptionnext.checkpoints.files import write_atomically
from mmseg_inceptionnext.errors import InputError

from .overlay import check_opacity, class_share, draw_overlay, paint

ENDINGS = dict(index='.png', color='_color.png', overlay='_overlay.jpg', prob='_prob.npz', conf='_conf.png')
VIDEO_ENDINGS = dict(color='_color.mp4', overlay='_overlay.mp4')  # of the others there is a file for each frame
MARK = 'segmented by mmseg_inceptionnext'  # in each image that is written


@dataclass
class SegmentationResult:
    """The classes of one image.

    Attributes:
        image: H x W x 3, uint8, RGB, at the original size; grey is repeated, of more bands the first three are shown,
            and what does not fit in 8 bits is stretched from the smallest to the largest value.
        mask: H x W, the class id of each pixel, from 0; uint8, or uint16 above 256 classes.
        classes, palette: name of each class id, and its colour, RGB from 0 to 255.
        probabilities: number of classes x H x W, float32, or None where they were not asked for.
    """
    image: np.ndarray
    mask: np.ndarray
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    probabilities: Optional[np.ndarray] = None

    def overlay(self, opacity: float = 0.5, classes: Optional[Collection[str]] = None) -> Image.Image:
        """The image painted with its classes, or some of them, and a legend of those present; see :func:`paint`."""
        return draw_overlay(self.image, self.mask, self.classes, self.palette, opacity, classes)

    def color(self, classes: Optional[Collection[str]] = None) -> Image.Image:
        """The palette's colour of each pixel; black where the class is not one of those asked for."""
        black = np.zeros_like(self.image)
        return Image.fromarray(paint(black, self.mask, self.classes, self.palette, 1., classes))

    def share(self) -> Dict[str, float]:
        """Share of the pixels of each class present, largest first."""
        return class_share(self.mask, self.classes)


@dataclass
class ResultWriter:
    """Writes what was predicted of an image. Pictures hold a mark, by which :func:`is_result` knows them.

    - ``index``: PNG, the class id of each pixel, from 0; 16 bits above 256 classes.
    - ``color``: PNG, the palette's colour of each pixel.
    - ``overlay``: JPEG, the image painted with its classes, and a legend.
    - ``prob``: NPZ with ``probabilities``, classes x H x W, float16.
    - ``conf``: grey PNG, the probability of the most probable class, 255 for 1.

    Args:
        save: the kinds that are written; spaces around them, and repetitions, do not count.
        opacity: of the classes painted over an image, from 0 to 1.
        classes: the classes that are painted in ``color`` and ``overlay``. Default: all.

    Attributes:
        video_kinds: those of ``save`` of which a video gets a video.
        frame_kinds: those of which each frame of a video gets a file.
    """
    save: Sequence[str] = ('index', 'overlay')
    opacity: float = 0.5
    classes: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        self.save = list(dict.fromkeys(kind.strip() for kind in self.save))
        if not self.save or not set(self.save) <= set(ENDINGS):
            raise InputError(f'--save {",".join(self.save)}: allowed are some of {",".join(ENDINGS)}')
        check_opacity(self.opacity)
        self.video_kinds = [kind for kind in self.save if kind in VIDEO_ENDINGS]
        self.frame_kinds = [kind for kind in self.save if kind not in VIDEO_ENDINGS]

    @property
    def needs_probabilities(self) -> bool:
        return 'prob' in self.save or 'conf' in self.save

    def write(self, result: SegmentationResult, target: str, kinds: Optional[Sequence[str]] = None) -> None:
        """Writes the files of an image, each complete or not at all; ``target`` is their path without the ending."""
        for kind in self.save if kinds is None else kinds:
            write_atomically(self._encode(kind, result), target + ENDINGS[kind])

    def picture(self, kind: str, result: SegmentationResult) -> np.ndarray:
        """``color`` or ``overlay`` at the size of the image, without a legend: H x W x 3, RGB."""
        if kind == 'color':
            return np.asarray(result.color(self.classes))
        return paint(result.image, result.mask, result.classes, result.palette, self.opacity, self.classes)

    def _encode(self, kind: str, result: SegmentationResult) -> bytes:
        if kind == 'index':
            return encode_png(result.mask)
        if kind == 'color':
            return encode_png(self.picture('color', result))
        if kind == 'conf':
            return encode_png(np.round(255 * result.probabilities.max(0)).astype(np.uint8))
        file = io.BytesIO()
        if kind == 'overlay':
            result.overlay(self.opacity, self.classes).save(file, 'JPEG', quality=92, comment=MARK)
        else:
            np.savez_compressed(file, probabilities=result.probabilities.astype(np.float16))
        return file.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG of a map of class ids, H x W, or a picture, H x W x 3, with the mark."""
    file, info = io.BytesIO(), PngInfo()
    info.add_text('Software', MARK)
    Image.fromarray(pixels).save(file, 'PNG', pnginfo=info)
    return file.getvalue()


def is_result(path: str, most: int = 1 << 20) -> bool:
    """Whether a file is one of these: an image by its mark, a video by the end of its name.

    ``most`` bytes of a TIFF are looked through: its mark is behind the offsets of its tiles, 12 bytes for each.
    """
    if path.endswith(tuple(VIDEO_ENDINGS.values())):
        return True
    if not osp.isfile(path):  # a pipe would be waited for
        return False
    try:
        with open(path, 'rb') as file:
            return MARK.encode() in file.read(most if path.endswith('.tif') else 1024)
    except OSError:
        return False
