"""Checks the data that a config names, file by file, before a long run does."""
import os.path as osp
from typing import Dict, Iterator, List, Sequence

import cv2
import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmseg_inceptionnext.datasets.labels import listed
from mmseg_inceptionnext.datasets.pairing import stem_of, suffixes_of
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.parts import SPLITS, find_datasets, type_name

from .report import Problem, Report
from .samples import Samples
from .settings import compare_classes, compare_ignore_index, refuse_skipping


def check_dataset(cfg: Config, splits: Sequence[str] = ('train', 'val'), jobs: int = 1) -> List[Report]:
    """Reads every image and label of a config, with a progress bar.

    Args:
        cfg: a full config, see :func:`mmseg_inceptionnext.config.load_config`.
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
            report.add(*compare_classes(cfg, len(report.classes)), *refuse_skipping(split, name, dataset_cfg),
                       *compare_ignore_index(cfg, split, name, dataset.ignore_index))
            reports.append(report)
    reports[0].add(*_compare_reduce_zero_label(cfg))
    return reports


def _compare_reduce_zero_label(cfg: Config) -> Iterator[Problem]:
    """Compares the first split with the others, also with those that are not checked.

    A split may join data of several kinds, so only a split without any value of the first one is a question.
    """
    found: Dict[str, Dict[str, bool]] = {}
    for split in SPLITS:
        try:
            for name, dataset_cfg in find_datasets(cfg, split):
                dataset = _build(dataset_cfg, split)
                samples = Samples(dataset)
                if samples.has_labels and not samples.has_own_labels:
                    found.setdefault(split, {})[f'{name}.reduce_zero_label'] = dataset.reduce_zero_label
        except ValueError:  # what cannot be built was said of the splits to check, and is no matter in others
            found.pop(split, None)
    first = found.get(next(iter(found), ''), {})
    for other in found.values():
        if not set(first.values()) & set(other.values()):
            there = ', '.join(f'{name} is {value}' for name, value in other.items())
            yield Problem('warning', 'reduce_zero_label', ', '.join(first), (
                f'is {next(iter(first.values()))}, but {there}: the same value of a label is another class in each. If '
                'the labels are of one kind, set all to the same'))


def _build(cfg: dict, split: str) -> BaseSegDataset:
    try:
        dataset = DATASETS.build(dict(cfg, lazy_init=True))
    except Exception as error:  # every class has its own errors for settings that it does not know
        raise InputError(f'the dataset of {split}_dataloader cannot be built: {error}') from error
    if not isinstance(dataset, BaseSegDataset) or Samples(dataset).image_step is None:
        raise InputError(f'{type_name(cfg)} of {split}_dataloader cannot be checked: only datasets of the kind of '
                         'BaseSegDataset can, whose pipeline loads images, as with LoadImageFromFile')
    if not dataset.metainfo.get('classes'):
        raise InputError(f'{type_name(cfg)} of {split}_dataloader names no classes: add metainfo=dict(classes=(...))')
    return dataset


def _check_one(dataset: BaseSegDataset, split: str, jobs: int) -> Report:
    root = dataset.data_root or '.'
    report = Report(f'{split}: {type(dataset).__name__} in {root}', dataset.metainfo['classes'])
    try:
        dataset.full_init()
        report.add(*_labels_without_image(dataset))
    except Exception as error:  # each kind of storage and of dataset has its own for what is not there
        report.add(Problem('error', 'no data', root, str(error)))
        return report
    if getattr(dataset, 'not_taken', None):
        report.add(Problem('warning', 'images not taken', root, dataset.not_taken))
    samples = Samples(dataset)
    loader = DataLoader(samples, batch_size=None, num_workers=jobs if jobs > 1 else 0, collate_fn=tuple,
                        worker_init_fn=_one_thread)
    for problems, counts in tqdm(loader, desc=split, unit='sample'):
        report.samples += 1
        report.add(*problems)
        if counts is not None:
            report.add_label(counts, samples.values)
    if not report.samples:
        report.add(Problem('error', 'no data', root, f'no file ends in {dataset.img_suffix}, which is img_suffix'))
    report.add(*_questions(report, dataset, root, samples.has_own_labels))
    return report


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def _labels_without_image(dataset: BaseSegDataset) -> Iterator[Problem]:
    folder = dataset.data_prefix.get('seg_map_path')
    if not folder or dataset.ann_file or dataset._indices is not None:  # only some of the images are used
        return
    used = {dataset.get_data_info(i).get('seg_map_path') for i in range(len(dataset))}
    ends = [suffixes_of(getattr(dataset, name), name) for name in ('seg_map_suffix', 'img_suffix')]
    for name in fileio.list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=dataset.backend_args):
        stem, path = stem_of(name, ends[0]), osp.join(folder, name)
        if stem is not None and path not in used:
            images = [osp.join(dataset.data_prefix['img_path'], stem + end) for end in ends[1]]
            if not any(fileio.isfile(image, backend_args=dataset.backend_args) for image in images):
                yield Problem('error', 'label without image', path, f'its image {" or ".join(images)} is not there')


def _questions(report: Report, dataset: BaseSegDataset, root: str, has_own_labels: bool) -> Iterator[Problem]:
    """What all labels together tell about the settings."""
    counts, names, total = report.counts, report.classes, report.counts.sum()
    if not total:
        return
    zero = f'the value 0 ({100 * counts[0] / total:.1f} % of the pixels)'
    last = int(np.flatnonzero(counts[:255]).max(initial=-1))
    if not report.mapped[:len(names)].any():
        yield Problem('error', 'nothing labelled', root, 'no pixel of any label is of a class; the '
                      f'{"labels" if has_own_labels else "files"} hold the values {listed(np.flatnonzero(counts))}')
    if last == 0 and counts[255] and dataset.ignore_index == 255:
        yield Problem('warning', '0 and 255', root, 'the labels hold 0 and 255 only, and 255 is ignored: if 255 is a '
                      'class, change it to 1' + ' in the files' * (not has_own_labels))
    elif dataset.label_map is not None or has_own_labels:  # the classes say nothing about the values of the files
        return
    elif dataset.reduce_zero_label and counts[0] and last == len(names) - 1:
        yield Problem('warning', 'reduce_zero_label', root, (
            f'{zero} is ignored, and the last class, {names[-1]}, never occurs: the labels look like 0 to {last}. If '
            f'0 is the class {names[0]}, set reduce_zero_label=False in the dataset'))
    elif not dataset.reduce_zero_label and isinstance(dataset, ADE20KDataset):
        yield Problem('warning', 'reduce_zero_label', root, (
            f'{zero} is taken for the class {names[0]}, but the files of ADE20K count classes from 1: unless these '
            'were made otherwise, set reduce_zero_label=True in the dataset'))
