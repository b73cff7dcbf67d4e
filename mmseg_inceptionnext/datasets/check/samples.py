"""Checks the pairs of image and label of a dataset."""
from typing import List, Optional, Tuple

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from torch.utils.data import Dataset

from mmseg_inceptionnext.datasets.files import load
from mmseg_inceptionnext.datasets.labels import range_problem, shape_problem, wide_problem
from mmseg_inceptionnext.datasets.steps import loading_steps, run

from .report import Problem


class Samples(Dataset):
    """What is found in each pair; a dataset itself, so that PyTorch's loader shares the work among processes.

    Files are read as the pipeline reads them: where it is not by ``LoadImageFromFile`` and ``LoadAnnotations``, its own
    steps are run.

    Attributes:
        image_step: the step that loads images, or None.
        has_own_labels: labels come from other steps than ``LoadAnnotations``, so that what counts is what these make.
        has_labels: there are labels.
        values: what the loading makes of each of the 256 values of a label, uint8.
    """

    def __init__(self, dataset: BaseSegDataset) -> None:
        self.dataset = dataset
        self.image_step, self._label_steps = loading_steps(dataset.pipeline)
        self.has_own_labels = [type(step) for step in self._label_steps] not in ([], [LoadAnnotations])
        self.has_labels = self.has_own_labels or bool(self._label_steps) and (
            dataset.data_prefix.get('seg_map_path') is not None)
        self.values = mapped_values(*(False, None) if self.has_own_labels else (
            dataset.reduce_zero_label, dataset.label_map))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tuple[List[Problem], Optional[np.ndarray]]:
        """All that is wrong with a pair, and the pixels of each of the 256 values of its label, if it can be used.

        Raises nothing, as the other pairs must be checked too.
        """
        info, problems = self.dataset.get_data_info(index), []
        path = info.get('seg_map_path', info['img_path'])
        try:
            image = self._load_image(info)
        except ValueError as error:
            problems.append(Problem('error', 'unreadable image', info['img_path'], str(error)))
            image = {}
        if not self.has_labels or self.has_own_labels and not image:  # which may need the image
            return problems, None
        try:
            label = self._load_label(info, image)
        except ValueError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            kind = 'image without label' if missing else 'unreadable label'
            return [*problems, Problem('error', kind, path, str(error))], None
        return self._judge(path, label, image.get('ori_shape'), problems)

    def _load_image(self, info: dict) -> dict:
        if type(self.image_step) is LoadImageFromFile:
            image = load(info['img_path'], self.image_step)
            return dict(info, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        image = run([self.image_step], dict(info))
        if image.get('img') is None:
            raise ValueError(f'{type(self.image_step).__name__}, with which the pipeline begins, gives no image')
        return dict(dict(ori_shape=image['img'].shape[:2]), **image)

    def _load_label(self, info: dict, image: dict) -> np.ndarray:
        if not self.has_own_labels:
            return load(info['seg_map_path'], self._label_steps[0]).squeeze()
        label = run(self._label_steps, dict(image)).get('gt_seg_map')
        if label is None:
            raise ValueError(f'{type(self._label_steps[-1]).__name__} gives no gt_seg_map')
        return np.asarray(label)

    def _judge(self, path: str, label: np.ndarray, shape: Optional[tuple], problems: List[Problem]) -> tuple:
        dataset, is_own = self.dataset, self.has_own_labels
        if path.lower().endswith(('.jpg', '.jpeg')) and not is_own:
            problems.append(Problem('error', 'lossy label', path, 'a JPEG does not keep the values of its pixels: save '
                                    'the label as PNG, from the original and not from this file'))
        problem = shape_problem(label, shape) or (None if is_own else wide_problem(label))
        if problem:
            return [*problems, Problem('error', 'label', path, problem)], None
        label = label if is_own else label.astype(np.uint8)
        mapped = label if is_own else cv2.LUT(label, self.values)
        problem = range_problem(mapped, len(dataset.metainfo['classes']), dataset.ignore_index,
                                dataset.reduce_zero_label)
        if problem:
            problems.append(Problem('error', 'label values', path, problem))
        elif (mapped == dataset.ignore_index).all():
            problems.append(Problem('warning', 'nothing labelled', path, 'all pixels are ignored'))
        return problems, _counts(label, dataset.ignore_index)


def _counts(label: np.ndarray, ignore_index: int) -> Optional[np.ndarray]:
    """The pixels of each of 256 values; None if there are others, and what is ignored, as 255, is not all of them."""
    if label.dtype != np.uint8:
        label = np.where(label == ignore_index, 255, label)
        if wide_problem(label):
            return None
    return np.bincount(label.astype(np.uint8).ravel(), minlength=256)


def mapped_values(reduce_zero_label: bool, label_map: Optional[dict]) -> np.ndarray:
    """What MMSegmentation's ``LoadAnnotations`` makes of each of the 256 values of a label file: 256 x uint8."""
    values = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        values = np.concatenate([[255], values[:254], [255]]).astype(np.uint8)
    before = values.copy()
    for old, new in (label_map or {}).items():
        values[before == old] = new
    return values
