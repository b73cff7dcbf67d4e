"""The accuracy of classifiers."""
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from mmseg_inceptionnext.errors import InputError


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Share of the images, in percent, whose class is among the k most probable ones: ``top1``, ``top5``.

    Args:
        topk: the values of k, from 1 up to the number of classes.
        collect_device, prefix: as in MMEngine.

    Attributes:
        MEASURED, HEADLINES: as in :class:`ExactIoUMetric`; nothing is measured of each class.

    Raises:
        ValueError: for other ``topk``.
    """
    MEASURED: Dict[str, Tuple[str, ...]] = {}
    HEADLINES = ('top1', 'top5')
    TOPK = (1, 5)

    def __init__(self, topk: Sequence[int] = TOPK, collect_device: str = 'cpu', prefix: Optional[str] = None) -> None:
        super().__init__(collect_device, prefix)
        if not topk or not all(isinstance(k, int) and k > 0 for k in topk):
            raise InputError(f'topk={topk!r}: allowed are whole numbers from 1, such as (1, 5)')
        self.topk = tuple(topk)

    @classmethod
    def measured(cls, settings: dict) -> Tuple[List[str], List[str]]:
        """As :meth:`ExactIoUMetric.measured`."""
        return [f'top{k}' for k in settings.get('topk', cls.TOPK)], []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            best = sample['scores'].topk(min(max(self.topk), len(sample['scores']))).indices
            hits = (best == sample['label']).cpu()
            self.results.append([bool(hits[:k].any()) for k in self.topk])

    def compute_metrics(self, results: List[List[bool]]) -> Dict[str, float]:
        shares = torch.tensor(results, dtype=torch.float64).mean(0)
        return {f'top{k}': 100 * float(share) for k, share in zip(self.topk, shares)}
