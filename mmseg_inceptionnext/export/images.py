"""Images to compare an exported file on, or to measure it on."""
import os.path as osp
import tempfile
from contextlib import contextmanager
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import make_toy_ade20k
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.inputs import list_images
from mmseg_inceptionnext.inference.onnx_backend import to_pixels
from mmseg_inceptionnext.parts import first_dataset

COUNT = 5


@contextmanager
def find_images(given: Optional[Sequence[str]], config: str) -> Iterator[Tuple[List[str], str]]:
    """Files, and words that say which they are: those given, else the first of the config's test set, else drawn ones.

    Raises:
        UserError: if there is no such config, or what is given names no image.
    """
    if given:
        paths = list_images(given)
        yield paths, f'{len(paths)} image{"s" * (len(paths) > 1)} of {" ".join(given)}'
        return
    cfg = load_config(config)
    init_default_scope('mmseg')
    try:
        dataset = DATASETS.build(dict(first_dataset(cfg, 'test'), pipeline=[]))
        paths, reason = [dataset.get_data_info(i)['img_path'] for i in range(min(COUNT, len(dataset)))], 'it is empty'
    except Exception as error:  # a dataset that is not there has an error for each of its kinds
        paths, reason = [], str(error) or type(error).__name__
    if paths:
        yield paths, f'the first {len(paths)} images of the test set'
        return
    with tempfile.TemporaryDirectory() as folder:
        make_toy_ade20k(folder, num_train=1, num_val=COUNT, seed=0)
        yield list_images([osp.join(folder, 'images/validation')]), (
            f'{COUNT} drawn scenes, since the test set of the config cannot be read ({reason}); --images takes others')


def pixels_of(segmenter: Segmenter, path: str) -> np.ndarray:
    """What the graph gets of a file, see :func:`to_pixels`; an InputError that names it if it is too small."""
    pixels = to_pixels(segmenter.prepare(path).data['img'])
    height, width = pixels.shape[2:]
    stride = getattr(segmenter.model.backbone, 'output_stride', 1)
    if min(height, width) < stride:
        raise InputError(f'{path}: an image of {height} x {width} pixels (H x W) is too small: each side must be at '
                         f'least {stride}, the stride of the last output; leave it out')
    return pixels
