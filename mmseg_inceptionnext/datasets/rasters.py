"""Images that are read window by window: GeoTIFF and what else rasterio reads; without it plain TIFFs and pictures."""
import os.path as osp
import warnings
from contextlib import ExitStack
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mmseg_inceptionnext.errors import InputError

from .appearance import UNTURNED, colors_of, flag_of, numbers_of, turn_of

PERCENTILES = (2, 98)
OVERVIEW = 2048  # pixels of the longer side
# Formats that hold their pixels themselves: a VRT, as a file from a stranger, could name other files, or addresses.
DRIVERS = ('GTiff', 'JP2OpenJPEG', 'JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'HFA', 'ENVI', 'NITF', 'PNM')
MIN_CACHE = 64 << 20  # bytes


def open_raster(path: str, window_height: int = 1024, as_stored: bool = False) -> 'Raster':
    """Opens an image, by rasterio where that is installed; else a TIFF without compression stays on the disk, if
    tifffile is installed, and other images are decoded by OpenCV, whole.

    Args:
        path: of the file.
        window_height: rows that are read together; the blocks of so many are kept decoded.
        as_stored: whether one band with a colour table stays numbers of colours, as labels are, 1 bit stays 0 and 1,
            and a JPEG is not turned as its EXIF orientation says. As an image it is what OpenCV makes of it.

    Raises:
        InputError: if it is missing, cannot be read, or has complex values.
    """
    if not osp.isfile(path):
        raise InputError(f'{path}: {"is a folder" if osp.isdir(path) else "no such file"}')
    try:
        import rasterio
    except ImportError:
        return Raster(path, _array(path, as_stored))
    return GeoRaster(path, rasterio, window_height, as_stored)


def open_quietly(path: str, *mode: str, **options: Any) -> Any:
    """What ``rasterio.open`` opens, without its warning that a file has no place on earth."""
    import rasterio
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, *mode, **options)


def _array(path: str, as_stored: bool) -> np.ndarray:
    """H x W x bands, in the order of the file."""
    try:
        import tifffile
        with tifffile.TiffFile(path) as file:
            has_colors = file.pages[0].photometric == 3
        if as_stored or not has_colors:
            return _last_bands(tifffile.memmap(path, mode='r'))
    except (ImportError, ValueError):  # no TIFF, or one that is compressed or in pieces
        pass
    numbers = numbers_of(path) if as_stored else None
    if numbers is not None:
        return numbers[..., None]
    try:
        image = cv2.imread(path, flag_of(path, as_stored))
    except cv2.error as error:  # of more than 2**30 pixels
        raise InputError(f"{path}: OpenCV cannot read it: {error.err}; pip install 'mmseg_inceptionnext[geo]' brings "
                         'rasterio, which reads it by windows') from error
    if image is None:
        raise InputError(f"{path}: cannot be read as an image by OpenCV; pip install 'mmseg_inceptionnext[geo]' brings "
                         'rasterio, which reads more kinds')
    image = image[..., None] if image.ndim == 2 else image
    return image if image.shape[2] < 3 else image[..., [2, 1, 0, *range(3, image.shape[2])]]


def _last_bands(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] < array.shape[2]:  # each band apart
        array = array.transpose(1, 2, 0)
    return array if array.ndim == 3 else array[..., None]


class Raster:
    """An image in memory, or on a disk that is mapped there.

    Attributes:
        path: of the file.
        size: height and width.
        count: number of bands.
        dtype: of the values.
        nodata: the value of pixels without data, or None.
        has_gaps: whether pixels may be without data.
    """
    nodata: Optional[float] = None
    has_gaps = False

    def __init__(self, path: str, array: np.ndarray) -> None:
        _check_kinds(path, [array.dtype])
        self.path, self._values = path, array
        self.size, self.count, self.dtype = array.shape[:2], array.shape[2], array.dtype

    def __enter__(self) -> 'Raster':
        return self

    def __exit__(self, *_) -> None:
        pass

    def read(self, rows: slice, cols: slice, bands: Optional[Sequence[int]] = None) -> np.ndarray:
        """Some bands of a window, all by default, counted from 1: H x W x bands."""
        return np.ascontiguousarray(self._values[rows, cols][..., [band - 1 for band in bands or self.bands]])

    def use(self, bands: Sequence[int]) -> None:
        """Only these bands say from now on which pixels have data. Before: all but an alpha band."""

    def valid(self, rows: slice, cols: slice) -> Optional[np.ndarray]:
        """Which pixels of a window have data, H x W, or None if all have: those with data in one of the bands in use,
        and of floats with finite values in all of them. An alpha band counts unless it is one of these."""
        return None

    def overview(self, bands: Optional[Sequence[int]] = None) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        """Every n-th pixel, so that the longer side has at most 2048, as ``read`` and ``valid`` give them."""
        step = overview_step(self.size)
        return self.read(slice(None, None, step), slice(None, None, step), bands), None

    @property
    def bands(self) -> List[int]:
        return list(range(1, self.count + 1))

    def check_bands(self, bands: Sequence[int]) -> List[int]:
        """The bands as a list; an InputError if the file has not all of them."""
        if not 0 < len(bands) <= 1024 or any(
                not isinstance(band, (int, np.integer)) or not 1 <= band <= self.count for band in bands):
            raise InputError(f'--bands {",".join(map(str, bands[:8]))}: {self.path} has the bands 1 to {self.count}')
        return list(map(int, bands))


def _open(rasterio: Any, path: str) -> Any:
    reasons = []
    for driver in DRIVERS:
        try:
            return open_quietly(path, driver=driver)
        except rasterio.errors.RasterioError as error:
            reasons.append(str(error))
    told = [reason for reason in reasons if 'not recognized' not in reason]  # by the format that it is of, if damaged
    raise InputError(f'{path}: cannot be read as an image: {(told or ["it is of another format"])[0]}. Read are '
                     f'{", ".join(DRIVERS)}; turn others into a GeoTIFF, as by gdal_translate')


def _check_kinds(path: str, kinds: Iterable[Any]) -> None:
    for kind in map(str, kinds):
        if 'complex' in kind:
            raise InputError(f'{path}: its values are {kind}: allowed are integers and floats. Write what the model is '
                             'to see, such as the amplitude, as bands')


class GeoRaster(Raster):
    """An image that rasterio reads, by windows."""

    def __init__(self, path: str, rasterio: Any, window_height: int, as_stored: bool = False) -> None:
        self.path, self._stack = path, ExitStack()
        self.file = _open(rasterio, path)
        _check_kinds(path, self.file.dtypes)
        self._colors = None if as_stored else colors_of(self.file)
        self._turn = UNTURNED if as_stored else turn_of(self.file)
        self.size = self.file.shape[::-1] if self._turn[0] else self.file.shape
        self.count = self.file.count if self._colors is None else self._colors.shape[1]
        self.dtype = np.result_type(*(self.file.dtypes if self._colors is None else ['uint8']))
        self.nodata = self.file.nodata
        self.use([i for i, kind in enumerate(self.file.colorinterp, 1) if kind.name != 'alpha'] or self.bands)
        row = self.file.width * sum(np.dtype(kind).itemsize for kind in self.file.dtypes)
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=max(MIN_CACHE, int(1.25 * window_height * row))))

    def __exit__(self, *_) -> None:
        self.file.close()
        self._stack.close()

    def use(self, bands: Sequence[int]) -> None:
        self._used = sorted(set(bands))
        stored = self._used if self._colors is None else [1]
        kinds = [{flag.name for flag in self.file.mask_flag_enums[band - 1]} for band in stored]
        masks = stored[:1] if all('per_dataset' in kind for kind in kinds) else stored  # where all are the same
        self._masks = [] if any('all_valid' in kind for kind in kinds) else masks
        self.has_gaps = bool(self._masks) or self.dtype.kind == 'f'

    def read(self, rows: slice, cols: slice, bands: Optional[Sequence[int]] = None) -> np.ndarray:
        return self._read(bands, window=self._window(rows, cols))

    def valid(self, rows: slice, cols: slice) -> Optional[np.ndarray]:
        return self._valid(window=self._window(rows, cols)) if self.has_gaps else None

    def overview(self, bands: Optional[Sequence[int]] = None) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        step = overview_step(self.size)
        shape = tuple(-(-side // step) for side in self.file.shape)
        return self._read(bands, out_shape=shape), self._valid(out_shape=shape) if self.has_gaps else None

    def write_cut(self, values: np.ndarray, top: int, left: int, path: str) -> None:
        """Writes a part of it, H x W x bands, as a GeoTIFF."""
        import rasterio
        place = rasterio.windows.transform(((top, top + 1), (left, left + 1)), self.file.transform)
        profile = dict(driver='GTiff', height=values.shape[0], width=values.shape[1], count=values.shape[2],
                       dtype=values.dtype, crs=self.file.crs, nodata=self.nodata, compress='deflate')
        with open_quietly(path, 'w', transform=place, **profile) as file:
            file.write(values.transpose(2, 0, 1))

    def _read(self, bands: Optional[Sequence[int]], **where: Any) -> np.ndarray:
        bands = list(bands or self.bands)
        if self._colors is None:
            return np.ascontiguousarray(self._of_file(self.file.read, bands, **where))
        values = self._colors[self._of_file(self.file.read, [1], **where)[..., 0]]
        return np.ascontiguousarray(values[..., [band - 1 for band in bands]])

    def _valid(self, **where: Any) -> np.ndarray:
        valid = np.bool_(True)
        if self._masks:
            valid = self._of_file(self.file.read_masks, self._masks, **where).any(-1)
        return valid & np.isfinite(self._read(self._used, **where)).all(-1) if self.dtype.kind == 'f' else valid

    def _of_file(self, read: Callable, bands: List[int], **where: Any) -> np.ndarray:
        """H x W x bands by a method of the file."""
        if 'out_shape' in where:
            where = dict(out_shape=(len(bands), *where['out_shape']))
        try:
            values = read(bands, **where).transpose(1, 2, 0)
        except Exception as error:  # each driver has its own
            raise InputError(f'{self.path}: is cut off or damaged: {error.__cause__ or error}') from error
        exchanged, *flipped = self._turn
        values = values.swapaxes(0, 1) if exchanged else values
        return values[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]

    def _window(self, rows: slice, cols: slice) -> Tuple[Tuple[int, int], Tuple[int, int]]:
        """Where a window is in the file."""
        exchanged, *flipped = self._turn
        parts = tuple((side - part.stop, side - part.start) if flip else (part.start, part.stop)
                      for part, side, flip in zip((rows, cols), self.size, flipped))
        return parts[::-1] if exchanged else parts


def overview_step(size: Sequence[int]) -> int:
    """Of how many pixels along a side an overview shows one."""
    return max(-(-max(size) // OVERVIEW), 1)


def stretch(values: np.ndarray, scale_range: Optional[Sequence[float]]) -> np.ndarray:
    """Brings values from ``low`` to ``high`` to 0 to 255, float32, what is outside to the ends.

    Without a range 8-bit integers stay as they are, and others become float32. NaN becomes 0.
    """
    if scale_range is None:
        return values if values.dtype == np.uint8 else np.nan_to_num(values.astype(np.float32))
    low, high = scale_range
    return np.nan_to_num(np.clip((values.astype(np.float32) - low) * np.float32(255 / (high - low)), 0, 255))


def check_range(scale_range: Optional[Sequence[float]]) -> Optional[Tuple[float, float]]:
    """The range as two numbers, None of none; an InputError if it is something else."""
    if scale_range is None or not np.size(scale_range):
        return None
    try:
        low, high = map(float, scale_range)
    except (TypeError, ValueError) as error:
        raise InputError(f'scale_range {scale_range!r}: allowed are two numbers, the smaller one first') from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f'--scale-range {low:g} {high:g}: allowed are two numbers, the smaller one first')
    return low, high


def find_range(raster: Raster, bands: Sequence[int]) -> Tuple[float, float]:
    """The 2nd and the 98th percentile of an overview of some bands."""
    values, valid = raster.overview(bands)
    values = values[np.isfinite(values).all(-1) if valid is None else valid]
    if not values.size:
        return 0., 1.
    low, high = (float(end) for end in np.percentile(values, PERCENTILES))
    return low, high if high > low else low + 1


@TRANSFORMS.register_module()
class LoadRaster(BaseTransform):
    """Reads images of any number of bands and bits, as :func:`open_raster` does; takes the place of
    ``LoadImageFromFile``.

    Args:
        bands: those to read, counted from 1, in the order that the model takes. Default: all.
        scale_range: the values that become 0 and 255, see :func:`stretch`. Default: values stay as they are.
    """

    def __init__(self, bands: Optional[Sequence[int]] = None, scale_range: Optional[Sequence[float]] = None) -> None:
        self.bands, self.scale_range = bands, check_range(scale_range)

    def transform(self, results: dict) -> dict:
        """Adds ``img``, H x W x bands, uint8 or float32, and its sizes.

        Raises:
            InputError: if the file cannot be read, or has not these bands.
        """
        with open_raster(results['img_path']) as raster:
            bands = raster.check_bands(self.bands or raster.bands)
            image = stretch(raster.read(slice(0, raster.size[0]), slice(0, raster.size[1]), bands), self.scale_range)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bands={self.bands}, scale_range={self.scale_range})'
