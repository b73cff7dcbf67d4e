"""Checks the folders of a dataset: what is there, what pairs up, what is left over; see ``check.py``."""
import os.path as osp
from collections import Counter
from typing import Iterator, List, Optional, Tuple

from mmengine import fileio
from mmseg.datasets import ADE20KDataset, BaseSegDataset

from mmseg_inceptionnext.datasets.ade20k import find_full_archive
from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES

from .samples import Problem

PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, '.gif')  # what is likely to have been meant for data


def check_folders(dataset: BaseSegDataset) -> Iterator[Problem]:
    """Yields what is wrong with the folders of a dataset; of them, what leaves no sample is of the kind ``no data``.

    Args:
        dataset: built with ``lazy_init=True``, since folders may be missing.
    """
    images, labels = dataset.data_prefix.get('img_path'), dataset.data_prefix.get('seg_map_path')
    beside = ('', '') if images != labels else (dataset.seg_map_suffix, dataset.img_suffix)  # both in one folder
    problems = list(_check_folder(dataset, images, 'img_suffix', beside[0]))
    if labels:
        problems += _check_folder(dataset, labels, 'seg_map_suffix', beside[1])
    yield from problems
    if any(problem.kind == 'no data' for problem in problems):
        archive = find_full_archive(dataset.data_root) if isinstance(dataset, ADE20KDataset) else None
        if archive:
            yield Problem('error', 'no data', dataset.data_root or '.', archive)
    elif labels and not dataset.ann_file and dataset._indices is None:  # otherwise only some of the images are used
        yield from _labels_without_image(dataset, images, labels)


def _check_folder(dataset: BaseSegDataset, folder: str, setting: str, beside: str) -> Iterator[Problem]:
    if not fileio.isdir(folder, backend_args=dataset.backend_args):
        yield Problem('error', 'no data', folder, f'there is no such folder; data_root is {dataset.data_root}')
        return
    suffix, found, others = getattr(dataset, setting), 0, Counter()
    for name in _files(folder, dataset.backend_args):
        if name.endswith(suffix):
            found += 1
        elif not beside or not name.endswith(beside):
            others[osp.splitext(name)[1]] += 1
    if not found:
        there = _counted(others.most_common(5)) or 'no other files'
        yield Problem('error', 'no data', folder, f'no file ends in {suffix}, which is {setting}; there are {there}')
        return
    pictures = [(end, count) for end, count in others.most_common() if end.lower() in PICTURE_SUFFIXES]
    if pictures:
        yield Problem('warning', 'unused files', folder,
                      f'{_counted(pictures)} are not used, as {setting} is {suffix}; {found} are')


def _counted(suffixes: List[Tuple[str, int]]) -> str:
    return ', '.join(f'{count} that end in {end or "no suffix"}' for end, count in suffixes)


def _labels_without_image(dataset: BaseSegDataset, images: str, labels: str) -> Iterator[Problem]:
    for name in _files(labels, dataset.backend_args):
        image = osp.join(images, name[:-len(dataset.seg_map_suffix)] + dataset.img_suffix)
        if name.endswith(dataset.seg_map_suffix) and not fileio.isfile(image, backend_args=dataset.backend_args):
            reason = 'is a folder' if osp.isdir(image) else 'links to nothing' if osp.islink(image) else 'is not there'
            yield Problem('error', 'label without image', osp.join(labels, name), f'its image {image} {reason}')


def _files(folder: str, backend_args: Optional[dict]) -> Iterator[str]:
    """The files of a folder as MMSegmentation lists them: in subfolders too, without hidden ones."""
    return fileio.list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=backend_args)
