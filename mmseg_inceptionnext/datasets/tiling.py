"""Cuts large images and their labels into tiles to train on."""
import logging
import os
import os.path as osp
from typing import List, Tuple

import cv2
import numpy as np
from mmengine.logging import print_log
from PIL import Image
from tqdm import tqdm

from mmseg_inceptionnext.errors import InputError

from .files import IMAGE_SUFFIXES
from .pairing import by_stem
from .rasters import GeoRaster, Raster, open_raster

SUFFIXES = (*IMAGE_SUFFIXES, '.jp2')


def tile_dataset(images: str, labels: str, out: str, size: int = 512, overlap: int = 0) -> int:
    """Cuts the images of a folder, and the labels of the same names, into ``out/images`` and ``out/labels``.

    A tile is named after its image, its first row and its first column. The last ones of a row and a column are moved
    back to end at the border. Images of one or three bands of 8 bits, and those with a colour table, become PNG; others
    keep their bands and values in TIFF, by rasterio with their place on earth. Labels keep their values, in PNG, also
    those with a colour table. What has no data at all is left out.

    Args:
        images, labels: folders.
        out: folder, which is made; its ``images`` and ``labels`` must be empty.
        size: of a tile, in pixels; of a smaller image there is one tile of its own size.
        overlap: of neighbouring tiles, in pixels.

    Returns:
        How many tiles were written.

    Raises:
        InputError: if an image has no label, two, or one of another size, if two images have one name, if there are
            files in ``out`` already, or a file cannot be read or written.
    """
    if not (type(size) is int and type(overlap) is int and 0 <= overlap < size):
        raise InputError(f'--size {size} --overlap {overlap}: allowed are whole numbers of pixels, the overlap '
                         'less than the size')
    for folder in (images, labels):
        if not osp.isdir(folder):
            raise InputError(f'{folder}: is no folder')
    pairs = _pairs(images, labels)
    for folder in (osp.join(out, name) for name in ('images', 'labels')):
        if osp.isdir(folder) and any(not name.startswith('.') for name in os.listdir(folder)):
            raise InputError(f'{folder}: holds files already, which would be mixed with the tiles: give an empty --out')
        os.makedirs(folder, exist_ok=True)
    return sum(_cut(*pair, out, size, overlap) for pair in tqdm(pairs, unit='image'))


def _pairs(images: str, labels: str) -> List[Tuple[str, str]]:
    pictures, masks = (by_stem(sorted(os.listdir(folder)), SUFFIXES) for folder in (images, labels))
    if not pictures:
        raise InputError(f'{images}: no file that ends in {" ".join(SUFFIXES)}')
    lonely = [names[0] for stem, names in pictures.items() if stem not in masks]
    if lonely:
        raise InputError(f'{labels}: {len(lonely)} images have no label of their name here, such as {lonely[0]}')
    for folder, found in ((images, pictures), (labels, masks)):
        for stem in pictures:
            if len(found[stem]) > 1:
                raise InputError(f'{folder}: {" and ".join(found[stem])} have one name, and one pair of a name is '
                                 'cut: rename or remove the others')
    return [(osp.join(images, pictures[stem][0]), osp.join(labels, masks[stem][0])) for stem in pictures]


def _cut(image: str, label: str, out: str, size: int, overlap: int) -> int:
    count, stem = 0, osp.splitext(osp.basename(image))[0]
    with open_raster(image, size) as picture, open_raster(label, size, as_stored=True) as mask:
        if picture.size != mask.size:
            raise InputError(f'{label}: {mask.size[0]} x {mask.size[1]} pixels, and {image} has {picture.size[0]} x '
                             f'{picture.size[1]}')
        if _are_apart(picture, mask):
            print_log(f'{label} is of another place on earth, or another CRS, than {image}; their pixels are taken as '
                      'a pair all the same', logger='current', level=logging.WARNING)
        plain = picture.dtype == np.uint8 and picture.count in (1, 3)
        for rows in _parts(picture.size[0], size, overlap):
            for cols in _parts(picture.size[1], size, overlap):
                valid = picture.valid(rows, cols)
                if valid is None or valid.any():
                    name = f'{stem}_{rows.start}_{cols.start}'
                    _write_png(mask.read(rows, cols), osp.join(out, 'labels', f'{name}.png'))
                    if plain:
                        _write_png(picture.read(rows, cols), osp.join(out, 'images', f'{name}.png'))
                    else:
                        _write_tiff(picture, rows, cols, osp.join(out, 'images', f'{name}.tif'))
                    count += 1
    return count


def _are_apart(picture: Raster, mask: Raster) -> bool:
    """Whether both say where they are, and that differs by half a pixel or in the CRS."""
    if not all(isinstance(raster, GeoRaster) and raster.file.crs for raster in (picture, mask)):
        return False
    own, other = (np.reshape(raster.file.transform, (3, 3)) for raster in (picture, mask))
    corners = np.array([[0, 0, 1], [*picture.size[::-1], 1]]).T
    return picture.file.crs != mask.file.crs or np.abs(np.linalg.solve(own, other @ corners) - corners).max() > 0.5


def _parts(length: int, size: int, overlap: int) -> List[slice]:
    starts = [*range(0, max(length - size, 0), size - overlap), max(length - size, 0)]
    return [slice(start, min(start + size, length)) for start in starts]


def _write_png(values: np.ndarray, path: str) -> None:
    if values.dtype.kind not in 'iu' or values.min() < 0 or values.max() > 65535:
        raise InputError(f'{path}: the values from {values.min()} to {values.max()}, {values.dtype}, do not fit in a '
                         'PNG: allowed are whole numbers from 0 to 65535')
    values = values.astype(np.uint8 if values.max() < 256 else np.uint16)
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(path)


def _write_tiff(picture: Raster, rows: slice, cols: slice, path: str) -> None:
    values = picture.read(rows, cols)
    if isinstance(picture, GeoRaster):
        picture.write_cut(values, rows.start, cols.start, path)
    elif not (values.shape[2] in (1, 3, 4) and cv2.imwrite(path, _bgr(values))):
        raise InputError(f'{path}: {values.shape[2]} bands of {values.dtype} need rasterio: pip install '
                         "'mmseg_inceptionnext[geo]'")


def _bgr(values: np.ndarray) -> np.ndarray:
    return values if values.shape[2] < 3 else values[..., [2, 1, 0, *range(3, values.shape[2])]]
