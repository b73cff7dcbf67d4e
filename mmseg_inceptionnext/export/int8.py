"""The convolutions of an ONNX file in int8, by ONNX Runtime's own quantisation after training."""
import logging
import os
from contextlib import contextmanager, redirect_stdout
from typing import Iterator, Optional, Sequence

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import Segmenter

from .images import pixels_of

COUNT = 20  # images that are measured
PERCENTILE = 99.98  # of the values of a map are within its 256 steps: the few beyond them would make the steps coarse


def to_int8(path: str, segmenter: Segmenter, images: Sequence[str]) -> None:
    """Quantises the convolutions, in place: weights by channel, maps as a whole.

    The ranges of the maps are measured on up to ``COUNT`` of the images, spread over all of them.

    Raises:
        InputError: if the maps of an image have no range, as they are NaN or infinite, or it is too small.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    with _quiet():
        try:
            quantize_static(
                path, path, _Images(segmenter, images[::-(-len(images) // COUNT)]), quant_format=QuantFormat.QDQ,
                per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                op_types_to_quantize=['Conv'], calibrate_method=CalibrationMethod.Percentile,
                extra_options=dict(CalibPercentile=PERCENTILE, CalibStridedMinMax=1))  # one image in memory at a time
        except InputError:  # of one image
            raise
        except ValueError as error:  # NumPy's, of a histogram
            raise InputError(f'the ranges for int8 cannot be measured on {images[0]} ...: {error}') from error


class _Images:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, segmenter: Segmenter, images: Sequence[str]) -> None:
        self.segmenter, self.images, self.left = segmenter, images, []

    def __len__(self) -> int:
        return len(self.images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = list(self.images[start_index:end_index])

    def get_next(self) -> Optional[dict]:
        return dict(image=pixels_of(self.segmenter, self.left.pop())) if self.left else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ONNX Runtime prints of its progress, and its advice."""
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
