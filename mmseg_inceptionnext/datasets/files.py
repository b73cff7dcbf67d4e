"""Reads files of images and labels, and names those that are missing, cut off or damaged."""
import io
import os
import os.path as osp
from typing import Optional

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.fileio.backends import BaseStorageBackend, register_backend
from PIL import UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

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
    """The content of a file that is there, and not empty; of a PNG the checksums are right.

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
    if data.startswith(PNG):
        try:
            PngImageFile(io.BytesIO(data)).verify()  # Pillow's decoder does not look at the checksums
        except Exception as error:  # OSError, SyntaxError and others
            raise ValueError(f'is cut off or damaged: {error}') from error
    return data


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
        raise ValueError(f'cannot be decoded by {backend}: {reason or type(error).__name__}') from error
    if array is None:
        if backend != 'pillow':
            decode(data, flag, 'pillow')  # which says why, and OpenCV does not
        raise ValueError(f'is no image that {backend} can decode; it begins with {data[:8]!r}')
    return array


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
        is_label: find values that do not fit in eight bits, too.
    """

    def __init__(self, backend_args: Optional[dict], is_label: bool) -> None:
        self.backend_args, self.is_label = backend_args, is_label

    def get(self, filepath: str) -> bytes:
        """The content of a file.

        Raises:
            BrokenSampleError: if it is missing, cannot be read, or is damaged.
            LabelError: if it is a label whose values do not fit in eight bits.
        """
        problem = None
        try:
            data = read(filepath, self.backend_args)
            if self.is_label and not (data.startswith(PNG) and data[24] <= 8):  # the bit depth
                problem = wide_problem(decode(data, 'unchanged', 'pillow'))
        except ValueError as error:
            raise broken(filepath, str(error)) from error
        if problem:
            raise label_error(filepath, problem)
        return data

    def get_text(self, filepath: str) -> str:
        return self.get(filepath).decode()
