"""Files in half precision and in int8, made from one in single precision by ONNX Runtime's tools."""
import os
from typing import Iterable, Iterator, Optional

import numpy as np


def to_half(path: str) -> None:
    """Weights and computation in float16, in place; the input, its normalisation and the output stay what they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
    model = onnx.load(path)
    own = [node.name for node in model.graph.node  # before and behind the model
           if node.name.startswith('/normalise/') or node.name.count('/') == 1]
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=own, max_finite_val=65504.)
    OnnxModel.graph_topological_sort(model.graph)  # it appends what it inserts
    onnx.save(model, path)


def to_int8(path: str, images: Iterable[np.ndarray]) -> None:
    """Convolutions of backbone and head in int8, in place: weights a scale each output channel, activations one each.

    Weights take 7 of the 8 bits: processors without VNNI instructions would overflow by the eighth and not tell.

    Args:
        path: of the file.
        images: to find the ranges of the activations, each 1 x 3 x H x W, uint8, RGB.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    prepared = f'{path}.prepared'
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, path, _Reader(images), quant_format=QuantFormat.QDQ, op_types_to_quantize=['Conv'],
                    per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    os.remove(prepared)


class _Reader:
    """As ONNX Runtime reads images."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> Optional[dict]:
        image = next(self._images, None)
        return None if image is None else dict(image=image)
