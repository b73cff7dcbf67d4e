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
from torch.utils.data import DataLoader

from mmseg_inceptionnext.datasets.labels import label_error, range_problem
from mmseg_inceptionnext.engine.check import built_from
from mmseg_inceptionnext.errors import ConfigError, InputError
from mmseg_inceptionnext.inference.overlay import draw_overlay

STRIPE, PERIOD = 2, 10  # pixels: width of the stripes over ignored pixels, and the distance from one to the next
GAP = 8  # pixels between the image and the painted image


class Sample(NamedTuple):
    """What enters the network.

    Attributes:
        path: of the image file.
        image: H x W x 3, uint8, RGB: the network's input, un-normalised, with the padding.
        label: H x W, the class id of each pixel, ignored ones ``len(classes)``; None if there is no label.
        classes, palette: of the dataset.
    """
    path: str
    image: np.ndarray
    label: Optional[np.ndarray]
    classes: Tuple[str, ...]
    palette: List[List[int]]


def read_samples(cfg: Config, split: str = 'train') -> Iterator[Sample]:
    """The samples of a split in the order and with the augmentations of the runner; without end if it trains.

    They come out of the runner's own data loader and data preprocessor. With ``randomness.seed`` in the config they are
    those that a run with this seed starts with, in one process; without it they are drawn anew each time.

    Args:
        cfg: a full config, see :func:`mmseg_inceptionnext.config.load_config`.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: if the settings of the data loader cannot be used.
        InputError: if the config has no such data loader, the dataset names no classes, the data preprocessor cannot be
            built, or the input of the network has other than three channels.
        SampleError: if a file cannot be used, or a label holds values that are neither a class nor ignored.
    """
    if not cfg.get(f'{split}_dataloader'):
        raise InputError(f'the config has no {split}_dataloader; choose another one with --split')
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    settings = cfg.get('model', {}).get('data_preprocessor') or cfg.get('data_preprocessor')
    try:
        preprocessor = MODELS.build(settings)
    except Exception as error:  # every class has its own errors for settings that it does not know
        raise InputError(f'the data_preprocessor of the config cannot be built: {error}') from error
    randomness = cfg.get('randomness', {})
    with built_from(f'{split}_dataloader'):
        loader = Runner.build_dataloader(cfg[f'{split}_dataloader'], set_random_seed(randomness.get('seed')),
                                         randomness.get('diff_rank_seed', False))
    metainfo, ignore_index = loader.dataset.metainfo, getattr(loader.dataset, 'ignore_index', 255)
    if not metainfo.get('classes'):
        raise InputError(f'the dataset of {split}_dataloader names no classes: add metainfo=dict(classes=(...))')
    classes = tuple(metainfo['classes'])
    for batch in _batches(loader, f'{split}_dataloader'):
        data = preprocessor(batch, split == 'train')
        for inputs, sample in zip(data['inputs'], data['data_samples']):
            if len(inputs) != 3:
                raise InputError(f"the network's input has {len(inputs)} channels; only images with three can be shown")
            if getattr(preprocessor, '_enable_normalize', False):
                inputs = inputs * preprocessor.std + preprocessor.mean
            image = inputs.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
            image = image if settings.get('bgr_to_rgb') else image[..., ::-1]  # images are loaded as BGR
            label = _label(sample, image.shape[:2], len(classes), ignore_index)
            yield Sample(sample.img_path, np.ascontiguousarray(image), label, classes, metainfo['palette'])


def _batches(loader: DataLoader, name: str) -> Iterator[dict]:
    """The batches of a loader; a ConfigError that names it if there is none, or the network could not take it."""
    batches, done = None, object()
    while True:
        with built_from(name):
            batches = batches or iter(loader)
            batch = next(batches, done)
        if batch is done:
            return
        if not isinstance(batch, dict) or not {'inputs', 'data_samples'} <= set(batch):
            raise ConfigError(f"the pipeline of {name} gives no input of the network: add dict(type='PackSegInputs') "
                              'as its last step')
        yield batch


def _label(sample: SegDataSample, shape: Tuple[int, int], num_classes: int, ignore_index: int) -> Optional[np.ndarray]:
    if 'gt_sem_seg' not in sample:
        return None
    label = sample.gt_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
    problem = range_problem(label, num_classes, ignore_index, sample.get('reduce_zero_label', False))
    if problem:
        raise label_error(sample.get('seg_map_path', sample.img_path), problem)
    if label.shape != shape:  # in evaluation a label keeps its original size; here it is made to fit the image
        left, right, top, bottom = padding(sample)
        size = shape[1] - left - right, shape[0] - top - bottom
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        label = np.pad(label, ((top, bottom), (left, right)), constant_values=ignore_index)
    return np.where(label == ignore_index, num_classes, label)


def padding(sample: SegDataSample) -> Tuple[int, int, int, int]:
    """Pixels that the data preprocessor added to an image: left, right, top, bottom."""
    return tuple(sample.get('img_padding_size', sample.get('padding_size', (0, 0, 0, 0))))


def draw_sample(sample: Sample) -> Image.Image:
    """The image, and beside it, if it has labels, the image painted with them, ignored pixels striped, and a legend."""
    image = Image.fromarray(sample.image)
    if sample.label is None:
        return image
    painted = np.array(draw_overlay(
        sample.image, sample.label, (*sample.classes, 'ignored (striped)'), [*sample.palette, [0, 0, 0]]))
    rows, cols = np.nonzero(sample.label == len(sample.classes))
    stripes = (rows + cols) % PERIOD < STRIPE
    painted[rows[stripes], cols[stripes]] = 255
    canvas = Image.new('RGB', (image.width + GAP + painted.shape[1], painted.shape[0]), 'white')
    canvas.paste(image, (0, 0))
    canvas.paste(Image.fromarray(painted), (image.width + GAP, 0))
    return canvas


def draw_samples(cfg: Config, split: str, num: int, out_dir: str) -> List[str]:
    """Writes ``000_NAME.png`` for the first of ``num`` samples, whose image is NAME, and so on; returns the paths."""
    paths = []
    for i, sample in enumerate(itertools.islice(read_samples(cfg, split), num)):
        mkdir_or_exist(out_dir)
        paths.append(osp.join(out_dir, f'{i:03d}_{osp.splitext(osp.basename(sample.path))[0]}.png'))
        draw_sample(sample).save(paths[-1])
    return paths
