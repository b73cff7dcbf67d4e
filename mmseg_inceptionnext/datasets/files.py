"""Reads files of images and labels, and finds those that are cut off or damaged, which decoders may not mention."""
import io
import os
import os.path as osp
import re
import zlib
from typing import Optional

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from mmseg_inceptionnext.errors import BrokenSampleError, LabelError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')  # of what is taken from a folder
JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')  # neither an FF of the coded data, a restart marker, nor a fill byte


def broken(path: str, problem: str, labelled: bool = True) -> BrokenSampleError:
    """The error of one file; ``labelled``: of a dataset with labels."""
    if not labelled:
        return BrokenSampleError(f'{path}: {problem}. Replace the file, or take it out of the folder')
    return BrokenSampleError(
        f'{path}: {problem}. Replace the file, or take image and label out; of a config, python tools/check_dataset.py '
        'CONFIG lists every such file, and --cfg-options train_dataloader.dataset.on_error=skip trains without them')


def misfit(path: str, problem: str) -> LabelError:
    """The error of one label."""
    return LabelError(f'{path}: {problem}; python tools/check_dataset.py CONFIG lists every such label')


def read(path: str, backend_args: Optional[dict] = None) -> bytes:
    """The content of a whole file.

    Raises:
        ValueError: if the file is missing, cannot be read, is cut off or damaged; the message says which.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except Exception as error:  # each kind of storage has its own errors
        if osp.islink(path) and not osp.exists(path):
            raise ValueError(f'is a link to {os.readlink(path)}, which is not there') from error
        raise ValueError(f'cannot be opened: {getattr(error, "strerror", None) or error}') from error
    damage = find_damage(data)
    if damage:
        raise ValueError(damage)
    return data


def find_damage(data: bytes) -> Optional[str]:
    """Says what is wrong with the file of an image, or None.

    OpenCV, and for some formats Pillow, decode what there is of a file that was cut off and make the rest up. So JPEG
    and PNG are read here from part to part until their end: for JPEG the end-of-image marker, for PNG the last chunk,
    with the checksum of each chunk. Other formats are decoded by Pillow, if it knows them.

    Args:
        data: the whole file. Bytes after the end of the image are fine, as cameras write them.
    """
    if not data:
        return 'is empty'
    if data.startswith(JPEG):
        return _jpeg_damage(data)
    if data.startswith(PNG):
        return _png_damage(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UnidentifiedImageError:
        return None  # the decoder that is meant for it will say
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        return f'is damaged: {error}'
    return None


def _jpeg_damage(data: bytes) -> Optional[str]:
    """Walks the segments of a JPEG (ITU-T T.81, annex B); a thumbnail inside one of them has an end of its own."""
    position = len(JPEG)
    while True:
        marker = _MARKER.search(data, position)
        if marker is None:
            return 'is cut off: the JPEG has no end-of-image marker'
        position = marker.end()
        if marker[0] == b'\xff\xd9':
            return None
        if marker[0] != b'\xff\x01':  # the one marker without a length
            position += int.from_bytes(data[position:position + 2], 'big')


def _png_damage(data: bytes) -> Optional[str]:
    """Walks the chunks of a PNG: length, type, content, checksum of type and content."""
    view, position = memoryview(data), len(PNG)
    if data[12:16] != b'IHDR':
        return 'is damaged: the PNG does not begin with an IHDR chunk'
    while position + 12 <= len(data):
        kind = data[position + 4:position + 8]
        end = position + 8 + int.from_bytes(data[position:position + 4], 'big')
        if end + 4 > len(data):
            break
        if zlib.crc32(view[position + 4:end]) != int.from_bytes(data[end:end + 4], 'big'):
            return f'is damaged: the checksum of the PNG chunk {kind.decode("latin-1")} is wrong'
        if kind == b'IEND':
            return None
        position = end + 4
    return 'is cut off: the PNG has no IEND chunk'


def decode(data: bytes, flag: str, backend: str) -> np.ndarray:
    """Decodes an image as MMSegmentation's loaders do.

    Args:
        data: the whole file.
        flag: ``color``, ``unchanged`` or what else :func:`mmcv.imfrombytes` takes.
        backend: ``cv2``, ``pillow``, or another of it.

    Raises:
        ValueError: if it cannot be decoded; the message says why.
    """
    try:
        array = mmcv.imfrombytes(data, flag=flag, backend=backend)
    except UnidentifiedImageError:
        array = None
    except Exception as error:  # OpenCV's and Pillow's errors have nothing in common
        reason = ' '.join(str(error).split()).rpartition('error: ')[2]  # OpenCV names its source file first
        raise ValueError(f'cannot be decoded by {backend}: {reason or type(error).__name__}') from error
    if array is None:
        raise ValueError(f'is no image that {backend} can decode; it begins with {data[:8]!r}')
    return array


def why_unreadable(path: str, loader: BaseTransform, backend_args: Optional[dict] = None) -> Optional[str]:
    """Says why ``LoadImageFromFile`` or ``LoadAnnotations`` cannot read a file, or None if it can."""
    try:
        decode(read(path, backend_args), getattr(loader, 'color_type', 'unchanged'), loader.imdecode_backend)
    except ValueError as error:
        return str(error)
    return None


def find_wide_values(data: bytes) -> Optional[str]:
    """Says which values of a label do not survive MMSegmentation's loader, which keeps eight bits, or None.

    The files that can hold such values are decoded once more; most are known by their first bytes to hold none.
    """
    if data.startswith(JPEG) or (data.startswith(PNG) and data[24] <= 8):  # the bit depth in a PNG's first chunk
        return None
    return wide_values(decode(data, 'unchanged', 'pillow'))


def wide_values(values: np.ndarray) -> Optional[str]:
    """Says which values of a decoded label do not survive the cast to uint8, or None."""
    if values.dtype in (np.bool_, np.uint8):
        return None
    with np.errstate(invalid='ignore'):
        wrong = np.unique(values[values != values.astype(np.uint8)])
    if not len(wrong):
        return None
    return (f'the label has values, {shown(wrong)}, that are no 8-bit integers, as which MMSegmentation reads them: '
            'save it as 8-bit class ids')


def shown(values, limit: int = 8) -> str:
    """The first of a list of values, as text."""
    return ', '.join(f'{value:g}' for value in values[:limit]) + ' ...' * (len(values) > limit)


def check_file(path: str, is_label: bool = False, backend_args: Optional[dict] = None, labelled: bool = True) -> None:
    """Reads a file and stops where a decoder would go on with what it made up.

    Raises:
        BrokenSampleError: if the file is missing, cut off or damaged.
        LabelError: if it is a label whose values do not fit in eight bits.
    """
    try:
        data = read(path, backend_args)
        problem = find_wide_values(data) if is_label else None
    except ValueError as error:
        raise broken(path, str(error), labelled) from error
    if problem:
        raise misfit(path, problem)
