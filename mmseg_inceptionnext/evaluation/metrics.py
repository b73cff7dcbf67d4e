"""Segmentation metrics."""
import os.path as osp
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log
from mmengine.utils import mkdir_or_exist
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from mmseg_inceptionnext.errors import ConfigError, LabelError
from mmseg_inceptionnext.parts import numbered

from .predictions import Target, label_values
from .report import ClassReport


@METRICS.register_module()
class ExactIoUMetric(IoUMetric):
    """MMSegmentation's ``IoUMetric`` from whole numbers, unrounded, with the metrics of each class and the confusion.

    The stock metric adds pixel counts in single precision, which stops counting every pixel above 2^24 of a class,
    and rounds to two decimals. Takes the same arguments and returns the same names, in percent. Classes that occur
    neither in the labels nor in the predictions do not enter the means. As in the stock metric, ``mFscore`` also leaves
    out classes of which no pixel is right, which ``mDice`` counts as 0.

    ``PerClassMetricsHook`` (in the configs' ``default_hooks``) adds the metrics of each class to a validation's, for
    ``AtomicCheckpointHook(save_best='IoU/road')`` and early stopping (there with ``rule='greater'``).

    With an ``output_dir``, predictions are written in the label values of the data set, see :func:`label_values`.

    Attributes:
        MEASURED: what is measured of each class, by ``iou_metrics``; the more, the better. Means begin with ``m``.
        HEADLINES: the means that summaries of runs show.
        per_class: such as ``{'IoU/road': 81.2, 'Acc/road': 90.1}``, in percent, NaN where nothing can be divided; on
            every process, after :meth:`evaluate`.
        report: names, ratios and confusion matrix of the classes; on the main process only.
        targets: the file of each image, see :func:`plan_targets`. Of others it has the image's name.
    """
    MEASURED = dict(mIoU=('IoU', 'Acc'), mDice=('Dice', 'Acc'), mFscore=('Fscore', 'Precision', 'Recall'))
    HEADLINES = ('mIoU', 'mAcc', 'aAcc')
    per_class: Dict[str, float] = {}
    report: Optional[ClassReport] = None
    targets: Dict[str, Target] = {}

    @classmethod
    def measured(cls, settings: dict) -> Tuple[List[str], List[str]]:
        """The names of the means that a metric with these settings gives, and of what it gives of each class."""
        of_class = list(dict.fromkeys(name for _, key in numbered('', settings.get('iou_metrics', ['mIoU']))
                                      for name in cls.MEASURED.get(key, ())))
        return ['aAcc', *(f'm{name}' for name in of_class)], of_class

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of a batch, and writes it as PNG if there is an ``output_dir``.

        Raises:
            LabelError: if a label is neither a class nor ``ignore_index``, or a prediction is no class; the stock
                metric would count such a pixel as wrong, or not at all.
            ConfigError: if a label has not the size of its image's file.
        """
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            predicted = sample['pred_sem_seg']['data'].squeeze()
            if self.format_only:
                self.results.append(sample['img_path'])
            else:
                self._check_range(sample)
                label = sample['gt_sem_seg']['data'].squeeze().to(predicted)
                self.results.append(self.intersect_and_union(predicted, label, classes, self.ignore_index))
            if self.output_dir is not None:
                self._write(sample, predicted.cpu().numpy().astype(np.int64))

    def _write(self, sample: dict, predicted: np.ndarray) -> None:
        path, meta = sample['img_path'], self.dataset_meta
        target = self.targets.get(path)
        if target is None:  # the stock tools plan nothing
            target = Target(osp.splitext(osp.basename(path))[0], sample.get('reduce_zero_label'), meta.get('label_map'))
        classes = max(len(meta['classes']), predicted.max() + 1)
        if target.values is None:
            values = label_values(classes, target.reduce_zero_label, target.label_map)
        else:
            values = np.array(target.values, np.uint8 if np.max(target.values) < 256 else np.uint16)
        file = osp.join(self.output_dir, f'{target.name}.png')
        mkdir_or_exist(osp.dirname(file))
        Image.fromarray(values[predicted]).save(file)

    def _check_range(self, sample: dict) -> None:
        classes = len(self.dataset_meta['classes'])
        label, prediction = sample['gt_sem_seg']['data'], sample['pred_sem_seg']['data']
        if label.shape[-2:] != prediction.shape[-2:]:
            raise ConfigError(
                '{}: the label has {} x {} pixels (H x W), the prediction, which is of the size of the file, {} x {}. '
                'An evaluation needs the label as its file has it: put LoadAnnotations after Resize, RandomCrop and '
                'whatever else changes sizes in the pipeline, or make the label as large as its image'.format(
                    sample['img_path'], *label.shape[-2:], *prediction.shape[-2:]))
        if prediction.max() >= classes:
            raise LabelError(
                f'{sample["img_path"]}: class {int(prediction.max())} is predicted, the dataset names {classes} '
                'classes; num_classes of the decode_head must be the number of classes of the dataset')
        wrong = label[(label >= classes) & (label != self.ignore_index)]
        if len(wrong):
            raise LabelError(
                f'{sample.get("seg_map_path") or sample["img_path"]}: the label holds {int(wrong.max())}; allowed are '
                f'0 to {classes - 1}, and {self.ignore_index} for what is ignored, after reduce_zero_label='
                f'{bool(sample.get("reduce_zero_label"))} of the dataset has been applied')

    @staticmethod
    def intersect_and_union(pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
                            ) -> Tuple[Tensor, ...]:
        """Counts the pixels of one image.

        Returns:
            As the stock metric, the areas of intersection, union, prediction and label, (classes,); and the confusion
            matrix, (classes, classes), sparse, rows label, columns prediction. All int64.
        """
        # One entry for each image, and no sum for each process: where the images do not divide evenly, samplers repeat
        # some, and MMEngine drops those when it collects the entries. A dense matrix would take 180 kB an image for
        # 150 classes; the pairs of label and prediction that occur in one image are some hundreds of the 22500.
        valid = label != ignore_index
        pairs = label[valid].long() * num_classes + pred_label[valid].long()
        confusion = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).cpu()
        intersect, area_pred, area_label = confusion.diagonal().clone(), confusion.sum(0), confusion.sum(1)
        return intersect, area_pred + area_label - intersect, area_pred, area_label, confusion.to_sparse()

    def evaluate(self, size: int) -> Dict[str, float]:
        """The means, in percent, of ``size`` images; the metrics of each class are in ``per_class``."""
        metrics = super().evaluate(size)
        shared = [self.per_class]  # which the main process has computed
        broadcast_object_list(shared)
        self.per_class = {f'{self.prefix}/{key}' if self.prefix else key: value for key, value in shared[0].items()}
        return metrics

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Means over the classes of each metric, in percent.

        Args:
            results: for each image what :meth:`intersect_and_union` returns.
        """
        self.per_class, self.report = {}, None
        if self.format_only:
            return {}
        columns = list(zip(*results))
        areas = [sum(area.double() for area in column) for column in columns[:4]]
        classes = self.dataset_meta['classes']
        confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        for image in (image for column in columns[4:] for image in column):
            confusion += image
        ratios = self._ratios(areas)
        means = {name if name == 'aAcc' else f'm{name}': 100 * float(np.nanmean(value))
                 for name, value in ratios.items()}
        ratios.pop('aAcc')
        self.report = ClassReport(classes, ratios, *(area.numpy() for area in areas[2:]), confusion.numpy())
        self.per_class = {f'{metric}/{name}': 100 * float(value) for metric, values in ratios.items()
                          for name, value in zip(classes, values)}
        self._print_table()
        return means

    def _ratios(self, areas: List[Tensor]) -> Dict[str, np.ndarray]:
        ratios = self.total_area_to_metrics(*areas, self.metrics, None, self.beta)
        if 'Fscore' in ratios:  # the stock one is in single precision
            precision, recall = ratios['Precision'], ratios['Recall']
            with np.errstate(invalid='ignore'):
                ratios['Fscore'] = (1 + self.beta**2) * precision * recall / (self.beta**2 * precision + recall)
        if self.nan_to_num is None:
            return ratios
        return {name: np.nan_to_num(value, nan=self.nan_to_num) for name, value in ratios.items()}

    def _print_table(self) -> None:
        table = PrettyTable(['class', *self.report.ratios], align='r')
        table.align['class'] = 'l'
        for i in self.report.present:
            table.add_row([self.report.classes[i], *(f'{100 * value[i]:.2f}' for value in self.report.ratios.values())])
        names = [name.strip() for name in self.report.absent]
        count = f'{len(self.report.present)} of {len(self.report.classes)} classes'
        print_log(f'per class, in percent; {count} occur in labels or predictions:\n{table}', logger='current')
        if names:
            print_log(f'absent from labels and predictions: {", ".join(names)}', logger='current')
