"""The files of a large image: its classes while they are predicted and as a tiled TIFF, and an overview to look at."""
import io
import json
import os
import os.path as osp
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from mmseg_inceptionnext.checkpoints.files import TEMPORARY, write_atomically
from mmseg_inceptionnext.datasets.rasters import GeoRaster, Raster, find_range, overview_step, stretch

from .outputs import ENDINGS, MARK
from .overlay import draw_overlay

Size = Tuple[int, int]
BLOCK = 512  # pixels, of a side of the tiles


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
        folder, name = osp.split(osp.abspath(target))
        self.path, self.progress = (osp.join(folder, TEMPORARY.format(name=f'{name}.{kind}')) for kind in
                                    ('classes', 'progress'))
        self.done = self.reached = self._done() if resume else 0
        if not self.done:
            with open(self.path, 'wb') as file:
                file.truncate(size[0] * size[1] * self.dtype.itemsize)

    def _done(self) -> int:
        if not (osp.isfile(self.path) and osp.isfile(self.progress)):
            return 0
        with open(self.progress) as file:
            progress = json.load(file)
        if progress['settings'] != self.settings:
            print_log(f'{self.path} is of another image, model or options: it is begun anew', logger='current')
            return 0
        print_log(f'{self.path} goes on at {progress["done"]}', logger='current')
        return progress['done']

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
        write_atomically(json.dumps(dict(done=self.done, settings=self.settings)).encode(), self.progress)

    def remove(self) -> None:
        os.remove(self.progress)
        os.remove(self.path)


def write_raster(raster: Raster, classes: ClassFile, target: str, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Writes the classes as a TIFF of one band, complete or not at all; how many pixels each class has.

    What has no data in the source has ``nodata`` in the result: the source's own value if that fits and is no class,
    else the largest value of its type.
    """
    folder, name = osp.split(osp.abspath(target))
    temporary = osp.join(folder, TEMPORARY.format(name=name))
    nodata = _nodata(raster, classes)
    counts = np.zeros(classes.num_classes, np.int64)

    def strips():
        for top in range(0, classes.size[0], BLOCK):
            rows = slice(top, min(top + BLOCK, classes.size[0]))
            values, valid = classes.get(rows), raster.valid(rows, slice(0, classes.size[1]))
            counts[:] += np.bincount((values if valid is None else values[valid]).ravel(), minlength=len(counts))
            yield rows, values if valid is None else np.where(valid, values, np.asarray(nodata, values.dtype))

    colors = {i: (*map(int, color), 255) for i, color in enumerate(palette)}
    try:
        (_write_geo if isinstance(raster, GeoRaster) else _write_plain)(
            raster, classes, temporary, nodata, colors, strips())
        os.replace(temporary, target)
    finally:
        if osp.exists(temporary):
            os.remove(temporary)
    return counts


def _nodata(raster: Raster, classes: ClassFile) -> Optional[int]:
    largest = int(np.iinfo(classes.dtype).max)
    if not getattr(raster, 'has_gaps', False):
        return None
    own = raster.nodata
    return int(own) if own is not None and own == own // 1 and classes.num_classes <= own <= largest else largest


def _write_geo(raster: GeoRaster, classes: ClassFile, path: str, nodata: Optional[int], colors: dict, strips: Any
               ) -> None:
    import rasterio
    source = raster.file
    gcps, gcps_crs = source.gcps
    where = dict(gcps=gcps, crs=gcps_crs) if gcps else dict(transform=source.transform, crs=source.crs)
    if not gcps and source.transform.is_identity:  # which is what rasterio gives where there is none
        del where['transform']
    profile = dict(driver='GTiff', height=classes.size[0], width=classes.size[1], count=1, dtype=classes.dtype.name,
                   nodata=nodata, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress='deflate',
                   bigtiff='if_safer', **where)
    with rasterio.open(path, 'w', **profile) as file:
        file.update_tags(TIFFTAG_SOFTWARE=MARK)
        if classes.dtype == np.uint8:
            file.write_colormap(1, colors)
        for rows, values in strips:
            file.write(values, 1, window=((rows.start, rows.stop), (0, classes.size[1])))


def _write_plain(raster: Raster, classes: ClassFile, path: str, nodata: Optional[int], colors: dict, strips: Any
                 ) -> None:
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
