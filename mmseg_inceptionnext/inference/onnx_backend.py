"""Predicts with a file of ``tools/export_onnx.py`` in ONNX Runtime: NumPy and OpenCV around it, no PyTorch."""
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from mmcv.transforms import Compose

ROWS, COLUMNS = 32, 64  # of the class map, at once
LOADING = dict(type='LoadImageFromFile', to_float32=False, color_type='color', imdecode_backend='cv2')  # for all files
# What may be named in a file, which is untrusted: these transforms, with these arguments.
RESIZING = dict(Resize={'scale', 'scale_factor', 'keep_ratio'}, ResizeToMultiple={'size_divisor'})
NEEDED = ('classes', 'palette', 'pipeline', 'output', 'align_corners')


class _Image(NamedTuple):
    """As the network takes it.

    Attributes:
        pixels: 1 x 3 x H x W, uint8, RGB.
        size: height and width of the image that was read.
    """
    pixels: np.ndarray
    size: Tuple[int, int]


class OnnxBackend:
    """A segmentor in ONNX Runtime.

    Attributes:
        classes: name of each class id.
        palette: colour of each class id.

    Args:
        path: file that ``tools/export_onnx.py`` wrote.
        device: ``cpu``, or ``cuda`` with a number for ONNX Runtime's GPU package. Default: the GPU, if there is one.

    Raises:
        ValueError: if ONNX Runtime is missing, the file is none of these, or the device is not there.
    """

    def __init__(self, path: str, device: Optional[str] = None) -> None:
        self.path, self._session = path, _open(path, device)
        meta = self._session.get_modelmeta().custom_metadata_map
        missing = [key for key in NEEDED if key not in meta]
        if missing:
            raise ValueError(f'{path} lacks {", ".join(missing)} in its metadata: it was not written by '
                             'tools/export_onnx.py, which says there how images enter and what comes out')
        try:
            self.classes, self.palette = _classes(json.loads(meta['classes']), json.loads(meta['palette']))
            self._pipeline = _build(json.loads(meta['pipeline']))
            self._align_corners = bool(json.loads(meta['align_corners']))
            self._threshold = float(meta.get('threshold', 0.5))
            self._gives_logits = ['classes', 'logits'].index(meta['output']) == 1
            shape = self._session.get_outputs()[0].shape
            if self._gives_logits and len(shape) == 4 and isinstance(shape[1], int) and not self._fits(shape[1]):
                raise ValueError(f'{len(self.classes)} classes for a network with {shape[1]} outputs')
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, AssertionError) as error:
            raise ValueError(f'{path}: its metadata cannot be used: {error}') from error

    def prepare(self, loaded: dict) -> _Image:
        """What the pipeline of the config makes of an image that was read."""
        size = loaded['img'].shape[:2]
        image = self._pipeline(loaded)['img']
        return _Image(to_pixels(image), size)

    @staticmethod
    def shape_of(prepared: _Image) -> tuple:
        """Images of the same shape can be predicted together."""
        return prepared.pixels.shape

    def predict(self, prepared: List[_Image], probabilities: bool) -> List[Tuple[np.ndarray, Optional[np.ndarray]]]:
        """Predicts some images of the same shape.

        Returns:
            For each its mask (H, W) and its probabilities (classes, H, W), float32, or None.
        """
        if probabilities and not self._gives_logits:
            raise ValueError('this file gives class ids and no probabilities; export it with --output logits')
        outputs = self.run(np.concatenate([image.pixels for image in prepared]))
        return [self._finish(output, image, probabilities) for output, image in zip(outputs, prepared)]

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """The output of the network itself for images, N x 3 x H x W, uint8, RGB.

        Raises:
            RuntimeError: if the network cannot take them, or gives something else than its metadata say.
        """
        try:
            output = self._session.run(None, {self._session.get_inputs()[0].name: pixels})[0]
        except Exception as error:  # ONNX Runtime has its own
            raise RuntimeError(f'ONNX Runtime: {error}') from error
        self._check_output(output, len(pixels))
        return output

    def _fits(self, channels: int) -> bool:
        return len(self.classes) == max(2, channels)  # one channel tells two classes apart

    def _check_output(self, output: np.ndarray, count: int) -> None:
        """The metadata, which say what comes out, are of a file that nobody vouches for."""
        classes, values = len(self.classes), ''
        if self._gives_logits:
            expected = f'the logits of {classes} classes, {count} x classes x h x w'
            fits = output.dtype.kind == 'f' and output.ndim == 4 and self._fits(output.shape[1])
        else:
            expected = f'ids from 0 to {classes - 1}, {count} x h x w'
            fits = output.dtype.kind in 'iu' and output.ndim == 3
            if fits and output.size:
                values = f', from {output.min()} to {output.max()}'
                fits = output.min() >= 0 and output.max() < classes
        if not fits or len(output) != count or not output.size:
            raise RuntimeError(f'{self.path} gives {output.dtype}, {" x ".join(map(str, output.shape))}{values}, where '
                               f'its metadata promise {expected}; export it by tools/export_onnx.py')

    def _finish(self, output: np.ndarray, image: _Image, probabilities: bool):
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        if not self._gives_logits:  # the class of the pixel that each one was made from
            rows, columns = (((2 * np.arange(size) + 1) * length) // (2 * size)
                             for size, length in zip(image.size, output.shape))
            return output[rows[:, None], columns].astype(dtype), None
        y, x = (linear_matrix(length, size, self._align_corners) @ linear_matrix(small, length, self._align_corners)
                for small, length, size in zip(output.shape[1:], image.pixels.shape[2:], image.size))
        mask = np.empty(image.size, dtype)
        scores = np.empty((*image.size, max(2, len(output))), np.float32) if probabilities else None
        for rows, columns, logits in _resized(output.transpose(1, 2, 0), y, x):
            if logits.shape[-1] == 1:
                likely = 1 / (1 + np.exp(-logits))
                mask[rows, columns] = likely[..., 0] > self._threshold
                values = np.concatenate([1 - likely, likely], -1)
            else:
                mask[rows, columns] = logits.argmax(-1)
                values = logits
            if scores is not None:
                scores[rows, columns] = values
        if scores is not None and len(output) > 1:
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        return mask, None if scores is None else np.ascontiguousarray(scores.transpose(2, 0, 1))


def _open(path: str, device: Optional[str]):
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f'{path} runs in ONNX Runtime, which cannot be imported ({error}): pip install onnxruntime, '
                         'or onnxruntime-gpu') from error
    available = onnxruntime.get_available_providers()
    kind, _, number = (device or ('cuda' if 'CUDAExecutionProvider' in available else 'cpu')).partition(':')
    provider = dict(cpu='CPUExecutionProvider', cuda='CUDAExecutionProvider').get(kind)
    if provider not in available:
        raise ValueError(f'--device {device} cannot be used here: this ONNX Runtime has {", ".join(available)}; for '
                         'cuda install onnxruntime-gpu')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[
            (provider, {'device_id': number or '0'} if kind == 'cuda' else {})])
    except Exception as error:  # ONNX Runtime has its own
        raise ValueError(f'{path} cannot be opened by ONNX Runtime: {error}') from error
    if session.get_providers()[0] != provider:
        raise ValueError(f'--device {device or kind} cannot be used here: ONNX Runtime fell back to '
                         f'{session.get_providers()[0]}; --device cpu takes that')
    return session


def _classes(names: Any, palette: Any) -> Tuple[Tuple[str, ...], List[List[int]]]:
    """Names and colours of the classes, from an untrusted file."""
    if not (isinstance(names, list) and names and all(isinstance(name, str) and name.isprintable() for name in names)):
        raise ValueError('the classes are no list of printable names')
    if len(set(names)) < len(names):
        raise ValueError('two classes have the same name')
    if len(palette) != len(names) or not all(
            len(color) == 3 and all(value in range(256) for value in color) for color in palette):
        raise ValueError(f'the palette is no list of {len(names)} colours, each three whole numbers from 0 to 255')
    return tuple(names), palette


def _build(steps: List[Dict[str, Any]]) -> Compose:
    from mmseg.registry import TRANSFORMS
    for step in steps:
        allowed = RESIZING.get(step.get('type'))
        if allowed is None or set(step) - {'type'} - allowed:
            raise ValueError(f'the pipeline names {step}; allowed are {RESIZING}')
        numbers = [value for key, value in step.items() if key in ('scale', 'scale_factor', 'size_divisor')]
        numbers = [number for value in numbers for number in (value if isinstance(value, list) else [value])]
        if not numbers or not all(isinstance(number, (int, float)) and 0 < number < 1e5 for number in numbers):
            raise ValueError(f'the pipeline names {step}; sizes are numbers above 0')
        if isinstance(step.get('scale'), list):
            step['scale'] = tuple(step['scale'])
    return Compose([TRANSFORMS.build(step) for step in steps])


def to_pixels(bgr: np.ndarray) -> np.ndarray:
    """An image H x W x 3, BGR, as the graph takes it: 1 x 3 x H x W, uint8, RGB."""
    return np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1)[None].astype(np.uint8))


def linear_matrix(size: int, new_size: int, align_corners: bool) -> np.ndarray:
    """(new_size, size), float64: linear interpolation along an axis, as PyTorch and ONNX do it."""
    if align_corners:
        position = np.arange(new_size) * ((size - 1) / max(new_size - 1, 1))
    else:
        position = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    position = position.clip(0, size - 1)
    return (1 - np.abs(position[:, None] - np.arange(size))).clip(0)


def _resized(image: np.ndarray, y: np.ndarray, x: np.ndarray):
    """Tiles of ``y @ image @ x.T`` for an image (h, w, C): rows, columns, and float32 (rows, columns, C)."""
    image, parts = np.ascontiguousarray(image), [_blocks(y, ROWS), _blocks(x, COLUMNS)]
    for rows, y_inputs, y_block in parts[0]:
        for columns, x_inputs, x_block in parts[1]:
            stretched = np.matmul(x_block, image[y_inputs, x_inputs])  # (inputs along y, columns, C)
            tile = y_block @ stretched.reshape(len(stretched), -1)
            yield rows, columns, tile.reshape(-1, *stretched.shape[1:])


def _blocks(matrix: np.ndarray, size: int) -> List[Tuple[slice, slice, np.ndarray]]:
    """A banded matrix by ``size`` rows: the rows, the columns that are not zero there, and the block."""
    blocks = []
    for start in range(0, len(matrix), size):
        used = np.flatnonzero(matrix[start:start + size].any(0))
        inputs = slice(used[0], used[-1] + 1)
        blocks.append((slice(start, min(start + size, len(matrix))), inputs,
                       matrix[start:start + size, inputs].astype(np.float32)))
    return blocks
