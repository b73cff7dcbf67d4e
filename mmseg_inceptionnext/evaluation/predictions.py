"""The files that predictions are written to: which is an image's, and which values it holds."""
import os.path as osp
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from torch.utils.data import Dataset

from mmseg_inceptionnext.datasets.check.samples import mapped_values
from mmseg_inceptionnext.datasets.labels import listed
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.parts import built_datasets

FILES = ('img_path', 'seg_map_path')  # of a sample


class Target(NamedTuple):
    """The file of an image.

    Attributes:
        name: its path in the folder of the predictions, without suffix.
        reduce_zero_label, label_map: how the data set reads labels, see :func:`label_values`.
        values: or what it says that each class is: numbers, or colours.
    """
    name: str
    reduce_zero_label: bool
    label_map: Optional[Dict[int, int]] = None
    values: Optional[list] = None


def plan_targets(dataset: Dataset, metainfo: Optional[dict] = None, flat: bool = False) -> Dict[str, Target]:
    """The file of each image of a data set, by the path of the image, so that no file is written twice.

    It has the image's name. Where several images have one name, in several folders or data sets, all files stand in
    folders as the images do below the folder that holds all of them.

    Args:
        dataset: may join others, each with its own label values. Of one that lists no images nothing is known.
        metainfo: whose ``reduce_zero_label`` and ``label_map`` count. Default: those of each image.
        flat: whether there can be no folders.

    Raises:
        ConfigError: if images would be written to one file all the same.
    """
    infos = {info['img_path']: info if metainfo is None else metainfo for info in _samples(dataset)}
    names = {path: osp.basename(path) for path in infos}
    if not flat and _find_clash(names):
        folder = osp.commonpath([osp.dirname(osp.abspath(path)) for path in infos])
        names = {path: osp.relpath(osp.abspath(path), folder) for path in infos}
    clash = _find_clash(names)
    if clash:
        raise ConfigError('{} and {} would both be written to {}.png; rename one, or take them in two runs, with '
                          'a folder each'.format(*clash))
    return {path: Target(osp.splitext(names[path])[0], bool(info.get('reduce_zero_label')), info.get('label_map'),
                         info.get('label_values')) for path, info in infos.items()}


def _samples(dataset: Dataset) -> Iterator[Dict[str, Any]]:
    for inner in built_datasets(dataset):
        if hasattr(inner, 'get_data_info'):
            yield from (info for info in map(inner.get_data_info, range(len(inner))) if 'img_path' in info)


def _find_clash(names: Dict[str, str]) -> Optional[Tuple[str, str, str]]:
    """Two paths whose names differ in nothing but the suffix, and that name; None if there are none."""
    taken: Dict[str, str] = {}
    for path, name in names.items():
        name = osp.splitext(name)[0]
        other = taken.setdefault(name, path)
        if osp.abspath(other) != osp.abspath(path):
            return other, path, name
    return None


def refuse_data_folders(dataset: Dataset, folders: Dict[str, str]) -> None:
    """Raises a ConfigError if one of ``folders``, option by folder, is one of the images or labels of a data set."""
    own = {osp.dirname(info[key]) for info in _samples(dataset) for key in FILES if info.get(key)}
    own |= {folder for inner in built_datasets(dataset) for folder in getattr(inner, 'data_prefix', {}).values()
            if folder}
    own = set(map(osp.realpath, own))
    for folder, option in folders.items():
        if osp.realpath(folder) in own:
            raise ConfigError(f'{option} {folder} is a folder of the images or labels, which could be overwritten; '
                              'choose a folder elsewhere')


def label_values(classes: int, reduce_zero_label: bool, label_map: Optional[Dict[int, int]] = None) -> np.ndarray:
    """The value that each class has in the label files of a data set: the inverse of what ``LoadAnnotations`` does.

    Args:
        classes: how many there are.
        reduce_zero_label: whether the data set reads the value 0 as ignored, and every other as one less.
        label_map: the class of each id that is then found, 255 for none; see ``BaseSegDataset.get_label_map``.

    Returns:
        (classes,), uint8, or uint16 if it must be. Of several values of a class the smallest; 255 for a class that no
        value is read as.
    """
    if label_map is None:
        values = np.arange(classes) + bool(reduce_zero_label)
        return values.astype(np.uint8 if values.max() < 256 else np.uint16)
    return np.array([min(values, default=255) for values in _read_as(classes, reduce_zero_label, label_map)], np.uint8)


def ambiguous_classes(classes: Sequence[str], targets: Dict[str, Target]) -> List[str]:
    """Says of each class that several label values are read as, or none, which value is written."""
    maps = {(target.reduce_zero_label, tuple(target.label_map.items())) for target in targets.values()
            if target.label_map}
    found = [(name, values) for reduce_zero_label, label_map in sorted(maps)
             for name, values in zip(classes, _read_as(len(classes), reduce_zero_label, dict(label_map)))]
    return [f'{name} is {values[0]} of {listed(values)}' if values else f'{name} is 255, as none is it'
            for name, values in found if len(values) != 1]


def _read_as(classes: int, reduce_zero_label: bool, label_map: Dict[int, int]) -> List[List[int]]:
    """The label values that are read as each class."""
    read = mapped_values(reduce_zero_label, label_map)
    return [np.flatnonzero(read == i).tolist() for i in range(classes)]
