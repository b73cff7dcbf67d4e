"""Transforms of the data pipelines."""
from typing import Optional

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from .labels import label_error, range_problem, shape_problem


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Stops at a label that does not fit, with its name, before a loss on a GPU or a metric fails without one.

    Belongs right behind ``LoadAnnotations``. The datasets of this package say how many classes they have; behind
    another one give ``num_classes``, or the values are not checked. Without a label, as when images are only
    segmented, it does nothing.

    Args:
        num_classes: how many classes the labels may hold, ids from 0. Default: ``num_classes`` of the dataset.
        ignore_index: the value that is allowed beside them. Default: ``ignore_index`` of the dataset, else 255.
    """

    def __init__(self, num_classes: Optional[int] = None, ignore_index: Optional[int] = None) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Checks ``gt_seg_map`` of ``results`` and returns ``results``.

        Raises:
            LabelError: if the label has more than one channel, another size than the image, or values that are neither
                a class nor ignored.
        """
        label = results.get('gt_seg_map')
        if label is None:
            return results
        num_classes = self.num_classes or results.get('num_classes')
        ignore_index = results.get('ignore_index', 255) if self.ignore_index is None else self.ignore_index
        now = results.get('img_shape')  # after a Resize of both, the label has the size of the image as it is then
        fits = now is not None and label.shape == tuple(now[:2])
        problem = shape_problem(label, None if fits else results.get('ori_shape'))
        if not problem and num_classes:
            problem = range_problem(label, num_classes, ignore_index, results.get('reduce_zero_label', False))
        if problem:
            raise label_error(results.get('seg_map_path', 'a label'), problem)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, ignore_index={self.ignore_index})'
