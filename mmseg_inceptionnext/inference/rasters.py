"""Segments images that are too large for the memory, window by window."""
import os
import os.path as osp
import re
import warnings
import zlib
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from mmseg.registry import TRANSFORMS
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.datasets.rasters import (
    LoadRaster,
    Raster,
    check_range,
    find_range,
    open_raster,
    stretch,
)
from mmseg_inceptionnext.datasets.steps import MOVING
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.evaluation.protocol import without_labels
from mmseg_inceptionnext.models.interpolation import Resampling, resized
from mmseg_inceptionnext.models.segmentors import MemoryEfficientEncoderDecoder
from mmseg_inceptionnext.models.segmentors.slide import is_wide, slide_tiles, window_starts
from mmseg_inceptionnext.parts import class_of, first_dataset

from .raster_files import ClassFile, alone, write_overview, write_raster

Size = Tuple[int, int]
TOO_LARGE = 100_000_000  # pixels, of what is predicted whole
DEFAULT_WINDOW = 1024
BUFFER = 3 << 29  # bytes, of the logits of a row of windows


class Windows(NamedTuple):
    """How a large image is segmented; the options of ``Segmenter.segment_file``."""
    window: Optional[int] = None
    overlap: Optional[int] = None
    bands: Optional[Sequence[int]] = None
    scale_range: Optional[Sequence[float]] = None

    def sizes(self, test_cfg: dict) -> Tuple[Size, Size]:
        """Height and width of a window, and of the steps between windows."""
        if self.window is None and self.overlap is None and test_cfg.get('mode') == 'slide':
            return tuple(test_cfg['crop_size']), tuple(test_cfg['stride'])
        side, overlap = (int(value) if isinstance(value, np.integer) else value
                         for value in (self.window, self.overlap))
        side = DEFAULT_WINDOW if side is None else side
        if type(side) is not int or side < 32:
            raise InputError(f'--window {side}: allowed is a whole number of pixels from 32')
        overlap = side // 4 if overlap is None else overlap
        if type(overlap) is not int or not 0 <= overlap < side:
            raise InputError(f'--overlap {overlap}: allowed is a whole number of pixels, at least 0 and less than the '
                             f'--window of {side}')
        return (side, side), (side - overlap, side - overlap)


def is_too_large(path: str) -> bool:
    """Whether an image has so many pixels that it is segmented by windows; of what cannot be opened: no."""
    if not osp.isfile(path) or osp.getsize(path) < 1 << 16:  # however well compressed
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            return image.width * image.height > TOO_LARGE
    except Image.DecompressionBombError as error:
        return int(re.search(r'\((\d+) pixels\)', str(error)).group(1)) > TOO_LARGE
    except Exception:  # Pillow knows fewer kinds than rasterio
        try:
            with open_raster(path) as raster:
                return raster.size[0] * raster.size[1] > TOO_LARGE
        except InputError:  # which is said where it is segmented
            return False


def segment_raster(backend: Any, loading: Any, source: str, target: str, windows: Windows, skip_existing: bool = False,
                   batch_size: int = 1) -> np.ndarray:
    """Segments an image window by window; see ``Segmenter.segment_file``.

    Returns:
        How many pixels each class has.
    """
    window, stride = windows.sizes(backend.model.test_cfg or {})
    source, target = osp.expanduser(source), osp.expanduser(target)
    _check_target(source, target)
    make_folder(target)
    with alone(target), open_raster(source, window[0]) as raster:
        bands, scale_range = _inputs_of(raster, windows, backend, loading)
        is_plain = raster.dtype == np.uint8 and len(bands) == 3  # as Loading has it of arrays
        reads = _Reader(raster, bands, scale_range, backend,
                        reverse=not loading.as_stored and (is_plain or not loading.is_own))
        settings = dict(
            source=[osp.abspath(source), osp.getsize(source), os.stat(source).st_mtime_ns], window=window,
            stride=stride, bands=bands, scale_range=scale_range, batch_size=batch_size, amp=backend.amp,
            buffer=BUFFER, model=_fingerprint(backend.model))
        print_log(f'{source}: {raster.size[0]} x {raster.size[1]} pixels, windows {window}, every {stride}, bands '
                  f'{bands}, at its own resolution', logger='current')
        lean = isinstance(backend.model, MemoryEfficientEncoderDecoder) and backend.model.has_stock_predict
        classes = ClassFile(target, raster.size, len(backend.classes), lean and is_wide(raster.size), settings,
                            resume=skip_existing)
        cfg = dict(crop_size=window, stride=stride, batch_size=batch_size)
        _fill(classes, reads, backend, cfg, lean)
        counts = write_raster(raster, classes, target, backend.palette)
        write_overview(raster, classes, target, bands, scale_range, backend.classes, backend.palette)
    classes.remove()
    return counts


def _check_target(source: str, target: str) -> None:
    if not target.lower().endswith(('.tif', '.tiff')):
        raise InputError(f'{target}: the result is a TIFF: give a name that ends in .tif')
    if osp.isdir(target):
        raise InputError(f'{target} is a folder: give the name of a file in it')
    if osp.exists(target) and osp.exists(source) and osp.samefile(source, target):
        raise InputError(f'{source} would be overwritten by its own result: give another name')


def _inputs_of(raster: Raster, windows: Windows, backend: Any, loading: Any
               ) -> Tuple[List[int], Optional[Tuple[float, float]]]:
    """The bands and the range that become the input of the network; the log says what was chosen."""
    taken = next(layer.in_channels for layer in backend.model.modules() if isinstance(layer, nn.Conv2d))
    own = loading.step if isinstance(loading.step, LoadRaster) else LoadRaster()
    if windows.bands is not None and (isinstance(windows.bands, str) or np.ndim(windows.bands) != 1):
        raise InputError(f'bands {windows.bands!r}: allowed is a list of numbers from 1, such as [3, 2, 1]')
    bands = [bands for bands in (windows.bands, own.bands) if bands is not None and np.size(bands)]
    bands = raster.check_bands([*bands, raster.bands[:1] * taken if raster.count == 1 else raster.bands[:taken]][0])
    if len(bands) != taken:
        raise InputError(f'{raster.path}: {len(bands)} bands, {bands}, and the model takes {taken}: give as many of '
                         f'its {raster.count} by --bands, where a band may be named twice')
    raster.use(bands)
    scale_range = check_range(windows.scale_range) or own.scale_range
    if scale_range or raster.dtype == np.uint8 or loading.takes_any:
        return bands, scale_range
    low, high = find_range(raster, bands)
    print_log(f'{raster.path}: its values are {raster.dtype}; {low:g} to {high:g}, the 2nd and the 98th percentile of '
              'an overview, become 0 to 255. Images of one data set should share a --scale-range', logger='current')
    return bands, (low, high)


def _fingerprint(model: nn.Module) -> int:
    """A checksum of all weights."""
    checksum = 0
    for tensor in model.state_dict().values():
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy(), checksum)
    return checksum


class _Reader:
    """Reads a window as the input of the network: (bands, H, W), float32, or None if it has no data."""

    def __init__(self, raster: Raster, bands: List[int], scale_range: Optional[Tuple[float, float]], backend: Any,
                 reverse: bool) -> None:
        self.raster, self.bands, self.scale_range = raster, bands, scale_range
        self.reverse = reverse and len(bands) >= 3  # OpenCV's order is BGR
        pipeline = without_labels(first_dataset(backend.cfg, 'test').pipeline)[1:]
        self.steps = Compose([step for step in pipeline if not _moves(step)])
        self.preprocessor = backend.model.data_preprocessor

    def __call__(self, rows: slice, cols: slice) -> Optional[Tensor]:
        valid = self.raster.valid(rows, cols)
        if valid is not None and not valid.any():
            return None
        image = stretch(self.raster.read(rows, cols, self.bands), self.scale_range)
        if self.reverse:
            image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
        shape = image.shape[:2]
        data = self.steps(dict(img=image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image),
                               img_path=self.raster.path, img_shape=shape, ori_shape=shape))
        inputs = self.preprocessor(pseudo_collate([data]), False)['inputs'][0]
        return inputs[:, :shape[0], :shape[1]]  # without what pads it


def _moves(step: Any) -> bool:
    kind = class_of(step, TRANSFORMS)
    return isinstance(kind, type) and issubclass(kind, MOVING)


class _LazyImage:
    """A raster in the place of an image of ``slide_tiles``.

    Args:
        read: gives a window.
        device: of the model.
        on_row: called before a row of windows, of a wide image a column, is read.
        bar: counts windows.
        origin: row and column of the raster where it begins.
        size: height and width.
        turned: whether rows and columns are exchanged.
    """
    dtype = torch.float32

    def __init__(self, read: '_Reader', device: torch.device, on_row: Callable, bar: tqdm, origin: Size, size: Size,
                 turned: bool = False) -> None:
        self.read, self.device, self.on_row, self.bar, self.turned = read, device, on_row, bar, turned
        self.origin, self.size, self.row = origin, size, -1

    @property
    def shape(self) -> Tuple[int, int, int]:
        return (len(self.read.bands), *(self.size[::-1] if self.turned else self.size))

    def transpose(self, *_: int) -> '_LazyImage':
        return _LazyImage(self.read, self.device, self.on_row, self.bar, self.origin, self.size, not self.turned)

    def new_zeros(self, *size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=self.device)

    def __getitem__(self, index: Tuple[slice, slice, slice]) -> Optional[Tensor]:
        _, rows, cols = index
        if rows.start != self.row:
            self.row = rows.start
            self.on_row()
        window = self.read(*map(_moved, (cols, rows) if self.turned else (rows, cols), self.origin))
        self.bar.update()
        return window.transpose(1, 2) if self.turned and window is not None else window


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _strips(starts: List[int], crop: int, most: int, batch_size: int) -> List[Tuple[int, List[int]]]:
    """Cuts a row of windows whose logits would take too much memory.

    Windows over two strips are predicted for each, in the same batches as without strips: so the sums of logits are of
    the same numbers in the same order.

    Args:
        starts: of all windows.
        most: pixels that the windows of a strip cover, if it is of more than a batch.

    Returns:
        Where each strip starts, and where its windows do.
    """
    if starts[-1] + crop <= most:
        return [(0, starts)]
    strips, stop = [], 0
    while stop < len(starts):
        kept = starts[stop]
        first = next(i for i, start in enumerate(starts) if start + crop > kept) // batch_size * batch_size
        stop += batch_size
        while stop < len(starts) and starts[stop:stop + batch_size][-1] + crop - starts[first] <= most:
            stop += batch_size
        strips.append((kept, starts[first:stop]))
    return strips


@torch.no_grad()
def _fill(classes: ClassFile, read: _Reader, backend: Any, cfg: dict, lean: bool) -> None:
    """Predicts what is not in the file yet, strip by strip."""
    size, along, across = classes.size, int(classes.turned), int(not classes.turned)
    crops = [min(crop, side) for crop, side in zip(cfg['crop_size'], size)]
    starts = [window_starts(*axis) for axis in zip(size, crops, cfg['stride'])]
    most = BUFFER // (4 * crops[along] * backend.model.out_channels)
    strips = _strips(starts[across], crops[across], most, cfg['batch_size'])
    rows = [(len(windows), i * size[along] + start + crops[along] <= classes.done)
            for i, (_, windows) in enumerate(strips) for start in starts[along]]
    with tqdm(desc=osp.basename(read.raster.path), unit='window', total=sum(count for count, _ in rows),
              initial=sum(count for count, is_done in rows if is_done)) as bar:
        for i, (kept, windows) in enumerate(strips):
            if classes.done < (i + 1) * size[along]:
                origin, part = [0, 0], list(size)
                origin[across], part[across] = windows[0], windows[-1] + crops[across] - windows[0]
                image = _LazyImage(read, next(backend.model.parameters()).device, classes.save, bar, origin, part)
                _fill_strip(classes, image, backend, cfg, lean, kept, i * size[along])


def _fill_strip(classes: ClassFile, image: _LazyImage, backend: Any, cfg: dict, lean: bool, kept: int, before: int
                ) -> None:
    """Predicts a strip from ``kept`` on; its right end, which lacks windows, the next strip writes anew."""
    model, across = backend.model, int(not classes.turned)
    post = Resampling(*(resized(side, side, model.align_corners) for side in image.size))
    for rows, cols, logits in slide_tiles(_logits_of(backend, lean), model.out_channels, image, post, cfg,
                                          model.align_corners, max(classes.done - before, 0), classes.turned):
        place = [_moved(*pair) for pair in zip((rows, cols), image.origin)]
        skip = max(kept - place[across].start, 0)
        place[across] = slice(place[across].start + skip, place[across].stop)
        values = _classes_of(model, logits[0]).cpu().numpy()
        classes.put(*place, values[:, skip:] if across else values[skip:], before)
        del logits  # before the next one is made
    classes.save()


def _logits_of(backend: Any, lean: bool) -> Callable[[Tensor], Tensor]:
    """(N, C, H, W) to logits (N, h, w, classes)."""
    model = backend.model

    def logits_of(crops: Tensor) -> Tensor:
        with backend.precision():
            if lean:
                return model._logits(crops)
            size = tuple(crops.shape[2:])
            meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)
            logits = model.encode_decode(crops, [meta] * len(crops))
        return logits.permute(0, 2, 3, 1).to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
    return logits_of


def _classes_of(model: nn.Module, logits: Tensor) -> Tensor:
    """(H, W, logits) to (H, W)"""
    if model.out_channels == 1:
        return logits[..., 0].sigmoid() > model.decode_head.threshold
    return logits.max(-1).indices
