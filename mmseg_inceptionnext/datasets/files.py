"""Reads files of images and labels, and names those that are missing, cut off or damaged."""
import os
import os.path as osp
import struct
import zlib
from typing import Optional

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.fileio.backends import BaseStorageBackend, register_backend
from PIL import Image, UnidentifiedImageError

from mmseg_inceptionnext.errors import BrokenSampleError

from .labels import label_error, wide_problem

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')  # of what is taken from a folder
PNG = b'\x89PNG\r\n\x1a\n'
CHECKED = 'mmseg_inceptionnext.checked'


def broken(path: str, problem: str) -> BrokenSampleError:
    """The error of one file."""
    return BrokenSampleError(
        f'{path}: {problem}. Replace the file, or take image and label out; of a config, python tools/check_dataset.py '
        'CONFIG lists every such file, and --cfg-options train_dataloader.dataset.on_error=skip trains without them')


def read(path: str, backend_args: Optional[dict] = None) -> bytes:
    """The content of a file that is there, and not empty; a PNG is whole, and the checksums of its picture are right.

    Decoders find other damage themselves: Pillow, and OpenCV from 4.11 on.

    Raises:
        ValueError: otherwise; the message says why.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except Exception as error:  # each kind of storage has its own errors
        if osp.islink(path) and not osp.exists(path):
            raise ValueError(f'is a link to {os.readlink(path)}, which is not there') from error
        raise ValueError(f'cannot be opened: {getattr(error, "strerror", None) or error}') from error
    if not data:
        raise ValueError('is empty')
    problem = _png_problem(data) if data.startswith(PNG) else None
    if problem:
        raise ValueError(f'is cut off or damaged: {problem}')
    return data


def _png_problem(data: bytes) -> Optional[str]:
    """Says where a PNG ends too early, or what of its picture does not fit its checksum, or None.

    Decoders do not look at the checksums of the picture. Other chunks, such as texts, are theirs to judge.
    """
    start, kind, content = len(PNG), b'', memoryview(data)
    while kind != b'IEND':
        if start + 8 > len(data):
            return 'its last chunk is missing'
        length, kind = struct.unpack_from('>I4s', data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            return f'its chunk {kind!r} is not whole'
        is_of_picture = kind[:1].isupper() or kind.upper() == b'IDAT'
        if is_of_picture and zlib.crc32(content[start + 4:end]) != struct.unpack_from('>I', data, end)[0]:
            return f'the checksum of its chunk {kind!r} is wrong'
        start = end + 4
    return None


def decode(data: bytes, flag: str, backend: str) -> np.ndarray:
    """Decodes a file as MMSegmentation's loaders do; ``flag`` and ``backend`` as :func:`mmcv.imfrombytes` takes them.

    Raises:
        ValueError: if it cannot be decoded; the message says why.
    """
    try:
        array = mmcv.imfrombytes(data, flag=flag, backend=backend)
    except UnidentifiedImageError:
        array = None
    except Exception as error:  # OpenCV's and Pillow's errors have nothing in common
        reason = ' '.join(str(error).split()).rpartition('error: ')[2]  # OpenCV names its source file first
        if isinstance(error, Image.DecompressionBombError):
            reason += " OpenCV reads larger ones: set imdecode_backend='cv2' in the step that loads it"
        raise ValueError(f'cannot be decoded by {backend}: {reason or type(error).__name__}') from error
    if array is None:
        if backend != 'pillow':
            _raise_reason_of_pillow(data, flag)  # OpenCV gives none
        raise ValueError(f'is no image that {backend} can decode; it begins with {data[:8]!r}')
    return array


def _raise_reason_of_pillow(data: bytes, flag: str) -> None:
    try:
        decode(data, flag, 'pillow')
    except ValueError as error:
        if not isinstance(error.__cause__, Image.DecompressionBombError):  # its own limit explains no other decoder
            raise


def load(path: str, loader: BaseTransform) -> np.ndarray:
    """Reads and decodes a file as ``LoadImageFromFile`` or ``LoadAnnotations`` does.

    Raises:
        ValueError: if that cannot be done; the message says why.
    """
    backend_args = loader.backend_args or {}
    if backend_args.get('backend') == CHECKED:
        backend_args = backend_args['backend_args']
    return decode(read(path, backend_args), getattr(loader, 'color_type', 'unchanged'), loader.imdecode_backend)


def why_unreadable(path: str, loader: BaseTransform) -> Optional[str]:
    """Says why :func:`load` cannot read a file, or None if it can."""
    try:
        load(path, loader)
    except ValueError as error:
        return str(error)
    return None


@register_backend(CHECKED)
class CheckedBackend(BaseStorageBackend):
    """Reads by another storage backend, and checks what it read, so that no file is read twice.

    Args:
        backend_args: of the other backend.
        label_decoder: of a label, to find values that do not fit in eight bits, too: what its step decodes with.
    """

    def __init__(self, backend_args: Optional[dict], label_decoder: Optional[str] = None) -> None:
        self.backend_args, self.label_decoder = backend_args, label_decoder

    def get(self, filepath: str) -> bytes:
        """The content of a file.

        Raises:
            BrokenSampleError: if it is missing, cannot be read, or is damaged.
            LabelError: if it is a label whose values do not fit in eight bits.
        """
        problem = None
        try:
            data = read(filepath, self.backend_args)
            if self.label_decoder and not (data.startswith(PNG) and data[24] <= 8):  # the bit depth
                problem = wide_problem(decode(data, 'unchanged', self.label_decoder))
        except ValueError as error:
            raise broken(filepath, str(error)) from error
        if problem:
            raise label_error(filepath, problem)
        return data

    def get_text(self, filepath: str) -> str:
        return self.get(filepath).decode()
