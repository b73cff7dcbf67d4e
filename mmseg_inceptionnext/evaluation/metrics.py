"""Segmentation metrics."""
from typing import Dict, List, Tuple

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """MMSegmentation's ``IoUMetric``, summed in double precision and returned unrounded.

    The stock metric adds pixel counts in single precision, which stops counting every pixel above 2^24 of a class,
    and rounds to two decimals. Takes the same arguments and returns the same names, in percent. Classes that occur
    neither in the labels nor in the predictions do not enter the means, and the table leaves them out.
    """

    def compute_metrics(self, results: List[Tuple[Tensor, ...]]) -> Dict[str, float]:
        """Means over the classes of each metric, in percent.

        Args:
            results: for each image the areas of intersection, union, prediction and label, in pixels of each class.
        """
        if self.format_only:
            return super().compute_metrics(results)
        areas = [sum(area.double() for area in areas) for areas in zip(*results)]
        ratios = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        means = {name if name == 'aAcc' else f'm{name}': 100 * float(np.nanmean(value))
                 for name, value in ratios.items()}
        present = np.flatnonzero((areas[2] + areas[3]).numpy())
        self._print_table({name: value for name, value in ratios.items() if name != 'aAcc'}, present)
        return means

    def _print_table(self, ratios: Dict[str, np.ndarray], present: np.ndarray) -> None:
        classes = self.dataset_meta['classes']
        table = PrettyTable(['class', *ratios], align='r')
        table.align['class'] = 'l'
        for i in present:
            table.add_row([classes[i], *(f'{100 * value[i]:.2f}' for value in ratios.values())])
        absent = len(classes) - len(present)
        note = f'\n{absent} more classes occur neither in the labels nor in the predictions' if absent else ''
        print_log(f'per class, in percent:\n{table}{note}', logger='current')
