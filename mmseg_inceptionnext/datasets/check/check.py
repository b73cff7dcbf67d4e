"""Checks the data that a config names, file by file, before a long run does."""
import warnings
from typing import Dict, Iterator, List, Sequence

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmseg_inceptionnext.datasets.files import shown
from mmseg_inceptionnext.datasets.folders import loaders
from mmseg_inceptionnext.errors import InputError

from .folders import check_folders
from .report import Report
from .samples import Sample, Settings, check_sample, mapped_values
from .settings import (
    SPLITS,
    compare_classes,
    compare_ignore_index,
    compare_reduce_zero_label,
    find_datasets,
    refuse_skipping,
)

MOST_IGNORED = 0.5  # above this share of the pixels, it is worth a question whether the value 0 is to be ignored


def check_dataset(cfg: Config, splits: Sequence[str] = ('train', 'val'), jobs: int = 1) -> List[Report]:
    """Reads every image and label of a config, with a progress bar.

    Memory is that of the list of files and of the files in work, whatever their number.

    Args:
        cfg: a full config, see ``mmseg_inceptionnext.apis.load_config``.
        splits: of ``train``, ``val`` and ``test``.
        jobs: processes that read; with 1 it is this one.

    Returns:
        A report for each dataset, in the order of the splits; a config that joins datasets has several in a split.

    Raises:
        ValueError: if the config has no such dataloader, or a dataset that cannot be built or checked.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    reports = []
    for split in splits:
        for name, dataset_cfg in find_datasets(cfg, split):
            dataset = _build(dataset_cfg, split)
            report = _check_one(dataset, split, jobs)
            for problem in (*compare_classes(cfg, len(report.classes)), *refuse_skipping(split, name, dataset_cfg),
                            *compare_ignore_index(cfg, split, name, dataset.ignore_index)):
                report.add(*problem)
            reports.append(report)
    for problem in compare_reduce_zero_label(_reduce_zero_labels(cfg)):
        reports[0].add(*problem)
    return reports


def _reduce_zero_labels(cfg: Config) -> Dict[str, Dict[str, bool]]:
    """``reduce_zero_label`` of all datasets with labels, by split and name, also of splits that are not checked."""
    found: Dict[str, Dict[str, bool]] = {}
    for split in SPLITS:
        try:
            built = [(name, _build(dataset_cfg, split)) for name, dataset_cfg in find_datasets(cfg, split)]
        except ValueError:  # what cannot be built was said of the splits to check, and is no matter in others
            continue
        with_labels = {name: dataset.reduce_zero_label for name, dataset in built if _has_labels(dataset)}
        if with_labels:
            found[split] = with_labels
    return found


def _build(cfg: dict, split: str) -> BaseSegDataset:
    try:
        dataset = DATASETS.build(dict(cfg, lazy_init=True))
    except Exception as error:  # every class has its own errors for settings that it does not know
        raise InputError(f'the dataset of {split}_dataloader cannot be built: {error}') from error
    if not isinstance(dataset, BaseSegDataset) or 'img_path' not in loaders(dataset.pipeline):
        raise InputError(f'{cfg["type"]} of {split}_dataloader cannot be checked: only datasets of the kind of '
                         'BaseSegDataset can, whose pipeline has LoadImageFromFile')
    if not dataset.metainfo.get('classes'):
        raise InputError(f'{cfg["type"]} of {split}_dataloader names no classes: add metainfo=dict(classes=(...))')
    return dataset


def _has_labels(dataset: BaseSegDataset) -> bool:
    return dataset.data_prefix.get('seg_map_path') is not None and 'seg_map_path' in loaders(dataset.pipeline)


def _settings(dataset: BaseSegDataset) -> Settings:
    found = loaders(dataset.pipeline)
    return Settings(
        color_type=found['img_path'].color_type, image_backend=found['img_path'].imdecode_backend,
        label_backend=found['seg_map_path'].imdecode_backend if _has_labels(dataset) else None,
        values=mapped_values(dataset.reduce_zero_label, dataset.label_map),
        num_classes=len(dataset.metainfo['classes']), ignore_index=dataset.ignore_index,
        reduce_zero_label=dataset.reduce_zero_label, backend_args=dataset.backend_args)


class _Samples(Dataset):
    """The findings in each sample, so that PyTorch's loader shares the work among processes and keeps their order."""

    def __init__(self, dataset: BaseSegDataset, settings: Settings) -> None:
        self.dataset = dataset
        self.settings = settings

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return check_sample(self.dataset.get_data_info(index), self.settings)


def _as_it_is(sample: Sample) -> Sample:
    return sample


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # large images are no news here


def _check_one(dataset: BaseSegDataset, split: str, jobs: int) -> Report:
    report = Report(f'{split}: {type(dataset).__name__} in {dataset.data_root or "."}', dataset.metainfo['classes'])
    try:
        for problem in check_folders(dataset):
            report.add(*problem)
        if any(kind == 'no data' for _, kind in report.totals):
            return report
        dataset.full_init()
    except Exception as error:  # such as folders that may not be read, or a list of names that is not there
        report.add('error', 'no data', dataset.data_root or '.', str(error))
        return report
    settings = _settings(dataset)
    samples = DataLoader(_Samples(dataset, settings), batch_size=None, num_workers=jobs if jobs > 1 else 0,
                         collate_fn=_as_it_is, worker_init_fn=_one_thread)
    for sample in tqdm(samples, desc=split, unit='sample'):
        report.add_sample(sample, settings)
    for level, kind, message in _suspicions(report, settings, dataset):
        report.add(level, kind, dataset.data_root or '.', message)
    return report


def _suspicions(report: Report, settings: Settings, dataset: BaseSegDataset) -> Iterator[tuple]:
    """What all labels together tell about the settings."""
    total, num_classes, names = report.counts.sum(), settings.num_classes, report.classes
    if not total:
        return
    present = np.flatnonzero(report.counts[:255])
    last = present[-1] if len(present) else -1
    zero = f'the value 0 ({100 * report.counts[0] / total:.1f} % of the pixels)'
    if report.mapped[:num_classes].sum() == 0:
        yield 'error', 'nothing labelled', (f'no pixel of any label is of a class; the files hold the values '
                                            f'{shown(np.flatnonzero(report.counts))}')
    if last == 0 and report.counts[255] and settings.ignore_index == 255:
        yield 'warning', '0 and 255', ('the labels hold 0 and 255 only, and 255 is ignored, so there is nothing to '
                                       'tell apart: if 255 is a class, change it to 1 in the files')
    elif dataset.label_map is not None:  # then the number of classes says nothing about the values of the files
        return
    elif settings.reduce_zero_label and report.counts[0] and last == num_classes - 1:
        yield 'warning', 'reduce_zero_label', (
            f'{zero} is ignored, and the last class, {names[-1]}, never occurs: the labels look like 0 to '
            f'{last}. If 0 is the class {names[0]}, set reduce_zero_label=False in the dataset')
    elif settings.reduce_zero_label and report.counts[0] > MOST_IGNORED * total:
        yield 'warning', 'reduce_zero_label', (
            f'{zero} is ignored. If it is a class, and no rest, set reduce_zero_label=False in the dataset')
    elif not settings.reduce_zero_label and isinstance(dataset, ADE20KDataset):
        yield 'warning', 'reduce_zero_label', (
            f'{zero} is taken for the class {names[0]}, but the files of ADE20K count classes from 1: unless these '
            'were made otherwise, set reduce_zero_label=True in the dataset')
    elif not settings.reduce_zero_label and last == num_classes:
        yield 'warning', 'reduce_zero_label', (
            f'the values reach {last}, one more than the last class: if {zero} stands for what has no class, set '
            'reduce_zero_label=True in the dataset')
