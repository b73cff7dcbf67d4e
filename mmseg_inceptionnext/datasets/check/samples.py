"""Checks the pairs of image and label of a dataset."""
from typing import List, Optional, Tuple

import cv2
import numpy as np
from mmseg.datasets import BaseSegDataset
from torch.utils.data import Dataset

from mmseg_inceptionnext.datasets.files import load
from mmseg_inceptionnext.datasets.folders import loaders
from mmseg_inceptionnext.datasets.labels import range_problem, shape_problem, wide_problem

from .report import Problem


class Samples(Dataset):
    """What is found in each pair; a dataset itself, so that PyTorch's loader shares the work among processes.

    Attributes:
        values: what ``LoadAnnotations`` makes of each of the 256 values of a label file, uint8.
    """

    def __init__(self, dataset: BaseSegDataset) -> None:
        self.dataset, self.loaders = dataset, loaders(dataset.pipeline)
        self.has_labels = dataset.data_prefix.get('seg_map_path') is not None and 'seg_map_path' in self.loaders
        self.values = mapped_values(dataset.reduce_zero_label, dataset.label_map)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tuple[List[Problem], Optional[np.ndarray]]:
        """All that is wrong with a pair, and the pixels of each of the 256 values of its label file, if it can be used.

        Raises nothing, as the other pairs must be checked too.
        """
        info, problems, shape = self.dataset.get_data_info(index), [], None
        try:
            shape = load(info['img_path'], self.loaders['img_path']).shape
        except ValueError as error:
            problems.append(Problem('error', 'unreadable image', info['img_path'], str(error)))
        if not self.has_labels:
            return problems, None
        path = info['seg_map_path']
        try:
            label = load(path, self.loaders['seg_map_path']).squeeze()
        except ValueError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            kind = 'image without label' if missing else 'unreadable label'
            return [*problems, Problem('error', kind, path, str(error))], None
        if path.lower().endswith(('.jpg', '.jpeg')):
            problems.append(Problem('error', 'lossy label', path, 'a JPEG does not keep the values of its pixels: save '
                                    'the label as PNG, from the original and not from this file'))
        problem = shape_problem(label, shape) or wide_problem(label)
        if problem:
            return [*problems, Problem('error', 'label', path, problem)], None
        label = label.astype(np.uint8)
        mapped, dataset = cv2.LUT(label, self.values), self.dataset
        problem = range_problem(mapped, len(dataset.metainfo['classes']), dataset.ignore_index,
                                dataset.reduce_zero_label)
        if problem:
            problems.append(Problem('error', 'label values', path, problem))
        elif (mapped == dataset.ignore_index).all():
            problems.append(Problem('warning', 'nothing labelled', path, 'all pixels are ignored'))
        return problems, np.bincount(label.ravel(), minlength=256)


def mapped_values(reduce_zero_label: bool, label_map: Optional[dict]) -> np.ndarray:
    """What MMSegmentation's ``LoadAnnotations`` makes of each of the 256 values of a label file: 256 x uint8."""
    values = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        values = np.concatenate([[255], values[:254], [255]]).astype(np.uint8)
    before = values.copy()
    for old, new in (label_map or {}).items():
        values[before == old] = new
    return values
