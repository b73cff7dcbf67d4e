"""Transforms of the data pipelines."""
from typing import Optional

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from .files import misfit, shown


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Stops at a label that does not fit, with its name, before a loss on a GPU dies of it or a metric leaves it out.

    Belongs right behind ``LoadAnnotations``. The datasets of this package say how many classes they have; in front of
    another dataset ``num_classes`` must be given. Without a label, as when images are only segmented, it does nothing.

    Args:
        num_classes: how many classes the labels may hold, ids from 0. Default: ``num_classes`` of the dataset.
        ignore_index: the value that is allowed beside them. Default: ``ignore_index`` of the dataset, else 255.
    """

    def __init__(self, num_classes: Optional[int] = None, ignore_index: Optional[int] = None) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Looks at ``gt_seg_map`` of ``results`` and hands ``results`` on.

        Raises:
            LabelError: if the label has more than one channel, another size than the image, or values that are neither
                a class nor ignored.
            ValueError: if nothing says how many classes there are.
        """
        label = results.get('gt_seg_map')
        if label is None:
            return results
        num_classes = self.num_classes or results.get('num_classes')
        if num_classes is None:
            raise ValueError('CheckLabels does not know the number of classes, as the dataset is none of this package: '
                             "give it, as in dict(type='CheckLabels', num_classes=19)")
        ignore_index = results.get('ignore_index', 255) if self.ignore_index is None else self.ignore_index
        problem = shape_problem(label, results.get('ori_shape')) or range_problem(
            label, num_classes, ignore_index, results.get('reduce_zero_label', False))
        if problem:
            raise misfit(results.get('seg_map_path', 'a label'), problem)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index})'


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
        return (f'the label has {_size(label.shape)} pixels (H x W), its image {_size(image_shape)}' +
                ' as it is read: an EXIF orientation may have turned it' * turned)
    return None


def range_problem(label: np.ndarray, num_classes: int, ignore_index: int, reduce_zero_label: bool) -> Optional[str]:
    """Says which values of a label are neither a class nor ignored, or None.

    Args:
        label: H x W, uint8, as loaded: after ``reduce_zero_label`` and ``label_map``.
        num_classes: ids from 0 to ``num_classes - 1`` are classes.
        ignore_index: allowed too.
        reduce_zero_label: the dataset's setting, for the message.
    """
    wrong = np.ones(256, np.uint8)
    wrong[:num_classes] = 0
    if 0 <= ignore_index < 256:
        wrong[ignore_index] = 0
    if not cv2.LUT(label, wrong).any():
        return None
    counts = np.bincount(label.ravel(), minlength=256) * wrong
    return out_of_range(counts, num_classes, ignore_index, reduce_zero_label)


def out_of_range(counts: np.ndarray, num_classes: int, ignore_index: int, reduce_zero_label: bool) -> str:
    """The sentence for values out of range.

    Args:
        counts: pixels of each value that is neither a class nor ignored, 256 numbers.
    """
    how = ('the value 0 of the file is ignored and every other counts one less' if reduce_zero_label else
           'the values of the file are taken as they are')
    return (f'the label values {shown(np.flatnonzero(counts))} ({counts.sum()} pixels) are out of range: allowed are 0 '
            f'to {num_classes - 1}, and {ignore_index} for pixels to ignore. Look at two settings of the dataset: '
            f'num_classes={num_classes} (how many classes it names) and reduce_zero_label={reduce_zero_label} ({how})')


def _size(shape: tuple) -> str:
    return f'{shape[0]} x {shape[1]}'
