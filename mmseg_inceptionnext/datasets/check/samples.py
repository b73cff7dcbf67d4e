"""Checks one pair of image and label; see ``check.py``."""
import io
import os
import tempfile
from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
from mmengine import fileio
from PIL import Image

from mmseg_inceptionnext.datasets.files import JPEG, PNG, decode, read, wide_values
from mmseg_inceptionnext.datasets.transforms import out_of_range, shape_problem

EXIF_ORIENTATION = 0x0112


class Problem(NamedTuple):
    """What is wrong with a file or a folder.

    Attributes:
        level: ``error`` or ``warning``.
        kind: one of a few names, to group by.
        path: the file or the folder.
        message: what is wrong with it.
    """
    level: str
    kind: str
    path: str
    message: str


class Sample(NamedTuple):
    """What was found in a pair.

    Attributes:
        problems: all that is wrong.
        counts: pixels of each of the 256 values of the label file; None if there is no label that can be used.
    """
    problems: List[Problem]
    counts: Optional[np.ndarray]


class Settings(NamedTuple):
    """How a dataset reads its files.

    Attributes:
        color_type, image_backend: of ``LoadImageFromFile``.
        label_backend: of ``LoadAnnotations``, or None if there are no labels.
        values: what becomes of each of the 256 values of a label file, see :func:`mapped_values`.
        num_classes, ignore_index, reduce_zero_label, backend_args: of the dataset.
    """
    color_type: str
    image_backend: str
    label_backend: Optional[str]
    values: np.ndarray
    num_classes: int
    ignore_index: int
    reduce_zero_label: bool
    backend_args: Optional[dict]


def mapped_values(reduce_zero_label: bool, label_map: Optional[dict]) -> np.ndarray:
    """What MMSegmentation's ``LoadAnnotations`` makes of each of the 256 values of a label file: 256 x uint8."""
    values = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        values[1:255] -= 1
        values[0] = 255
    before = values.copy()
    for old, new in (label_map or {}).items():
        values[before == old] = new
    return values


def check_sample(info: dict, settings: Settings) -> Sample:
    """Reads a pair as training would, and looks at what training does not see. Raises nothing.

    Args:
        info: ``img_path`` and, if there are labels, ``seg_map_path``.
        settings: of the dataset.
    """
    problems: List[Problem] = []
    shape = _check_image(info['img_path'], settings, problems)
    if settings.label_backend is None:
        return Sample(problems, None)
    return Sample(problems, _check_label(info['seg_map_path'], shape, settings, problems))


def _check_image(path: str, settings: Settings, problems: List[Problem]) -> Optional[Tuple[int, int]]:
    """Returns height and width, as training sees them, or None."""
    try:
        data = read(path, settings.backend_args)
        image, complaint = _decode_listening(data, settings.color_type, settings.image_backend)
        if complaint:
            level = 'warning' if 'extraneous' in complaint else 'error'  # bytes too many cost no pixel
            problems.append(Problem(level, 'damaged image', path, f'the decoder says: {complaint}'))
        if settings.color_type == 'color':
            problems += [Problem('warning', kind, path, message) for kind, message in _losses(data, image.shape)]
        return image.shape[:2]
    except Exception as error:  # whatever a file holds, the others must be checked too
        problems.append(Problem('error', 'unreadable image', path, str(error)))
        return None


def _check_label(path: str, image_shape: Optional[tuple], settings: Settings,
                 problems: List[Problem]) -> Optional[np.ndarray]:
    """Returns the pixels of each value, or None."""
    try:
        data = read(path, settings.backend_args)
        label = decode(data, 'unchanged', settings.label_backend).squeeze()
        if data.startswith(PNG):
            decode(data, 'unchanged', 'cv2')  # Pillow fills rows that are not there with zeros, OpenCV does not
    except Exception as error:
        missing = not os.path.islink(path) and not fileio.exists(path, backend_args=settings.backend_args)
        problems.append(Problem('error', 'image without label' if missing else 'unreadable label', path, str(error)))
        return None
    if data.startswith(JPEG):
        problems.append(Problem('error', 'lossy label', path, 'a JPEG does not keep the values of its pixels: save '
                                'the label as PNG, from the original and not from this file'))
    if data.startswith(b'GIF8'):
        problems.append(Problem('warning', 'GIF as label', path, 'a GIF numbers its colours, often anew when it is '
                                'saved: look whether the values are class ids, and save the label as PNG'))
    for kind, message in (('label shape', shape_problem(label, image_shape)), ('label values', wide_values(label))):
        if message:
            problems.append(Problem('error', kind, path, message))
            return None
    counts = np.bincount(label.astype(np.uint8).ravel(), minlength=256)
    problems += [Problem(level, kind, path, message) for level, kind, message in _value_problems(counts, settings)]
    return counts


def _value_problems(counts: np.ndarray, settings: Settings) -> Iterator[Tuple[str, str, str]]:
    mapped = mapped_counts(counts, settings)
    ignored = mapped[settings.ignore_index] if 0 <= settings.ignore_index < 256 else 0
    if ignored == mapped.sum():
        yield 'warning', 'nothing labelled', 'all pixels are ignored'
    mapped[:settings.num_classes] = 0
    if 0 <= settings.ignore_index < 256:
        mapped[settings.ignore_index] = 0
    if mapped.any():
        yield 'error', 'label values', out_of_range(mapped, settings.num_classes, settings.ignore_index,
                                                    settings.reduce_zero_label)


def mapped_counts(counts: np.ndarray, settings: Settings) -> np.ndarray:
    """Pixels of each value after the mapping, from those of each value of the file: 256 numbers each."""
    return np.bincount(settings.values, weights=counts, minlength=256).astype(np.int64)


def _decode_listening(data: bytes, flag: str, backend: str) -> Tuple[np.ndarray, str]:
    """Decodes an image, and returns with it what libjpeg says of damage in the middle of a JPEG.

    It goes on with made-up pixels after such damage, and prints one line from C, which is why the stream of this
    process is turned to a file meanwhile.
    """
    if not data.startswith(JPEG):
        return decode(data, flag, backend), ''
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            image = decode(data, flag, backend)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        return image, ' '.join(file.read().decode(errors='replace').split())


def _losses(data: bytes, shape: tuple) -> Iterator[Tuple[str, str]]:
    """What is in an image that a colour image of eight bits does not keep.

    Args:
        data: the whole file.
        shape: of the image as training sees it.
    """
    known = data.startswith(JPEG) or data.startswith(PNG)
    if (data[24] > 8 if data.startswith(PNG) else not known and decode(data, 'unchanged', 'cv2').dtype != np.uint8):
        yield '16-bit image', 'has more than 8 bits a channel; the lower ones are dropped'
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:  # OpenCV reads formats that Pillow does not know
        return
    with image:
        if image.format in ('JPEG', 'MPO', 'TIFF', 'WEBP') or b'eXIf' in data[:65536]:  # otherwise Pillow decodes a PNG
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            if orientation != 1 and shape[:2] == image.size[::-1]:
                yield 'turned image', (f'its EXIF orientation is {orientation}: the image is turned or mirrored when '
                                       'it is read, its label is not, and their sizes do not tell: look at both')
        if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
            if image.convert('RGBA').getchannel('A').getextrema()[0] < 255:
                yield 'transparent image', 'has transparent pixels, which show the colour that is stored under them'
        if image.format != 'MPO' and getattr(image, 'n_frames', 1) > 1:
            yield 'animated image', f'has {image.n_frames} frames; the first is read'
