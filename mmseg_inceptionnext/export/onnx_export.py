"""Writes a segmentor as an ONNX file that says how to use it, and compares it with PyTorch."""
import copy
import inspect
import json
import os
import os.path as osp
import tempfile
import warnings
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.errors import CheckpointError, InputError
from mmseg_inceptionnext.evaluation.protocol import without_labels
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.onnx_backend import LOADING, NOT_FINITE, RESIZING
from mmseg_inceptionnext.parts import first_dataset, type_name
from mmseg_inceptionnext.version import __version__

from .exportable import INPUT, ExportableSegmentor, heads_of
from .images import pixels_of
from .int8 import to_int8

OPSET = 17  # the newest that PyTorch 2.1 writes
TRACED = (128, 160)  # size of the image that is traced where sizes stay free
# Largest error of the logits, relative to the largest, and the smallest share of equal classes, that are let pass.
TOLERANCES = dict(float32=(1e-4, 0.999), float16=(3e-2, 0.99), int8=(1., 0.98))


class ExportSettings(NamedTuple):
    """What is written.

    Attributes:
        shape: height and width of the images. Default: free.
        output: ``logits``, at the resolution of the head, or ``classes``, at that of the input.
        precision: ``float32``, ``float16``, or ``int8`` for the convolutions and float32 for the rest.
        calibration: files on which the ranges for int8 are measured, such as some of those for training.
    """
    shape: Optional[Tuple[int, int]] = None
    output: str = 'logits'
    precision: str = 'float32'
    calibration: Sequence[str] = ()


class Agreement(NamedTuple):
    """How far the file is from PyTorch.

    Attributes:
        error: largest difference of the logits, relative to the largest; None for class ids.
        equal: share of the pixels with the same class.
        precision: of the file.
        images: number of images.
        as_checkpoint: share of the pixels of the original images that get the same class from both files; None where
            that is ``equal``.
    """
    error: Optional[float]
    equal: float
    precision: str
    images: int
    as_checkpoint: Optional[float] = None

    @property
    def passed(self) -> bool:
        """Whether both are within :data:`TOLERANCES`."""
        error, equal = TOLERANCES[self.precision]
        return (self.error is None or self.error <= error) and self.equal >= equal  # false for NaN

    def __str__(self) -> str:
        error, equal = TOLERANCES[self.precision]
        logits, limit, original = '', '', ''
        if self.error is not None:
            logits, limit = f'largest error of the logits {self.error:.1e} of the largest, ', f'{error:.0e} and '
        if self.as_checkpoint is not None:
            original = (f'; of the original images {100 * self.as_checkpoint:.2f} % of the pixels get the class that '
                        "the checkpoint gives them by the config's test pipeline")
        return (f'{self.precision} against PyTorch, {self.images} image{"s" * (self.images > 1)}: {logits}'
                f'{100 * self.equal:.4f} % of the pixels have the same class (allowed: {limit}{100 * equal:g} %)'
                f'{original}')


def export_onnx(config: str, checkpoint: str, out: str, images: Sequence[str], settings: ExportSettings,
                trust_checkpoint: bool = False) -> Agreement:
    """Writes ``out``, if it agrees with PyTorch.

    The graph is the fused model, with the normalisation of its input; its metadata hold what ``tools/infer.py`` needs.

    Args:
        config: config file.
        checkpoint: see :class:`mmseg_inceptionnext.Segmenter`.
        out: file that ends in ``.onnx``.
        images: files to compare on.
        settings: what is written.
        trust_checkpoint: see :class:`mmseg_inceptionnext.Segmenter`.

    Raises:
        UserError: if something is not there, does not fit, or cannot be exported.
    """
    _check(out, images, settings)
    original = Segmenter(checkpoint, config, 'cpu', trust_checkpoint=trust_checkpoint)
    steps = resize_steps(original, settings.shape)
    segmenter = _with_steps(original, steps)
    network = ExportableSegmentor(segmenter.model, settings.output, winograd=settings.precision != 'float16').eval()
    make_folder(out)
    with tempfile.TemporaryDirectory(dir=osp.dirname(osp.abspath(out)), prefix='.export.') as folder:
        path = osp.join(folder, 'model.onnx')
        trace(network, path, settings.shape)
        if settings.precision == 'float16':
            to_half(path)
        elif settings.precision == 'int8':
            to_int8(path, segmenter, settings.calibration)
        finish(path, _metadata(segmenter, network, steps, settings, config))
        agreement = compare(segmenter, original, path, images, settings)
        if agreement.passed:
            os.replace(path, out)
    return agreement


def _check(out: str, images: Sequence[str], settings: ExportSettings) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"an export needs onnx and onnxruntime ({error}): pip install onnx onnxruntime") from error
    if not out.endswith('.onnx') or osp.isdir(out):
        raise InputError(f'--out {out}: allowed is a file that ends in .onnx')
    if settings.precision not in TOLERANCES:
        raise InputError(f'precision {settings.precision}: allowed are {", ".join(TOLERANCES)}')
    if settings.shape and min(settings.shape) < 32:
        raise InputError(f'--shape {settings.shape[0]} {settings.shape[1]}: each side needs at least 32 pixels')
    if not images:
        raise InputError('there is no image to compare on; give some by --images')
    if settings.precision == 'int8' and not settings.calibration:
        raise InputError('there is no image to measure the ranges for int8 on; give some behind --int8')


def _with_steps(segmenter: Segmenter, steps: List[dict]) -> Segmenter:
    """The same model with other steps between loading and the network."""
    segmenter = copy.copy(segmenter)
    segmenter.backend = copy.copy(segmenter.backend)
    segmenter.backend.replace_pipeline([*steps, dict(type='PackSegInputs')])
    return segmenter


def resize_steps(segmenter: Segmenter, shape: Optional[Tuple[int, int]] = None) -> List[dict]:
    """The steps of the test pipeline that change the size of an image; for a fixed shape the one that brings it there.

    Raises:
        InputError: if the pipeline does anything else to the image, or reads it otherwise than ``LOADING``.
    """
    load, *others = without_labels(first_dataset(segmenter.cfg, 'test').pipeline)
    load = dict(load, type=type_name(load))
    changed = {key: load[key] for key, value in LOADING.items() if load.get(key, value) != value}
    if changed:
        raise InputError(f'the test pipeline loads images with {changed}, which is not exported: give a config whose '
                         f"test pipeline begins with dict(type='{LOADING['type']}')")
    if shape:
        return [dict(type='Resize', scale=(shape[1], shape[0]), keep_ratio=False)]
    steps = []
    for step in others:
        kind = type_name(step)
        if kind in ('CheckLabels', 'PackSegInputs'):
            continue
        if kind not in RESIZING or set(step) - {'type'} - RESIZING[kind]:
            raise InputError(f'the test pipeline has {dict(step)}, which is not exported: give --shape, or a config '
                             f'with none but {" and ".join(RESIZING)} there, between loading and PackSegInputs')
        steps.append(dict(step, type=kind))
    return steps


def trace(network: ExportableSegmentor, path: str, shape: Optional[Tuple[int, int]] = None) -> None:
    """Writes the graph of a network, for images of one shape or of any, and for any number of images.

    Raises:
        InputError: if PyTorch cannot write it.
    """
    free = {0: 'N'} if shape else {0: 'N', 2: 'H', 3: 'W'}
    by_tracing = dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    image = torch.zeros(1, 3, *(shape or TRACED), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # of constants in traces; that sizes stay free is tested
        try:
            torch.onnx.export(network, (image, ), path, opset_version=OPSET, input_names=['image'],
                              output_names=[network.output], dynamic_axes={'image': free, network.output: {0: 'N'}},
                              **by_tracing)
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f'{type(network.head).__name__} has an operation that ONNX has not'
                             f'{"" if shape else " for images of free sizes; give one by --shape"}: '
                             f'{str(error).splitlines()[0]:.200}') from error


def _metadata(segmenter: Segmenter, network: ExportableSegmentor, steps: List[dict], settings: ExportSettings,
              config: str) -> Dict[str, str]:
    logits = 'logits, float32, N x classes x h x w, to be resized bilinearly'
    values = dict(classes=segmenter.classes, palette=segmenter.palette, pipeline=steps,
                  align_corners=network.head.align_corners, size=settings.shape or 'dynamic',
                  mean=network.normalise.mean.flatten().tolist(), std=network.normalise.std.flatten().tolist())
    texts = dict(input=INPUT, output=settings.output, config=osp.basename(config), mmseg_inceptionnext=__version__,
                 precision=settings.precision,
                 output_format=logits if settings.output == 'logits' else
                 f'class ids, N x H x W; for logits that are not finite {NOT_FINITE}')
    if network.head.out_channels == 1:
        values['threshold'] = network.head.threshold
    return dict(texts, **{key: json.dumps(value) for key, value in values.items()})


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


def finish(path: str, metadata: Dict[str, str]) -> None:
    """Checks a file and writes metadata into it."""
    import onnx
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def compare(segmenter: Segmenter, original: Segmenter, path: str, images: Sequence[str], settings: ExportSettings
            ) -> Agreement:
    """Compares a file with PyTorch, not fused: the logits, and the classes at the original sizes of images.

    Where the file gives class ids, those at the size of its input are compared. There, and where it has a fixed shape,
    it is compared with ``original``, the same model with the config's own test pipeline, too.

    Raises:
        InputError: if the logits of PyTorch or of the file are not finite, or an image is too small.
    """
    exported, head = Segmenter(path, device='cpu'), heads_of(segmenter.model)[-1]
    largest = error = 0.
    same, same_as_checkpoint = [], []  # of each image, which pixels
    for image in images:
        taken = pixels_of(segmenter, image)
        expected = ExportableSegmentor.logits_of(segmenter.model, torch.from_numpy(taken))
        if not expected.isfinite().all():
            raise InputError(f'{image}: the logits of the checkpoint are NaN or infinite, also without an export')
        try:
            output = exported.backend.run(taken)
        except CheckpointError as failure:
            raise InputError(f'{image}: the {settings.precision} file was not written: {failure}') from failure
        if settings.output == 'logits':
            error = np.maximum(error, np.abs(output - expected.numpy()).max())  # NaN stays
            largest = max(largest, expected.abs().max().item())
            same.append(exported(image).mask == segmenter(image).mask)
        else:
            expected = F.interpolate(expected, taken.shape[2:], mode='bilinear', align_corners=head.align_corners)
            classes = expected[:, 0].sigmoid() > head.threshold if expected.shape[1] == 1 else expected.argmax(1)
            same.append(output == classes.numpy())
        if settings.shape or settings.output == 'classes':
            same_as_checkpoint.append(exported(image).mask == original(image).mask)
    return Agreement(float(error / largest) if settings.output == 'logits' else None, _share(same), settings.precision,
                     len(images), _share(same_as_checkpoint) if same_as_checkpoint else None)


def _share(masks: List[np.ndarray]) -> float:
    return float(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks))
