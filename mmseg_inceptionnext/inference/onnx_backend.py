"""Predicts with a file of ``tools/export_onnx.py`` in ONNX Runtime: NumPy and OpenCV around it, no PyTorch."""
import json
import math
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
from mmcv.transforms import Compose
from mmseg.registry import TRANSFORMS

from mmseg_inceptionnext.checkpoints.embedded_config import MAX_FACTOR, MAX_PIXELS, SIZES, area
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.errors import CheckpointError, InputError

from .inputs import require_file

ROWS, COLUMNS = 32, 64  # of the class map, at once
LOADING = dict(type='LoadImageFromFile', to_float32=False, color_type='color', imdecode_backend='cv2')  # for all files
# What may be named in a file, which is untrusted: these transforms, with these arguments.
RESIZING = dict(Resize={'scale', 'scale_factor', 'keep_ratio'}, ResizeToMultiple={'size_divisor'})
MAX_TEXT = 2**22  # characters
STRIDE = 32  # pixels, of the last maps of most networks
NOT_FINITE = dict(uint8=255, int32=-1)  # the class id of an image whose logits are not, which no class has
NEEDED = ('classes', 'palette', 'pipeline', 'output', 'align_corners')


class OnnxBackend:
    """A segmentor in ONNX Runtime. It is pickled and copied as its arguments, and the file is then read again.

    Logits that are NaN or infinite are an error. Files of ``tools/export_onnx.py`` that give class ids mark them, see
    ``NOT_FINITE``; what the files of others turn into class ids cannot be seen. Weights that are NaN or infinite are
    refused where the ``onnx`` package is there to read them. ONNX Runtime, which is enough to predict, does not show
    them: without ``onnx`` they are found by the logits, and in int8 files, whose arithmetic hides them, not at all.

    Args:
        path: file that ``tools/export_onnx.py`` wrote.
        device: ``cpu``, or ``cuda`` with a number for ONNX Runtime's GPU package. Default: the GPU, if there is one.
        probabilities: give those of all classes, too.

    Raises:
        InputError: if ONNX Runtime is missing, the file is none of these, holds weights that are not finite or cannot
            give probabilities, or the device is not there.
    """

    def __init__(self, path: str, device: Optional[str] = None, probabilities: bool = False) -> None:
        self.path, self.device, self.probabilities, self._session = path, device, probabilities, _open(path, device)
        meta = self._session.get_modelmeta().custom_metadata_map
        missing = [key for key in NEEDED if key not in meta]
        if missing:
            raise InputError(f'{path} lacks {", ".join(missing)} in its metadata: it was not written by '
                             'tools/export_onnx.py, which says there how images enter and what comes out')
        try:
            self._read_metadata(meta)
        except Exception as error:  # they may be anything
            raise InputError(f'{path}: its metadata cannot be used: {_said(error)}') from error
        if probabilities and not self._gives_logits:
            raise InputError(f'{path} gives class ids and no probabilities; export it with --output logits')

    def _read_metadata(self, meta: dict) -> None:
        if max(map(len, meta.values())) > MAX_TEXT:
            raise InputError(f'they have a text of more than {MAX_TEXT} characters')
        named = {key: json.loads(meta[key]) for key in ('classes', 'palette')}
        self.classes, self.palette = LoadedCheckpoint(dict(meta=dict(dataset_meta=named)), 'the file').classes()
        if not len(self.classes) == len(set(self.classes)) == len(self.palette) > 0:
            raise InputError(f'{len(self.classes)} classes and {len(self.palette)} colours: each class needs a name of '
                             'its own, and a colour')
        self._pipeline = _build(json.loads(meta['pipeline']))
        self._align_corners = bool(json.loads(meta['align_corners']))
        self._threshold = float(meta.get('threshold', 0.5))
        if not 0 <= self._threshold <= 1:
            raise InputError(f'threshold {self._threshold}; allowed is 0 to 1')
        self._gives_logits = dict(classes=False, logits=True)[meta['output']]
        shape = self._session.get_outputs()[0].shape
        if self._gives_logits and len(shape) == 4 and isinstance(shape[1], int) and not self._fits(shape[1]):
            raise InputError(f'{len(self.classes)} classes for a network with {shape[1]} outputs')

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.device, self.probabilities)

    @property
    def model(self):
        raise AttributeError(f'{self.path} is an ONNX file, which has no PyTorch model and no config; give Segmenter '
                             'the checkpoint that it was exported from')

    cfg = model

    def prepare(self, loaded: dict) -> dict:
        """What the pipeline of the config makes of an image that was read: ``img`` as the network takes it,
        1 x 3 x H x W, uint8, RGB, and ``size``, height and width of what was read."""
        size = loaded['img'].shape[:2]
        return dict(img=to_pixels(self._pipeline(loaded)['img']), size=size)

    def predict(self, prepared: List[dict]) -> List[Tuple[np.ndarray, Optional[np.ndarray]]]:
        """See :meth:`TorchBackend.predict`."""
        outputs = self.run(np.concatenate([image['img'] for image in prepared]))
        return [self._finish(output, image['img'].shape[2:], image['size']) for output, image in zip(outputs, prepared)]

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """The output of the network itself for images, N x 3 x H x W, uint8, RGB.

        Raises:
            InputError: if they are too small.
            CheckpointError: if it cannot take them, or gives something else than its metadata say, or logits that are
                not finite.
        """
        try:
            output = np.asarray(self._session.run(None, {self._session.get_inputs()[0].name: pixels})[0])
        except Exception as error:  # ONNX Runtime has its own
            height, width = pixels.shape[2:]
            if min(height, width) < STRIDE:
                raise InputError(f'an image of {height} x {width} pixels (H x W) is too small: most networks need at '
                                 f'least {STRIDE} on each side; resize or pad it (ONNX Runtime: {_said(error)})'
                                 ) from error
            raise CheckpointError(f'ONNX Runtime: {_said(error)}') from error
        self._check_output(output, len(pixels))
        return output

    def _fits(self, channels: int) -> bool:
        return len(self.classes) == max(2, channels)  # one channel tells two classes apart

    def _check_output(self, output: np.ndarray, count: int) -> None:
        """The metadata, which say what comes out, are of a file that nobody vouches for."""
        classes, kind, values = len(self.classes), output.dtype.kind, ''
        if self._gives_logits:
            promised = f'the logits of {classes} classes, {count} x classes x h x w'
            fits = kind == 'f' and output.ndim == 4 and self._fits(output.shape[1])
        else:
            promised = f'ids from 0 to {classes - 1}, {count} x h x w; {NOT_FINITE} for logits that are NaN or infinite'
            fits = kind in 'iu' and output.ndim == 3
            if fits and output.size:
                values = f', from {output.min()} to {output.max()}'
                fits = output.min() >= 0 and output.max() < classes
        if not fits or len(output) != count or not output.size:
            raise CheckpointError(f'{self.path} gives {output.dtype}, {" x ".join(map(str, output.shape))}{values}, '
                                  f'where its metadata promise {promised}; export it by tools/export_onnx.py')
        if self._gives_logits and not np.isfinite(output).all():
            raise CheckpointError(f'{self.path} gives logits that are NaN or infinite: its weights are, or they are '
                                  'too large for its precision; export it anew by tools/export_onnx.py, in float32')

    def _finish(self, output: np.ndarray, shape: tuple, size: Tuple[int, int]
                ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        if not self._gives_logits:  # the class of the pixel that each one was made from
            rows, columns = (((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in zip(size, output.shape))
            return output[rows[:, None], columns].astype(dtype), None
        mask = np.empty(size, dtype)
        scores = np.empty((*size, len(self.classes)), np.float32) if self.probabilities else None
        for rows, columns, logits in resized(output, shape, size, self._align_corners):
            if logits.shape[-1] == 1:
                likely = 1 / (1 + np.exp(-logits))
                mask[rows, columns] = likely[..., 0] > self._threshold
                logits = np.concatenate([1 - likely, likely], -1)
            else:
                mask[rows, columns] = logits.argmax(-1)
            if scores is not None:
                scores[rows, columns] = logits
        if scores is None:
            return mask, None
        if len(output) > 1:
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        return mask, np.ascontiguousarray(scores.transpose(2, 0, 1))


def _open(path: str, device: Optional[str]):
    require_file(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f'{path} runs in ONNX Runtime, which cannot be imported ({error}): pip install onnxruntime, '
                         'or onnxruntime-gpu') from error
    available = onnxruntime.get_available_providers()
    kind, _, number = (device or ('cuda' if 'CUDAExecutionProvider' in available else 'cpu')).partition(':')
    provider = dict(cpu='CPUExecutionProvider', cuda='CUDAExecutionProvider').get(kind)
    if provider not in available:
        raise InputError(f'--device {device} cannot be used here: this ONNX Runtime has {", ".join(available)}; for '
                         'cuda install onnxruntime-gpu')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        _check_weights(path)
        session = onnxruntime.InferenceSession(path, options, providers=[
            (provider, {'device_id': number or '0'} if kind == 'cuda' else {})])
    except Exception as error:  # ONNX Runtime has its own, as has the parser, of a file that is no graph
        raise InputError(f'{path} cannot be opened: {_said(error)}') from error
    if session.get_providers()[0] != provider:
        raise InputError(f'--device {device or kind} cannot be used here: ONNX Runtime fell back to '
                         f'{session.get_providers()[0]}; --device cpu takes that')
    return session


def _check_weights(path: str) -> None:
    """Raises an InputError if weights are not finite, or in other files. Without the ``onnx`` package does nothing."""
    try:
        import onnx
    except ImportError:
        return
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    weights = onnx.load(path, load_external_data=False).graph.initializer
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in weights):
        raise InputError('its weights are in other files, which are not read; save it as one file')
    wrong = [tensor.name for tensor in weights if tensor.data_type in floats
             and not np.isfinite(onnx.numpy_helper.to_array(tensor)).all()]
    if wrong:
        raise InputError(f'{len(wrong)} of its {len(weights)} weights hold NaN or infinite numbers, the first is '
                         f'{wrong[0]:.80}; export it anew from a checkpoint whose weights do not')


def _said(error: Exception) -> str:
    """The text of an error, in which an untrusted file may be quoted, as a short line."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return ''.join(c if c.isprintable() else '?' for c in text[:500])


def _build(steps: Any) -> Compose:
    """The pipeline that an untrusted file names."""
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError('the pipeline is no list of transforms')
    kinds = [step.get('type') for step in steps]
    for step, kind in zip(steps, kinds):
        if kind not in list(RESIZING) or set(step) - {'type'} - RESIZING[kind]:
            raise InputError(f'the pipeline names {step!r:.200}; allowed are {RESIZING}')
        sizes = {key: area(step[key]) for key in SIZES if key in step}
        if not sizes or not all(0 < size <= SIZES[key] for key, size in sizes.items()):
            raise InputError(f'the pipeline names {step!r:.200}; sizes are numbers above 0 for up to {MAX_PIXELS} '
                             f'pixels, factors up to {MAX_FACTOR} and divisors up to {math.isqrt(MAX_PIXELS)}')
        if kinds.count(kind) > 1:
            raise InputError(f'the pipeline names {kind} more than once')
    return Compose([TRANSFORMS.build({key: tuple(value) if isinstance(value, list) else value
                                      for key, value in step.items()}) for step in steps])


def to_pixels(bgr: np.ndarray) -> np.ndarray:
    """An image H x W x 3, BGR, as the graph takes it: 1 x 3 x H x W, uint8, RGB."""
    return np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1)[None].astype(np.uint8))


def resized(logits: np.ndarray, size: Tuple[int, int], new_size: Tuple[int, int], align_corners: bool
            ) -> Iterator[Tuple[slice, slice, np.ndarray]]:
    """Logits, C x h x w, resized bilinearly to one size and then to another, as PyTorch does it.

    Yields:
        Rows and columns of a tile, and its logits, float32, rows x columns x C. Time and memory for all but the logits
        themselves grow with the sides, and never with their product.
    """
    logits = np.ascontiguousarray(logits.transpose(1, 2, 0))
    y, x = (_blocks(*lengths, align_corners, step)
            for *lengths, step in zip(logits.shape[:2], size, new_size, (ROWS, COLUMNS)))
    for rows, y_inputs, y_block in y:
        for columns, x_inputs, x_block in x:
            stretched = np.matmul(x_block, logits[y_inputs, x_inputs])  # (inputs along y, columns, C)
            tile = y_block @ stretched.reshape(len(stretched), -1)
            yield rows, columns, tile.reshape(-1, *stretched.shape[1:])


def _blocks(small: int, length: int, size: int, align_corners: bool, step: int
            ) -> List[Tuple[slice, slice, np.ndarray]]:
    """Linear interpolation from ``small`` to ``length`` to ``size`` values, as a matrix for each ``step`` of the last:
    its rows, the inputs that they need, and the matrix, float32."""
    blocks = []
    for start in range(0, size, step):
        rows = np.arange(start, min(start + step, size))
        between, outer = _neighbours(length, size, align_corners, rows)
        inputs, inner = _neighbours(small, length, align_corners, between)  # rows x 2 x 2
        first, end = inputs.min(), inputs.max() + 1
        block = np.zeros((len(rows), end - first))
        np.add.at(block, (np.arange(len(rows))[:, None, None], inputs - first), outer[..., None] * inner)
        blocks.append((slice(start, start + len(rows)), slice(first, end), block.astype(np.float32)))
    return blocks


def _neighbours(size: int, new_size: int, align_corners: bool, positions: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The two values that linear interpolation from ``size`` to ``new_size`` takes, as PyTorch and ONNX do it: for each
    of the new positions two indices and their weights, each ... x 2."""
    if align_corners:
        exact = positions * ((size - 1) / max(new_size - 1, 1))
    else:
        exact = (positions + 0.5) * (size / new_size) - 0.5
    exact = exact.clip(0, size - 1)
    lower = exact.astype(int)
    return (np.stack([lower, np.minimum(lower + 1, size - 1)], -1),
            np.stack([1 - (exact - lower), exact - lower], -1))
