"""Which class the values or colours of label files are."""
import io
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_inceptionnext.errors import InputError

from .files import broken
from .labels import label_error, listed

Color = Tuple[int, int, int]
UNKNOWN = -1
LOSSY = b'\xff\xd8'  # with which a JPEG begins


class LabelTable:
    """Gives each pixel of a label file its class.

    Args:
        num_classes: number of classes.
        label_map: the class of each value of one-channel files of 8 or 16 bits, the indices of a palette too;
            ``ignore_index`` for values to ignore. That is ignored itself, unless it is named. A list is of the values
            from 0, and is written much faster into logs than a dict of many.
        colors: the colour of each class, RGB; those after the last class are ignored. Of a JPEG, which does not keep
            colours, the nearest one is taken.
        ignore_index: what ignored pixels become.

    Attributes:
        values: what each class is in label files: its smallest value, or its colour.

    Raises:
        InputError: if it is not one of both, or classes are missing in it.
    """

    def __init__(self, num_classes: int, label_map: Union[Dict[int, int], Sequence[int], None] = None,
                 colors: Optional[Sequence[Color]] = None, ignore_index: int = 255) -> None:
        if (label_map is None) == (colors is None):
            raise InputError('label files hold values or colours: give label_map or colors, and not both')
        self.ignore_index = ignore_index
        if colors is not None:
            colors = [tuple(map(int, color)) for color in colors]
            if len(colors) < num_classes or len(set(colors)) < len(colors) or any(
                    len(color) != 3 or not all(0 <= part < 256 for part in color) for color in colors):
                raise InputError(f'colors={colors!r:.200}: allowed are different ones, [red, green, blue] from 0 to '
                                 f'255, one for each of {num_classes} classes, and then those to ignore')
            self.values: List[Union[int, Color]] = colors[:num_classes]
            self._colors = np.array(colors, np.int64)
            packed = pack(self._colors)
            self._order = np.argsort(packed)
            self._packed = packed[self._order]
            self._classes = np.where(np.arange(len(colors)) < num_classes, np.arange(len(colors)), ignore_index)
        else:
            label_map = dict(enumerate(label_map)) if isinstance(label_map, (list, tuple)) else label_map
            label_map = {int(value): int(index) for value, index in label_map.items()}
            missing = sorted(set(range(num_classes)) - set(label_map.values()))
            if missing or not all(0 <= value < 65536 for value in label_map) or not set(label_map.values()) <= {
                    *range(num_classes), ignore_index}:
                raise InputError(f'label_map={label_map!r:.200}: allowed are values from 0 to 65535, and of each a '
                                 f'class from 0 to {num_classes - 1} or {ignore_index}'
                                 + f'; class {missing[:1]} has none' * bool(missing))
            self.values = [min(value for value in label_map if label_map[value] == i) for i in range(num_classes)]
            self._lookup = np.full(65536, UNKNOWN, np.int16)
            if ignore_index < 65536:
                self._lookup[ignore_index] = ignore_index
            self._lookup[list(label_map)] = list(label_map.values())
        self._by_color = colors is not None

    def read(self, data: bytes, path: str) -> np.ndarray:
        """The classes of a label file, H x W, uint8.

        Raises:
            BrokenSampleError: if it cannot be decoded.
            LabelError: if it holds a value or a colour that is not in the table.
        """
        pixels = read_pixels(data, path, self._by_color)
        if self._by_color:
            return self._of_colors(pixels, path, data.startswith(LOSSY))
        if pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                raise label_error(path, 'the label has colours, and label_map says what values are: give colors')
            pixels = pixels[..., 0]
        classes = self._lookup[pixels] if pixels.min() >= 0 and pixels.max() < 65536 else np.full(pixels.shape, UNKNOWN)
        if (classes == UNKNOWN).any():
            raise label_error(path, f'the label values {listed(np.unique(pixels[classes == UNKNOWN]))} are not in '
                              'label_map')
        return classes.astype(np.uint8)

    def _of_colors(self, pixels: np.ndarray, path: str, nearest: bool) -> np.ndarray:
        pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
        found, places = np.unique(pack(pixels), return_inverse=True)
        rank = np.searchsorted(self._packed, found).clip(max=len(self._packed) - 1)
        index, is_known = self._order[rank], self._packed[rank] == found
        if not is_known.all():
            if not nearest:
                strange = ', '.join(str(unpack(color)) for color in found[~is_known][:5])
                raise label_error(path, f'the colours {strange} are not in the table of classes')
            index = ((np.array([unpack(color) for color in found])[:, None] - self._colors)**2).sum(2).argmin(1)
        return self._classes[index].astype(np.uint8)[places].reshape(pixels.shape[:2])


def pack(colors: np.ndarray) -> np.ndarray:
    """A number for each colour: (..., 3) to (...)."""
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def unpack(number: int) -> Color:
    """The colour of a number that :func:`pack` gave."""
    return int(number >> 16), int(number >> 8 & 255), int(number & 255)


def read_pixels(data: bytes, path: str, as_color: bool = False) -> np.ndarray:
    """A label as its file has it: H x W, or H x W x 3, RGB. Transparency is dropped.

    Args:
        data: the file.
        path: for the error.
        as_color: of a palette give the colours, not the indices.

    Raises:
        BrokenSampleError: if it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == 'P' and as_color:
                return np.asarray(image.convert('RGB'))
            if image.mode in ('P', 'L') or image.mode.startswith('I'):
                return np.asarray(image)
            return np.asarray(image.convert('L' if image.mode in ('1', 'LA') else 'RGB'))
    except Exception as error:  # Pillow's own, and those of each format
        raise broken(path, f'cannot be decoded as a label: {error}') from error


class LoadLabels(LoadAnnotations):
    """MMSegmentation's ``LoadAnnotations`` with a :class:`LabelTable`; :class:`FolderDataset` puts it in its place."""

    def __init__(self, table: LabelTable, step: LoadAnnotations) -> None:
        super().__init__(imdecode_backend=step.imdecode_backend, backend_args=step.backend_args)
        self.table = table

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        results['gt_seg_map'] = self.table.read(fileio.get(path, backend_args=self.backend_args), path)
        results['seg_fields'].append('gt_seg_map')


def use_table(pipeline, table: LabelTable) -> None:
    """Puts :class:`LoadLabels` in the place of each ``LoadAnnotations`` of a built pipeline, also in other steps."""
    for name in ('transforms', 'subroutines'):
        steps = getattr(pipeline, name, None)
        for i, step in enumerate(steps or ()):
            if type(step) is LoadAnnotations:
                steps[i] = LoadLabels(table, step)
            else:
                use_table(step, table)
