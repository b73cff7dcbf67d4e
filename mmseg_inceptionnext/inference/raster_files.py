"""The files of a large image: its classes while they are predicted and as a tiled TIFF, and an overview to look at."""
import errno
import io
import json
import os
import os.path as osp
import zlib
from contextlib import contextmanager, suppress
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from mmseg_inceptionnext.checkpoints.files import TEMPORARY, locked, write_atomically
from mmseg_inceptionnext.datasets.rasters import GeoRaster, Raster, find_range, open_quietly, overview_step, stretch
from mmseg_inceptionnext.errors import InputError

from .outputs import ENDINGS, MARK
from .overlay import draw_overlay

Size = Tuple[int, int]
BLOCK = 512  # pixels, of a side of the tiles


def _beside(target: str, kind: str) -> str:
    folder, name = osp.split(osp.abspath(target))
    return osp.join(folder, TEMPORARY.format(name=f'{name}.{kind}'))


def is_unfinished(target: str) -> bool:
    """Whether a :class:`ClassFile` was begun for a result and is not complete."""
    return osp.isfile(_beside(target, 'progress'))


@contextmanager
def alone(target: str) -> Iterator[None]:
    """Keeps other processes and threads from writing the same result.

    Raises:
        InputError: if one does.
    """
    path = _beside(target, 'lock')
    with locked(path, InputError(f'{target} is being written by another run: wait for it, or choose another name')):
        try:
            yield
        finally:
            with suppress(OSError):  # where what is open cannot be removed
                os.remove(path)


class ClassFile:
    """The classes of an image while they are predicted, without compression, beside the file they will be in.

    Attributes:
        size: height and width.
        turned: whether it is filled column by column.
        done: so many rows or columns are predicted, those of each strip one after the other, and that is noted.
        reached: so many are predicted.
    """

    def __init__(self, target: str, size: Size, num_classes: int, turned: bool, settings: dict, resume: bool) -> None:
        self.size, self.num_classes, self.turned = size, num_classes, turned
        self.dtype = np.dtype(np.uint8 if num_classes < 256 else np.uint16)
        self.settings = json.loads(json.dumps(settings))
        self.path, self.progress = _beside(target, 'classes'), _beside(target, 'progress')
        self.done = self.reached = self._done() if resume else 0
        if not self.done:
            self._note()
            with open(self.path, 'wb') as file:
                _allocate(file, self._bytes)

    @property
    def _bytes(self) -> int:
        return self.size[0] * self.size[1] * self.dtype.itemsize

    def _done(self) -> int:
        if not osp.isfile(self.path):
            return 0
        try:
            with open(self.progress) as file:
                progress = json.load(file)
            done, is_same = int(progress['done']), progress['settings'] == self.settings
        except (OSError, ValueError, LookupError, TypeError):  # none, or a damaged one
            return 0
        if not is_same or osp.getsize(self.path) != self._bytes:
            print_log(f'{self.path} is of another image, model or options: it is begun anew', logger='current')
            return 0
        print_log(f'{self.path} goes on at {done}', logger='current')
        return done

    def put(self, rows: slice, cols: slice, values: np.ndarray, before: int = 0) -> None:
        """Writes classes; ``before``: rows or columns of the strips before."""
        self._mapped('r+')[rows, cols] = values
        self.reached = before + (cols if self.turned else rows).stop

    def get(self, rows: slice, cols: slice = slice(None)) -> np.ndarray:
        return np.array(self._mapped('r')[rows, cols])

    def _mapped(self, mode: str) -> np.ndarray:
        """Mapped anew each time: what was touched would count as memory of the process."""
        return np.memmap(self.path, self.dtype, mode, shape=tuple(self.size))

    def save(self) -> None:
        """Notes how far it is, once that is on the disk."""
        if self.reached == self.done:
            return
        with open(self.path, 'r+b') as file:
            os.fsync(file.fileno())
        self.done = self.reached
        self._note()

    def _note(self) -> None:
        write_atomically(json.dumps(dict(done=self.done, settings=self.settings)).encode(), self.progress)

    def remove(self) -> None:
        os.remove(self.progress)
        os.remove(self.path)


def _allocate(file: Any, size: int) -> None:
    """Makes a file of zeros; an OSError if the disk has no room: to write into a map of it would end the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # not in all systems, and not on all disks
        if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        file.truncate(size)


def write_raster(raster: Raster, classes: ClassFile, target: str, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Writes the classes as a TIFF of one band, complete or not at all; how many pixels each class has.

    What has no data in the source has ``nodata`` in the result: the source's own value if that fits and is no class,
    else the largest value of its type.
    """
    folder, name = osp.split(osp.abspath(target))
    temporary = osp.join(folder, TEMPORARY.format(name=name))
    nodata, checksum = _nodata(raster, classes), 0
    counts = np.zeros(classes.num_classes, np.int64)

    def strips() -> Iterator[Tuple[slice, np.ndarray]]:
        nonlocal checksum
        for rows in _rows(classes.size[0]):
            values, valid = classes.get(rows), raster.valid(rows, slice(0, classes.size[1]))
            counts[:] += np.bincount((values if valid is None else values[valid]).ravel(), minlength=len(counts))
            values = values if valid is None else np.where(valid, values, np.asarray(nodata, values.dtype))
            checksum = zlib.crc32(values, checksum)
            yield rows, values

    colors = {i: (*map(int, color), 255) for i, color in enumerate(palette)}
    try:
        if isinstance(raster, GeoRaster):
            _write_geo(raster, classes, temporary, nodata, colors, strips())
            if _checksum(temporary, classes.size) != checksum:  # closing a file on a full disk, GDAL says nothing
                raise OSError(errno.EIO, 'what was written cannot be read back, as where the disk is full')
        else:
            _write_plain(classes, temporary, colors, strips())
        os.replace(temporary, target)
    finally:
        if osp.exists(temporary):
            os.remove(temporary)
    return counts


def _rows(height: int) -> Iterator[slice]:
    for top in range(0, height, BLOCK):
        yield slice(top, min(top + BLOCK, height))


def _nodata(raster: Raster, classes: ClassFile) -> Optional[int]:
    largest = int(np.iinfo(classes.dtype).max)
    if not raster.has_gaps:
        return None
    own = raster.nodata
    return int(own) if own is not None and own == own // 1 and classes.num_classes <= own <= largest else largest


def _write_geo(raster: GeoRaster, classes: ClassFile, path: str, nodata: Optional[int], colors: dict,
               strips: Iterable[Tuple[slice, np.ndarray]]) -> None:
    import rasterio
    source = raster.file
    gcps, gcps_crs = source.gcps
    where = dict(gcps=gcps, crs=gcps_crs) if gcps else dict(transform=source.transform, crs=source.crs)
    if not gcps and source.transform.is_identity:  # which is what rasterio gives where there is none
        del where['transform']
    profile = dict(driver='GTiff', height=classes.size[0], width=classes.size[1], count=1, dtype=classes.dtype.name,
                   nodata=nodata, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress='deflate',
                   bigtiff='if_safer', **where)
    try:
        with open_quietly(path, 'w', **profile) as file:
            file.update_tags(TIFFTAG_SOFTWARE=MARK)
            if classes.dtype == np.uint8:
                file.write_colormap(1, colors)
            for rows, values in strips:
                file.write(values, 1, window=((rows.start, rows.stop), (0, classes.size[1])))
    except rasterio.errors.RasterioIOError as error:
        raise OSError(errno.EIO, str(error.__cause__ or error).rstrip('.')) from error


def _checksum(path: str, size: Size) -> Optional[int]:
    """Of the values of a TIFF; None if it is not complete."""
    import rasterio
    checksum = 0
    try:
        with open_quietly(path) as file:
            for rows in _rows(size[0]):
                checksum = zlib.crc32(file.read(1, window=((rows.start, rows.stop), (0, size[1]))), checksum)
    except rasterio.errors.RasterioIOError:
        return None
    return checksum


def _write_plain(classes: ClassFile, path: str, colors: dict, strips: Iterable[Tuple[slice, np.ndarray]]) -> None:
    """By Pillow, which holds the whole map, as the image is held without rasterio."""
    image = Image.fromarray(np.concatenate([values for _, values in strips]))
    if classes.dtype == np.uint8:
        image.putpalette([channel for i in range(256) for channel in colors.get(i, (0, 0, 0))[:3]])
    image.save(path, 'TIFF', compression='tiff_adobe_deflate', software=MARK)


def write_overview(raster: Raster, classes: ClassFile, target: str, bands: List[int],
                   scale_range: Optional[Tuple[float, float]], names: Sequence[str],
                   palette: Sequence[Sequence[int]]) -> None:
    """Writes a JPEG of at most 2048 pixels a side: the image with its classes painted over it, and a legend."""
    shown = (list(bands) * 3)[:3] if len(set(bands)) < 3 else bands[:3]
    values, valid = raster.overview(shown)
    if scale_range is None and raster.dtype != np.uint8:
        scale_range = find_range(raster, shown)
    step = overview_step(classes.size)
    mask = np.array(classes.get(slice(step // 2, None, step), slice(step // 2, None, step)))
    values = stretch(values, scale_range).astype(np.uint8)[:mask.shape[0], :mask.shape[1]]
    mask = mask[:values.shape[0], :values.shape[1]]
    if valid is not None and not valid.all():
        mask[~valid[:mask.shape[0], :mask.shape[1]]] = len(names)
        names, palette = [*names, 'no data'], [*palette, [0, 0, 0]]
    file = io.BytesIO()
    draw_overlay(np.ascontiguousarray(values), mask, names, palette).save(file, 'JPEG', quality=92, comment=MARK)
    write_atomically(file.getvalue(), osp.splitext(target)[0] + ENDINGS['overlay'])
