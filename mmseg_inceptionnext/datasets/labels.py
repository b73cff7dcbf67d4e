"""The one place that says what is wrong with a label."""
from typing import Optional

import cv2
import numpy as np

from mmseg_inceptionnext.errors import LabelError


def label_error(path: str, problem: str) -> LabelError:
    """The error of one label."""
    return LabelError(f'{path}: {problem}; python tools/check_dataset.py CONFIG lists every such label')


def wide_problem(values: np.ndarray) -> Optional[str]:
    """Says which values of a decoded label, of any type, MMSegmentation's cast to uint8 would change, or None."""
    if values.dtype in (np.bool_, np.uint8):
        return None
    with np.errstate(invalid='ignore'):
        wrong = np.unique(values[values != values.astype(np.uint8)])
    if not len(wrong):
        return None
    return (f'the label has values, {listed(wrong)}, that are no 8-bit integers, as which MMSegmentation reads them: '
            'save it as 8-bit class ids')


def shape_problem(label: np.ndarray, image_shape: Optional[tuple]) -> Optional[str]:
    """Says why a label cannot belong to an image, or None.

    Args:
        label: as loaded, H x W if it is right; sides of length 1 are gone, which is how MMSegmentation loads labels.
        image_shape: height and width of the image, or None if it is not known.
    """
    if label.ndim > 2:
        grey = bool((label == label[..., :1]).all())
        return (f'the label has {label.shape[-1]} channels, as of a picture in colours: save a single channel of class '
                'ids' + ' (here all channels are equal: save one of them)' * grey)
    if label.ndim < 2:
        return 'the label has a side of one pixel, which MMSegmentation cannot load: take image and label out'
    if image_shape is not None and label.shape != tuple(image_shape[:2]):
        turned = label.shape == tuple(image_shape[1::-1])
        return ('the label has {} x {} pixels (H x W), its image {} x {}'.format(*label.shape, *image_shape[:2]) +
                ' as it is read: an EXIF orientation may have turned it' * turned)
    return None


def range_problem(label: np.ndarray, num_classes: int, ignore_index: int, reduce_zero_label: bool) -> Optional[str]:
    """Says which values of a label are neither a class nor ignored, or None.

    Args:
        label: H x W, as loaded, uint8 if by MMSegmentation: after ``reduce_zero_label`` and ``label_map``.
        num_classes: ids from 0 to ``num_classes - 1`` are classes.
        ignore_index: allowed too.
        reduce_zero_label: the dataset's setting, for the message.
    """
    if label.dtype == np.uint8:
        wrong = np.ones(256, np.uint8)
        wrong[:num_classes] = 0
        if 0 <= ignore_index < 256:
            wrong[ignore_index] = 0
        found = label[cv2.LUT(label, wrong) > 0]
    else:
        found = label[~((label >= 0) & (label < num_classes) & (label == np.floor(label)) | (label == ignore_index))]
    if not found.size:
        return None
    how = ('LoadAnnotations ignores the value 0 of the file and every other counts one less' if reduce_zero_label else
           'LoadAnnotations takes the values of the file as they are')
    values = listed(np.unique(found).astype(float))
    return (f'the label values {values} ({found.size} pixels) are out of range: allowed are 0 to {num_classes - 1}, '
            f'and {ignore_index} for pixels to ignore. Look at two settings of the dataset: num_classes={num_classes} '
            f'(how many classes it names) and reduce_zero_label={reduce_zero_label} ({how})')


def listed(values: np.ndarray, limit: int = 8) -> str:
    """The first of several values, as text."""
    return ', '.join(f'{value:g}' for value in values[:limit]) + ' ...' * (len(values) > limit)
