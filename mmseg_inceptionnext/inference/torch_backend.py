"""Predicts with a checkpoint, through the config's own test pipeline."""
from contextlib import contextmanager, nullcontext
from typing import ContextManager, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseDataPreprocessor
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_inceptionnext.checkpoints import (
    check_segmentor,
    embedded_config,
    guarded_build,
    load_source,
    safe_checkpoints,
)
from mmseg_inceptionnext.checkpoints.compare import segmentor_weights
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.config import build_model, load_config, metainfo_of
from mmseg_inceptionnext.datasets.steps import never_packs
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.evaluation.protocol import apply_protocol, without_labels
from mmseg_inceptionnext.models import fuse
from mmseg_inceptionnext.models.compiled import compile_model
from mmseg_inceptionnext.models.decode_heads.fixed_bases import fix_bases
from mmseg_inceptionnext.models.fuse import cast_convolutions, convolve_by_winograd
from mmseg_inceptionnext.models.segmentors import RunningSumTTAModel
from mmseg_inceptionnext.models.segmentors.modes import mode_problem
from mmseg_inceptionnext.models.winograd import WinogradConv2d
from mmseg_inceptionnext.parts import first_dataset, is_a, type_name

AMP_DTYPES = dict(fp16=torch.float16, bf16=torch.bfloat16)


class TorchBackend:
    """A segmentor in PyTorch; see :class:`mmseg_inceptionnext.Segmenter` for the arguments.

    Attributes:
        cfg: its config.
        model: the segmentor.
        classes, palette: name and colour of each class id.
        source, meta: where the checkpoint came from, and what it says of itself.
        is_fused: whether the model is fused, here or before it was saved.
        load: the pipeline's step that reads a file.
        prepare: takes what that gives through the pipeline, up to where it becomes a tensor.
    """

    def __init__(self, checkpoint: str, config: Optional[str], device: Optional[str], fuse_model: bool,
                 amp: Optional[str], tta: bool, trust_checkpoint: bool, probabilities: bool, compiles: bool) -> None:
        if amp not in (None, *AMP_DTYPES):
            raise InputError(f'--amp {amp}: allowed are {", ".join(AMP_DTYPES)}')
        self.amp, self.probabilities, self.is_tta = amp, probabilities, tta
        own_cfg = load_config(config) if config else None
        source = config or f'the config inside {checkpoint}'
        with safe_checkpoints(trust_checkpoint):
            loaded = load_source(checkpoint)
            weights = segmentor_weights(loaded, checkpoint)
            if 'stem.0.weight' in weights:
                raise InputError(f'{checkpoint} holds a classifier: tools/classify.py names what images show. A '
                                 'segmentor starts from it by model.backbone.init_cfg')
            self.cfg = own_cfg or embedded_config(loaded.meta, checkpoint)
            with nullcontext() if config else guarded_build(weights):
                self.model = build_model(self.cfg, source)
                check_preprocessor(self.model, source)
                self._build_pipeline(loaded, source, tta)
        problem = mode_problem(type(self.model), self.model.test_cfg)
        if problem:
            raise InputError(f'{source}: {problem}')
        if loaded.is_fused:
            fuse(self.model, inplace=True)
        check_segmentor(self.model, loaded, checkpoint)
        self.model.load_state_dict(weights)
        fix_bases(self.model)
        if len(self.classes) != self.model.num_classes:
            raise InputError(f'{checkpoint} names {len(self.classes)} classes, but its model predicts '
                             f'{self.model.num_classes}; give the config it was trained with by --config')
        move(self.model, device)
        if loaded.is_fused:
            convolve_by_winograd(self.model, WinogradConv2d.pays)  # by these weights, on this device
        elif fuse_model:
            fuse(self.model, inplace=True)
        self.source, self.meta, self.is_fused = checkpoint, loaded.meta, loaded.is_fused or fuse_model
        if amp:
            cast_convolutions(self.model, AMP_DTYPES[amp])
        if compiles:
            compile_model(self.model)
        self.model.data_preprocessor._non_blocking = self._is_on_gpu  # whose images are in pinned memory
        keeps_logits = probabilities or tta and not is_a(self._averaging, MODELS, RunningSumTTAModel)
        self.model.test_cfg = ConfigDict(self.model.test_cfg or {}, return_logits=keeps_logits)
        self._predictor = MODELS.build(dict(self._averaging, module=self.model)).eval() if tta else self.model
        if probabilities and tta and not getattr(self._predictor, 'keeps_one_sum', False):
            raise InputError(f'{type(self._predictor).__name__} over {type(self.model).__name__} gives no mean '
                             "probabilities; take tta_model=dict(type='RunningSumTTAModel') and "
                             "model.type='MemoryEfficientEncoderDecoder' in the config, or predict without --tta")

    def _build_pipeline(self, loaded: LoadedCheckpoint, source: str, tta: bool) -> None:
        cfg = self.cfg
        if not (first_dataset(cfg, 'test') or {}).get('pipeline'):
            raise InputError(f'{source} has no test_dataloader with a pipeline, which reads the images; give the '
                             'config that the model was trained with by --config')
        self.classes, self.palette = self._classes_of(loaded)
        if tta:
            cfg = Config(cfg.to_dict())
            apply_protocol(cfg, 'ms')
            self._averaging = cfg.model
        pipeline = without_labels(first_dataset(cfg, 'test').pipeline)
        if never_packs(pipeline):
            raise InputError(f'the test pipeline of {source} has no PackSegInputs, which makes the input of the '
                             "network: add dict(type='PackSegInputs') as its last step")
        try:
            self.load = Compose(pipeline[:1]).transforms[0]
            self.replace_pipeline(pipeline[1:])
        except Exception as error:  # every class has its own errors for settings that it does not know
            raise InputError(f'the test pipeline of {source} cannot be built: {type(error).__name__}: {error}'
                             ) from error

    def replace_pipeline(self, steps: List[dict]) -> None:
        """Puts other steps in the place of those after loading.

        From ``PackSegInputs`` or ``TestTimeAug`` on they make tensors. That is left to the thread that predicts: an
        operation of PyTorch in another thread starts OpenMP threads of its own, which then slow those of the model down
        by a tenth.
        """
        packing = [i for i, step in enumerate(steps) if type_name(step) in ('PackSegInputs', 'TestTimeAug')]
        first = packing[0] if packing else len(steps)
        self.prepare, self._pack = Compose(steps[:first]), Compose(steps[first:])

    def _classes_of(self, loaded: LoadedCheckpoint) -> Tuple[tuple, list]:
        classes, palette = loaded.classes()
        if not classes:
            dataset = first_dataset(self.cfg, 'test')
            of_config = metainfo_of(self.cfg, 'test') if 'type' in dataset else dataset.metainfo  # see embedded_config
            classes, palette = loaded.classes(of_config)
        if not classes:
            raise InputError('neither the checkpoint nor the dataset of the config names the classes; add '
                             'metainfo=dict(classes=(...), palette=[...]) to the dataset of the config')
        if len(palette) != len(classes):
            raise InputError(f'{len(classes)} classes are named and {len(palette)} colours; give each class one in '
                             'metainfo=dict(classes=(...), palette=[...]) of the dataset, and the config by --config')
        return classes, palette

    @property
    def _is_on_gpu(self) -> bool:
        return next(self.model.parameters()).is_cuda

    def batch(self, prepared: List[dict]) -> dict:
        """Some images of the same shape, as the segmentor's ``data_preprocessor`` takes them."""
        batch = pseudo_collate([self._pack(image) for image in prepared])
        if self._is_on_gpu:
            batch['inputs'] = _pinned(batch['inputs'])
        return batch

    def precision(self) -> ContextManager:
        """In which the model runs."""
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, AMP_DTYPES[self.amp]) if self.amp else nullcontext()

    @torch.no_grad()
    def predict(self, prepared: List[dict]) -> List[Tuple[np.ndarray, Optional[np.ndarray]]]:
        """Predicts some images of the same shape.

        Returns:
            For each its mask (H, W) and its probabilities (classes, H, W), float32, or None.
        """
        try:
            with self.precision():
                samples = self._predictor.test_step(self.batch(prepared))
        except (RuntimeError, AssertionError) as error:
            self._check_channels(prepared[0]['img'], error)
            raise
        few = len(self.classes) <= 256
        masks = [sample.pred_sem_seg.data.squeeze(0).to(torch.uint8 if few else torch.int32) for sample in samples]
        return [(mask.cpu().numpy().astype(np.uint8 if few else np.uint16, copy=False),
                 self._probabilities(sample) if self.probabilities else None) for mask, sample in zip(masks, samples)]

    def _check_channels(self, image: np.ndarray, error: Exception) -> None:
        """Raises an InputError if what failed was an image with other channels than the model takes."""
        there = image.shape[2] if image.ndim == 3 else 1
        taken = next((layer.in_channels for layer in self.model.modules() if isinstance(layer, nn.Conv2d)), there)
        if there != taken and 'memory' not in str(error):
            raise InputError(f'the image has {there} channel{"s" * (there > 1)} after the test pipeline, and the model '
                             f'takes {taken}: give images as it was trained on, or by --config a pipeline whose '
                             'loading step brings them there by color_type') from error

    def _probabilities(self, sample: SegDataSample) -> np.ndarray:
        scores = sample.seg_logits.data.float()
        if self.model.out_channels == 1:  # MMSegmentation gives the second class's probability here
            scores = torch.cat([1 - scores, scores])
        elif self._predictor is self.model:
            scores = scores.softmax(0)
        return scores.cpu().numpy()


def _pinned(images: Union[Tensor, list]) -> Union[Tensor, list]:
    """Images, or lists of images or views, in memory that a GPU copies from while the host goes on."""
    return images.pin_memory() if isinstance(images, Tensor) else [_pinned(image) for image in images]


@contextmanager
def memory_errors() -> Iterator[None]:
    """Makes an InputError of running out of memory, of a GPU or the host."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))
        if not known and 'DefaultCPUAllocator' not in str(error):  # PyTorch has no class for the host's
            raise
        raise InputError(f'out of memory: {str(error) or type(error).__name__}') from error


def check_preprocessor(model: nn.Module, source: str) -> None:
    """Raises an InputError if there is no ``data_preprocessor``, or the numbers that it normalises by are none."""
    own = model.data_preprocessor
    if type(own) is BaseDataPreprocessor and isinstance(model, EncoderDecoder):  # MMEngine's default, which stacks none
        raise InputError(f"{source}: the model has no data_preprocessor, which normalises images and makes a batch of "
                         "them: give the one of the training, dict(type='SegDataPreProcessor', mean=[...], std=[...], "
                         '...); of a model folder it stands in preprocessor.json')
    for name in ('mean', 'std'):
        values = getattr(own, name, None)
        if isinstance(values, Tensor) and not (values.isfinite().all() and (name == 'mean' or (values > 0).all())):
            raise InputError(f'{source}: data_preprocessor.{name} is {values.flatten().tolist()}: allowed are finite '
                             f'numbers{" above 0, by which images are divided" if name == "std" else ""}')


def move(model: nn.Module, device: Optional[str]) -> None:
    """Brings a model to a device, the best there is by default, to predict there.

    Raises:
        InputError: if the device cannot be used.
    """
    device = device or get_device()
    try:
        model.to(device).eval()
        torch.ones(1, device=device).cpu()  # which a device without values, as meta, cannot
    except (RuntimeError, AssertionError, ImportError) as error:  # of a PyTorch that was built without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f'--device {device} cannot be used here: {reason}; cpu always can') from error
