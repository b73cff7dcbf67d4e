"""Pictures of the samples as they enter the network."""
import itertools
import os.path as osp
from typing import Iterator, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from mmengine.utils import mkdir_or_exist
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from mmseg_inceptionnext.datasets.labels import label_error, range_problem
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference.overlay import draw_overlay

STRIPE, PERIOD = 2, 10  # pixels: width of the stripes over ignored pixels, and the distance from one to the next
GAP = 8  # pixels between the image and the painted image


class Sample(NamedTuple):
    """What enters the network.

    Attributes:
        path: of the image file.
        image: H x W x 3, uint8, RGB: the network's input, un-normalised, with the padding.
        label: H x W, the class id of each pixel, or ``ignore_index``; None if there is no label.
    """
    path: str
    image: np.ndarray
    label: Optional[np.ndarray]


class Samples:
    """Iterates over the samples of a split in the order and with the augmentations of the runner.

    They come out of the runner's own data loader and data preprocessor. With ``randomness.seed`` in the config they are
    those that a run with this seed starts with, in one process; without it they are drawn anew each time.

    Args:
        cfg: a full config, see ``mmseg_inceptionnext.apis.load_config``.
        split: ``train``, ``val`` or ``test``.

    Attributes:
        classes, palette: of the dataset.
        ignore_index: the value of labels that the dataset ignores.

    Raises:
        ValueError: if the config has no such data loader, the dataset names no classes, or the data preprocessor
            cannot be built.
    """

    def __init__(self, cfg: Config, split: str = 'train') -> None:
        loader_cfg = cfg.get(f'{split}_dataloader')
        if not loader_cfg:
            raise InputError(f'the config has no {split}_dataloader; choose another one with --split')
        init_default_scope(cfg.get('default_scope') or 'mmseg')
        self._training = split == 'train'
        self._build_preprocessor(cfg)
        randomness = cfg.get('randomness', {})
        self._loader = Runner.build_dataloader(loader_cfg, set_random_seed(randomness.get('seed')),
                                               randomness.get('diff_rank_seed', False))
        dataset = self._loader.dataset
        self.classes = tuple(dataset.metainfo.get('classes') or ())
        if not self.classes:
            raise InputError(f'the dataset of {split}_dataloader names no classes: add metainfo=dict(classes=(...))')
        self.palette = dataset.metainfo['palette']
        self.ignore_index = getattr(dataset, 'ignore_index', 255)

    def __iter__(self) -> Iterator[Sample]:
        """Yields the samples; without an end if the sampler has none.

        Raises:
            SampleError: if a file is broken, or a label holds values that are neither a class nor ignored.
            ValueError: if the input of the network has other than three channels.
        """
        for batch in self._loader:
            data = self._preprocessor(batch, self._training)
            for inputs, sample in zip(data['inputs'], data['data_samples']):
                image = self._image(inputs)
                yield Sample(sample.img_path, image, self._label(sample, image.shape[:2]))

    def _label(self, sample: SegDataSample, shape: Tuple[int, int]) -> Optional[np.ndarray]:
        if 'gt_sem_seg' not in sample:
            return None
        label = sample.gt_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
        problem = range_problem(label, len(self.classes), self.ignore_index, sample.get('reduce_zero_label', False))
        if problem:
            raise label_error(sample.get('seg_map_path', sample.img_path), problem)
        if label.shape == shape:
            return label
        return self._fit(label, sample, shape)

    def _fit(self, label: np.ndarray, sample: SegDataSample, shape: Tuple[int, int]) -> np.ndarray:
        """In evaluation a label keeps its original size; here it is resized to the image, and padded as it is."""
        left, right, top, bottom = padding(sample)
        size = shape[1] - left - right, shape[0] - top - bottom
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        return np.pad(label, ((top, bottom), (left, right)), constant_values=self.ignore_index)

    def _build_preprocessor(self, cfg: Config) -> None:
        settings = cfg.get('model', {}).get('data_preprocessor') or cfg.get('data_preprocessor')
        if not settings:
            raise InputError("the config's model has no data_preprocessor, which makes the input of the network")
        try:
            self._preprocessor = MODELS.build(settings)
        except Exception as error:  # every class has its own errors for settings that it does not know
            raise InputError(f'the data_preprocessor of the config cannot be built: {error}') from error
        self._is_rgb = settings.get('bgr_to_rgb', False)  # images are loaded as BGR

    def _image(self, inputs: Tensor) -> np.ndarray:
        if len(inputs) != 3:
            raise InputError(f"the network's input has {len(inputs)} channels; only images with three can be shown")
        if getattr(self._preprocessor, '_enable_normalize', False):
            inputs = inputs * self._preprocessor.std + self._preprocessor.mean
        image = inputs.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return image if self._is_rgb else image[..., ::-1]


def padding(sample: SegDataSample) -> Tuple[int, int, int, int]:
    """Pixels that the data preprocessor added to an image: left, right, top, bottom."""
    return tuple(sample.get('img_padding_size', sample.get('padding_size', (0, 0, 0, 0))))


def draw_sample(sample: Sample, samples: Samples) -> Image.Image:
    """The image, and beside it the image painted with its labels, with a legend. Ignored pixels are dark and striped.

    Without labels it is the image alone.
    """
    image = Image.fromarray(np.ascontiguousarray(sample.image))
    if sample.label is None:
        return image
    ignored = sample.label == samples.ignore_index
    mask = np.where(ignored, len(samples.classes), sample.label)
    classes, palette = (*samples.classes, 'ignored (striped)'), [*samples.palette, [0, 0, 0]]
    painted = np.array(draw_overlay(sample.image, mask, classes, palette))
    rows, cols = np.nonzero(ignored)
    stripes = (rows + cols) % PERIOD < STRIPE
    painted[rows[stripes], cols[stripes]] = 255
    canvas = Image.new('RGB', (image.width + GAP + painted.shape[1], painted.shape[0]), 'white')
    canvas.paste(image, (0, 0))
    canvas.paste(Image.fromarray(painted), (image.width + GAP, 0))
    return canvas


def draw_samples(samples: Samples, num: int, out_dir: str) -> List[str]:
    """Writes ``000_NAME.png`` for the first sample, whose image is NAME, and so on.

    Args:
        samples: what to draw.
        num: how many; fewer if there are not so many.
        out_dir: folder for the pictures; made if it is not there.

    Returns:
        The paths written.
    """
    mkdir_or_exist(out_dir)
    paths = []
    for i, sample in enumerate(itertools.islice(samples, num)):
        name = osp.splitext(osp.basename(sample.path))[0]
        paths.append(osp.join(out_dir, f'{i:03d}_{name}.png'))
        draw_sample(sample, samples).save(paths[-1])
    return paths
