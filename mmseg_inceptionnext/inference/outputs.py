"""Writes what was predicted, as files."""
import io
import os.path as osp
from dataclasses import dataclass
from typing import Dict, Optional, Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmseg_inceptionnext.checkpoints.files import write_atomically
from mmseg_inceptionnext.errors import InputError

from .overlay import check_opacity, paint
from .result import SegmentationResult

ENDINGS = dict(index='.png', color='_color.png', overlay='_overlay.jpg', prob='_prob.npz', conf='_conf.png')
VIDEO_ENDINGS = dict(color='_color.mp4', overlay='_overlay.mp4')  # the others: a file for each frame
MARK = 'segmented by mmseg_inceptionnext'  # in each image that is written


@dataclass
class Output:
    """What is written of each image. Pictures hold a mark, by which :func:`is_result` knows them.

    - ``index``: PNG, the class id of each pixel, from 0; 16 bits above 256 classes.
    - ``color``: PNG, the palette's colour of each pixel.
    - ``overlay``: JPEG, the image painted with its classes, and a legend.
    - ``prob``: NPZ with ``probabilities``, classes x H x W, float16.
    - ``conf``: grey PNG, the probability of the most probable class, 255 for 1.

    Args:
        save: the kinds that are written; spaces around them, and repetitions, do not count.
        opacity: of the classes painted over an image, from 0 to 1.
        classes: the classes that are painted in ``color`` and ``overlay``. Default: all.
    """
    save: Sequence[str] = ('index', 'overlay')
    opacity: float = 0.5
    classes: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        self.save = list(dict.fromkeys(kind.strip() for kind in self.save))
        unknown = [kind for kind in self.save if kind not in ENDINGS]
        if unknown or not self.save:
            raise InputError(f'--save {",".join(self.save)}: allowed are some of {",".join(ENDINGS)}')
        check_opacity(self.opacity)

    @property
    def needs_probabilities(self) -> bool:
        return 'prob' in self.save or 'conf' in self.save

    def paths(self, target: str) -> Dict[str, str]:
        """The file of each kind, for an image."""
        return {kind: target + ENDINGS[kind] for kind in self.save}

    def write(self, result: SegmentationResult, target: str, kinds: Optional[Sequence[str]] = None) -> None:
        """Writes the files of an image, each whole or not at all."""
        for kind in self.save if kinds is None else kinds:
            write_atomically(self._encode(kind, result), target + ENDINGS[kind])

    def picture(self, kind: str, result: SegmentationResult) -> np.ndarray:
        """``color`` or ``overlay`` at the size of the image, without a legend: H x W x 3, RGB."""
        if kind == 'color':
            return np.asarray(result.color(self.classes))
        return paint(result.image, result.mask, result.classes, result.palette, self.opacity, self.classes)

    def _encode(self, kind: str, result: SegmentationResult) -> bytes:
        if kind == 'index':
            return encode_index(result.mask)
        if kind == 'color':
            return _png(result.color(self.classes))
        if kind == 'conf':
            confidence = np.round(255 * result.probabilities.max(0))
            return _png(Image.fromarray(confidence.astype(np.uint8)))
        file = io.BytesIO()
        if kind == 'overlay':
            result.overlay(self.opacity, self.classes).save(file, 'JPEG', quality=92, comment=MARK)
        else:
            np.savez_compressed(file, probabilities=result.probabilities.astype(np.float16))
        return file.getvalue()


def encode_index(mask: np.ndarray) -> bytes:
    """The PNG of a map of class ids, H x W."""
    return _png(Image.fromarray(mask))


def _png(image: Image.Image) -> bytes:
    file, info = io.BytesIO(), PngInfo()
    info.add_text('Software', MARK)
    image.save(file, 'PNG', pnginfo=info)
    return file.getvalue()


def is_result(path: str) -> bool:
    """Whether a file is one of these: an image by its mark, a video by the end of its name."""
    if path.endswith(tuple(VIDEO_ENDINGS.values())):
        return True
    if not osp.isfile(path):  # a pipe would be waited for
        return False
    try:
        with open(path, 'rb') as file:
            return MARK.encode() in file.read(1024)
    except OSError:
        return False
