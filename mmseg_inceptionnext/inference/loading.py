"""What the loading step of a test pipeline gives: of files, and of images in memory as of files that hold them."""
import io
import os
from functools import partial
from typing import Callable, Optional, Union

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import BaseTransform, LoadImageFromFile
from PIL import Image, ImageOps

from mmseg_inceptionnext.datasets.files import decode, load, read
from mmseg_inceptionnext.datasets.rasters import LoadRaster
from mmseg_inceptionnext.errors import InputError

from .inputs import require_file

Source = Union[str, os.PathLike, np.ndarray, Image.Image]
COLOR = (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


class Loading:
    """The loading step, such as ``LoadImageFromFile``, with its settings.

    What is in memory is given as a file without loss would be. Where a step of one's own has no ``color_type``, grey
    and coloured images of 8 bits are what ``LoadImageFromFile`` makes of them by default; other arrays stay as they
    are.
    """

    def __init__(self, step: BaseTransform) -> None:
        self.step, self.is_own = step, not hasattr(step, 'color_type')
        self.color_type = getattr(step, 'color_type', 'color')
        self.flag = imread_flags.get(self.color_type, self.color_type)  # OpenCV's
        self.backend = getattr(step, 'imdecode_backend', None) or 'cv2'
        self.as_stored = self.backend == 'tifffile' or isinstance(step, LoadRaster)  # RGB, of any number of bands
        self.in_color = self.flag in COLOR and not self.as_stored
        self.takes_any = self.as_stored or self.is_own or self.flag == cv2.IMREAD_UNCHANGED

    def keep(self, source: Source) -> Callable[[], dict]:
        """What loads an image: ``img``, its sizes and ``img_path``, which is None of what is no file.

        What is in memory, which its owner may fill again, is kept as it is now. Both calls raise an InputError if a
        file cannot be read, or what is in memory is no image as the files are, and a TypeError if it is neither.
        """
        if isinstance(source, (str, os.PathLike)):
            return partial(self._of_file, os.fspath(source))
        if isinstance(source, Image.Image):
            return partial(self._results, self._of_pil(source))
        if isinstance(source, np.ndarray):
            return partial(self._of_array, source.copy())
        raise TypeError(f'{type(source).__name__}: allowed are the path of an image, a PIL image, a NumPy array, and '
                        'lists and other iterables of these')

    def show(self, image: np.ndarray) -> np.ndarray:
        """A loaded image as a picture, a copy; see :class:`SegmentationResult`."""
        image = image[..., None] if image.ndim == 2 else image
        image = np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]
        image = image if self.as_stored else image[..., ::-1]
        with np.errstate(invalid='ignore'):  # NaN
            picture = image.astype(np.uint8)
        if image.dtype == np.uint8 or (picture == image).all():
            return picture
        image = np.nan_to_num(image.astype(np.float64), posinf=0, neginf=0)
        low, high = image.min(), image.max()
        return (255 * (image - low) / ((high - low) or 1)).astype(np.uint8)

    def _results(self, image: np.ndarray, path: Optional[str] = None) -> dict:
        to_float32 = getattr(self.step, 'to_float32', False)
        image = np.ascontiguousarray(image, np.float32 if to_float32 else image.dtype.newbyteorder('='))
        return dict(img=image, img_path=path, img_shape=image.shape[:2], ori_shape=image.shape[:2])

    def _of_file(self, path: str) -> dict:
        require_file(path)
        try:
            if type(self.step) is LoadImageFromFile and not self.step.file_client_args:
                return self._results(load(path, self.step), path)
            read(path)  # what is cut off or damaged would be made up
            return self.step(dict(img_path=path))
        except ValueError as error:
            is_tiff = any(f"begins with b'{sign}" in str(error) for sign in ('II', 'MM'))
            hint = '; tools/infer.py reads TIFFs of floating point, too, with --window and --scale-range'
            raise InputError(f'{path}: cannot be read as an image: it {error}{hint if is_tiff else ""}') from error
        except Exception as error:  # a step of one's own may have any
            raise InputError(f'{path}: cannot be read as an image: {type(error).__name__}: {error}') from error

    def _of_array(self, image: np.ndarray) -> dict:
        image = image[..., 0] if image.shape[2:] == (1, ) else image
        is_plain = image.dtype == np.uint8 and image.shape[2:] in ((), (3, ))
        if not (image.size and image.ndim in (2, 3) and (is_plain or self.takes_any and image.dtype.kind in 'uif')):
            allowed = ('height x width and height x width x bands, RGB first, of numbers' if self.takes_any else
                       'height x width x 3, RGB, and height x width, both uint8')
            raise InputError(
                f'an array of shape {image.shape} and {image.dtype}: allowed are {allowed}, of at least one pixel')
        if is_plain and self.in_color and image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        elif is_plain and image.ndim == 3 and not self.as_stored:
            image = image[..., ::-1]
        elif image.shape[2:] > (2, ) and not (self.as_stored or self.is_own):
            image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
        if not self.in_color and not self.takes_any:
            image = self._decode(cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
        return self._results(image)

    def _of_pil(self, image: Image.Image) -> np.ndarray:
        # Of a TIFF OpenCV blends the transparency with black.
        kind, usual = ('TIFF', ('L', 'RGB')) if image.format == 'TIFF' else ('PNG', ('L', 'RGB', 'RGBA'))
        try:
            if self.backend in ('cv2', 'pillow') and not self.flag & cv2.IMREAD_IGNORE_ORIENTATION:
                image = ImageOps.exif_transpose(image)
            if self.as_stored or image.mode == 'F' and self.flag == cv2.IMREAD_UNCHANGED:
                return np.array(image)
            image = _in_png(image)
            if self.in_color and image.mode in usual:
                return np.asarray(image.convert('RGB'))[..., ::-1]
            file = io.BytesIO()
            image.save(file, kind, compress_level=0)
            return self._decode(file.getvalue())
        except InputError:
            raise
        except Exception as error:  # Pillow has many for a file that is cut off
            raise InputError(f'{type(image).__name__}: cannot be read: {error}') from error

    def _decode(self, content: bytes) -> np.ndarray:
        return decode(content, self.color_type, 'pillow' if self.backend == 'pillow' else 'cv2')


def _in_png(image: Image.Image) -> Image.Image:
    """A PIL image in a mode that a PNG has."""
    if image.mode == 'F':
        raise InputError('a PIL image of mode F (floating point), whose range nothing tells: bring it to 0 to 255 and '
                         'convert it to mode L or RGB')
    if image.mode != 'I' and not image.mode.startswith('I;16'):
        return image if image.mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA') else image.convert('RGB')
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 1 << 16:
        raise InputError(f'a PIL image of mode I with values from {values.min()} to {values.max()}: allowed are 0 to '
                         '65535, those of 16 bits; convert others to mode L or RGB')
    return Image.fromarray(values.astype(np.uint16))
