"""Segments images with a checkpoint or an exported file."""
import os
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_inceptionnext.checkpoints.hub import HUB
from mmseg_inceptionnext.errors import InputError, UserError

from .loading import Loading, Source
from .onnx_backend import LOADING, OnnxBackend
from .outputs import SegmentationResult
from .rasters import Windows, segment_raster
from .read_ahead import read_ahead
from .saving import save_folder
from .torch_backend import TorchBackend, memory_errors

END = object()  # in the place of an image after the last


class Prepared(NamedTuple):
    """An image as it is shown, H x W x 3, uint8, RGB, and what the pipeline made of it, ``img`` and more."""
    image: np.ndarray
    data: dict


class Segmenter:
    """A trained segmentor that takes images and gives their classes.

    .. code:: python

        segmenter = Segmenter('iter_160000.pth')
        result = segmenter('street.jpg')        # or an array, or a PIL image
        results = segmenter(['a.jpg', 'b.jpg'])  # a list
        for result in segmenter(frames):         # any other iterable: one after the other, none is kept
            ...

    Files are read by the loading step of the config's test pipeline. By default they are turned as EXIF says, 16 bits a
    channel brought to 8 by dropping the lower half, grey images and palettes turned into RGB, transparency dropped (of
    a TIFF OpenCV blends it with black). PIL images and arrays go through the same settings, as if they came from a PNG
    (PIL images of TIFF files: from a TIFF). Mode ``I``, as which Pillow may read a 16-bit file, holds 16 bits, and
    ``F``, floating point, is refused where such files are.

    Arrays are H x W x 3, in the order RGB, or H x W, uint8; those of OpenCV are turned by ``image[..., ::-1]``. Where
    files are read as they are (``color_type='unchanged'``, ``imdecode_backend='tifffile'``, or a loading step of your
    own), arrays of other types and other numbers of bands are taken, too. Images are read ahead in threads while the
    model runs.

    With the same options the classes are those of ``tools/test.py``, bit for bit.

    Args:
        checkpoint: file that MMEngine's runner or ``tools/publish_checkpoint.py`` wrote, a folder of
            :meth:`save_pretrained`, ``hf://USER/NAME``, or what else
            :func:`mmseg_inceptionnext.checkpoints.load_source` takes; or an ``.onnx`` file of ``tools/export_onnx.py``.
        config: config file. Default: the config inside the checkpoint.
        device: such as ``cpu`` or ``cuda:0``. Default: the best there is.
        fuse_model: fold the norms into the convolutions, see :func:`mmseg_inceptionnext.fuse`: faster, and the same
            to rounding.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.
        amp: ``fp16`` or ``bf16`` for mixed precision.
        tta: average the views of the config's ``tta_pipeline``.
        batch_size: number of neighbours of the same size that are predicted together.
        probabilities: give those of all classes, too.
        compile: run the network through ``torch.compile``: the first images take up to minutes, those after them less
            time; see :func:`mmseg_inceptionnext.models.compiled.compile_model`.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, or does not fit the model.
        TypeError: if ``checkpoint`` is no path.
        InputError: if it holds no config and none is given, if neither checkpoint nor config name and colour the
            classes, if the device is not there, or if the model cannot do what is asked.
    """

    def __init__(self, checkpoint: str, config: Optional[str] = None, device: Optional[str] = None,
                 fuse_model: bool = False, trust_checkpoint: bool = False, amp: Optional[str] = None, tta: bool = False,
                 batch_size: int = 1, probabilities: bool = False, compile: bool = False) -> None:
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise TypeError(f'{type(checkpoint).__name__} as checkpoint: allowed is the path of a file')
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f'--batch-size {batch_size!r}: allowed is a whole number from 1')
        checkpoint, self.batch_size, self.probabilities = os.fspath(checkpoint), batch_size, probabilities
        if checkpoint.lower().endswith('.onnx'):
            if config or amp or tta or compile:
                raise InputError(f'{checkpoint} was exported with its config and precision, one view an image; leave '
                                 '--config, --amp, --tta and --compile out, or give the checkpoint in its place')
            self.backend = OnnxBackend(checkpoint, device, probabilities)
            self._loading = Loading(TRANSFORMS.build(dict(LOADING)))
        else:
            self.backend = TorchBackend(
                checkpoint, config, device, fuse_model, amp, tta, trust_checkpoint, probabilities, compile)
            self._loading = Loading(self.backend.load)
        self.classes, self.palette = self.backend.classes, self.backend.palette

    @classmethod
    def from_pretrained(cls, source: str, **options) -> 'Segmenter':
        """Loads a model folder: data only, nothing of it is run.

        Args:
            source: a folder that :meth:`save_pretrained` or ``tools/publish_checkpoint.py --folder`` wrote, or
                ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION``, such a folder on the hub of Hugging Face.
            options: those of the class, such as ``device``.

        Raises:
            InputError: if ``source`` is something else.
            CheckpointError: if the folder cannot be had, is damaged or not complete, or holds more than data.
        """
        if not os.fspath(source).startswith(HUB) and not os.path.isdir(os.path.expanduser(source)):
            raise InputError(f'{source}: no such folder; allowed are a folder of save_pretrained, and {HUB}USER/NAME '
                             f'or {HUB}USER/NAME@REVISION. A checkpoint file is given to Segmenter(...)')
        return cls(source, **options)

    def save_pretrained(self, folder: str, name: Optional[str] = None) -> None:
        """Writes the model as a folder that :meth:`from_pretrained` loads, also on another stack.

        ``model.safetensors``, ``config.json``, ``preprocessor.json``, ``classes.json``, and ``README.md``, a model card
        with what is known; the ``metrics.json`` beside the checkpoint is read for it. With ``fuse_model=True`` the
        fused form is written, which can only predict. A folder that holds a model gets this one instead.

        Args:
            folder: made if it is not there; other files in it stay.
            name: of the model in its card, or the ``hf://USER/NAME`` where it is going to be. Default: the folder's.

        Raises:
            InputError: if the model is an ``.onnx`` file or was cast by ``amp``, or the folder cannot be written.
            UnsafeCheckpointError: if its config holds more than data of the packages here, as a class of one's own.
        """
        if not isinstance(self.backend, TorchBackend):
            raise InputError('an .onnx file cannot be written as a folder; take the checkpoint that it was made from')
        folder = os.path.expanduser(folder)
        save_folder(self.backend, folder, name or os.path.basename(os.path.abspath(folder)))

    @property
    def model(self):
        """The segmentor, of a checkpoint."""
        return self.backend.model

    @property
    def cfg(self):
        """The config, of a checkpoint."""
        return self.backend.cfg

    def __call__(self, images: Union[Source, Iterable[Source]]
                 ) -> Union[SegmentationResult, List[SegmentationResult], Iterator[SegmentationResult]]:
        """Segments an image, a list of images, or any other iterable of images as results are taken.

        Raises:
            InputError: if a file is missing or is no image that can be read, or an array is no image.
        """
        if isinstance(images, (str, os.PathLike, np.ndarray, Image.Image)):
            return next(self._results([images]))
        if not isinstance(images, Iterable) or isinstance(images, (bytes, dict)):
            self._loading.keep(images)  # which says what is allowed
        return list(self._results(images)) if isinstance(images, (list, tuple)) else self._results(images)

    def segment_file(self, source: str, target: str, window: Optional[int] = None, overlap: Optional[int] = None,
                     bands: Optional[Sequence[int]] = None, scale_range: Optional[Sequence[float]] = None,
                     skip_existing: bool = False) -> np.ndarray:
        """Segments an image of any size, window by window at its own resolution: steps of the test pipeline that
        resize are left out. ``batch_size`` windows are predicted at once.

        Args:
            source: a GeoTIFF, JPEG 2000 or what else rasterio reads; without rasterio what OpenCV reads.
            target: the TIFF to write: one band of class ids, tiled and compressed, with the source's place on earth
                and a colour table; an overview to look at is written beside it, ``NAME_overlay.jpg``.
            window: side of the windows in pixels. Default: ``crop_size`` and ``stride`` of the config's
                ``test_cfg`` if that slides, else 1024.
            overlap: of neighbouring windows, in pixels. Default: a quarter of ``window``.
            bands: those to read, counted from 1, in the order of the model's channels. Default: those of the config's
                ``LoadRaster``, else the first.
            scale_range: the values that become 0 and 255. Default: that of ``LoadRaster``; 8 bits stay as they are;
                of others the 2nd and 98th percentile of an overview, unless the config reads files as they are.
            skip_existing: go on where an earlier call with the same arguments was stopped.

        Returns:
            How many pixels each class has, without those that have no data.

        Raises:
            InputError: if the image cannot be read, or an option does not fit it.
        """
        if self.why_no_windows:
            raise InputError(self.why_no_windows)
        windows = Windows(window, overlap, bands, scale_range)
        with memory_errors():
            return segment_raster(self.backend, self._loading, os.fspath(source), os.fspath(target), windows,
                                  skip_existing, self.batch_size)

    @property
    def why_no_windows(self) -> str:
        """Why :meth:`segment_file` refuses all files; empty if it does not."""
        if not isinstance(self.backend, TorchBackend):
            return 'an exported file cannot segment window by window: give the checkpoint in its place'
        no = self.backend.is_tta or self.probabilities
        return 'window by window there are neither --tta nor probabilities: leave them out' if no else ''

    def _results(self, sources: Iterable[Source]) -> Iterator[SegmentationResult]:
        for _, result in self.outcomes(sources):
            if isinstance(result, Exception):
                raise result
            yield result

    def outcomes(self, sources: Iterable[Source]) -> Iterator[Tuple[Source, Union[SegmentationResult, Exception]]]:
        """Each image with its result, or the error that there is none: what fails does not keep the others back.

        An error that is no :class:`UserError` is a fault, and meant to be raised. If ``sources`` itself raises, it does
        so after all images before.
        """
        batch: List[Tuple[Source, Prepared]] = []

        def kept() -> Iterator[Tuple[Source, Any]]:
            try:
                for source in sources:
                    yield source, _attempt(self._loading.keep, source)
            except Exception as error:  # of a generator
                yield END, error

        def prepare(pair: Tuple[Source, Any]) -> Union[Prepared, Exception]:
            return pair[1] if isinstance(pair[1], Exception) else _attempt(self.prepare, pair[1])

        for (source, _), prepared in read_ahead(prepare, kept(), depth=self.batch_size + 1):
            failed = isinstance(prepared, Exception)
            if failed or len(batch) == self.batch_size or batch and (
                    prepared.data['img'].shape != batch[0][1].data['img'].shape):
                yield from self._predict(batch)
                batch = []
            if source is END:
                raise prepared
            if failed:
                yield source, prepared
            else:
                batch.append((source, prepared))
        yield from self._predict(batch)

    def _predict(self, batch: List[Tuple[Source, Prepared]]
                 ) -> Iterator[Tuple[Source, Union[SegmentationResult, Exception]]]:
        try:
            with memory_errors():
                predictions = self.backend.predict([image.data for _, image in batch]) if batch else []
        except UserError as error:
            if len(batch) == 1:
                yield batch[0][0], error
            else:  # they may fit one by one
                for pair in batch:
                    yield from self._predict([pair])
            return
        for (source, prepared), (mask, probabilities) in zip(batch, predictions):
            yield source, SegmentationResult(prepared.image, mask, self.classes, self.palette, probabilities)

    def prepare(self, source: Union[Source, Callable[[], dict]]) -> Prepared:
        """Loads an image, or what was kept of it, and takes it through the pipeline; raises as a call does."""
        loaded = source() if callable(source) else self._loading.keep(source)()
        try:
            image = self._loading.show(loaded['img'])  # a copy: the pipeline may change what was loaded
            return Prepared(image, self.backend.prepare(loaded))
        except (cv2.error, MemoryError) as error:  # OpenCV: of an image that cannot be resized
            name = loaded.get('img_path') or 'an image from memory'
            raise InputError(f'{name}: cannot be prepared for the network: {error}') from error


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    """What a function returns, or the error that it raises, with its traceback."""
    try:
        return function(argument)
    except Exception as error:
        return error
