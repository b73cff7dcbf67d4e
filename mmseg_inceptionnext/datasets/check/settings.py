"""Checks that the settings of a config agree: of its datasets, its model and its metrics; see ``check.py``."""
import inspect
from typing import Dict, Iterator, List, Optional, Tuple, Union

from mmseg.registry import METRICS

from mmseg_inceptionnext.errors import ConfigError

from .samples import Problem

SPLITS = ('train', 'val', 'test')


def find_datasets(cfg: dict, split: str) -> Iterator[Tuple[str, dict]]:
    """The configs of the datasets that read files, within those that join or repeat them.

    Args:
        cfg: a full config.
        split: ``train``, ``val`` or ``test``.

    Yields:
        The name of each, as ``--cfg-options`` takes it, and its config.

    Raises:
        ConfigError: if there is no such dataloader, or it has no dataset.
    """
    loader, name = cfg.get(f'{split}_dataloader'), f'{split}_dataloader'
    if not loader:
        raise ConfigError(f'the config has no {name}; choose others with --split')
    if not isinstance(loader, dict) or 'dataset' not in loader:
        raise ConfigError(f'{name} has no dataset: add dataset=dict(type=..., data_root=...) to it')
    yield from _leaves(f'{name}.dataset', loader['dataset'])


def _leaves(name: str, cfg: dict) -> Iterator[Tuple[str, dict]]:
    if not isinstance(cfg, dict):
        raise ConfigError(f'{name} is {cfg!r}: give the settings of a dataset, dict(type=..., data_root=...)')
    if cfg.get('datasets'):
        yield from (leaf for part, inner in _numbered(f'{name}.datasets', cfg['datasets'])
                    for leaf in _leaves(part, inner))
    elif 'dataset' in cfg:
        yield from _leaves(f'{name}.dataset', cfg['dataset'])
    else:
        yield name, cfg


def _numbered(name: str, found: Union[dict, list, tuple, None]) -> List[Tuple[str, dict]]:
    """What stands under a name, one or several, each with its own name."""
    if isinstance(found, (list, tuple)):
        return [(f'{name}.{i}', one) for i, one in enumerate(found)]
    return [(name, found)] if found else []


def _heads(cfg: dict) -> List[Tuple[str, dict]]:
    model = cfg.get('model') or {}
    return [head for name in ('decode_head', 'auxiliary_head') for head in _numbered(f'model.{name}', model.get(name))]


def compare_classes(cfg: dict, num_classes: Optional[int]) -> Iterator[Problem]:
    """Compares the number of classes of a dataset, if it is known, with that of the heads of the model."""
    for name, head in _heads(cfg):
        found = head.get('num_classes', num_classes)
        if num_classes is not None and found != num_classes:
            yield Problem('error', 'classes of the model', f'{name}.num_classes',
                          f'is {found}, but the dataset names {num_classes} classes')


def compare_ignore_index(cfg: dict, split: str, name: str, ignore_index: int) -> Iterator[Problem]:
    """Compares what a dataset ignores with what those ignore that get its labels.

    For training these are the heads, for the other splits the metrics.

    Args:
        cfg: a full config.
        split: of the dataset.
        name: of the dataset, see :func:`find_datasets`.
        ignore_index: of the dataset.
    """
    readers = _heads(cfg) if split == 'train' else [
        (metric, settings) for metric, settings in _numbered(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))
        if _compares_labels(settings.get('type'))]
    padding = ', and model.data_preprocessor.seg_pad_val,' if split == 'train' else ''
    for reader, settings in readers:
        found = settings.get('ignore_index', 255)
        if found not in (ignore_index, None):  # None: the masked binary cross-entropy, which looks at no index
            yield Problem('error', 'ignore_index', f'{reader}.ignore_index', (
                f'is {found}, but {name}.ignore_index is {ignore_index}, so a pixel that the dataset ignores is taken '
                f'for a class: set both{padding} to the value of such pixels after reduce_zero_label and label_map '
                '(MMSegmentation makes them 255)'))


def _compares_labels(metric: str) -> bool:
    """Whether a metric compares labels with classes, and leaves out an index of them."""
    kind = METRICS.get(metric) if isinstance(metric, str) else metric
    return kind is not None and 'ignore_index' in inspect.signature(kind).parameters


def refuse_skipping(split: str, name: str, dataset: dict) -> Iterator[Problem]:
    """An evaluation that replaces broken samples would count others twice."""
    if split != 'train' and dataset.get('on_error') == 'skip':
        yield Problem('error', 'on_error', f'{name}.on_error',
                      "is 'skip', which is for training: an evaluation must see each image once; set it to 'raise'")


def compare_reduce_zero_label(found: Dict[str, Dict[str, bool]]) -> Iterator[Problem]:
    """Compares ``reduce_zero_label`` of the first split with that of the others.

    A split may join data of several kinds, so that only a split without any value of the first one is told.

    Args:
        found: by split, the setting of each of its datasets, by the name of the dataset.
    """
    first, *others = found.values()
    differing = [other for other in others if not set(first.values()) & set(other.values())]
    if differing:
        yield Problem(
            'warning', 'reduce_zero_label', ', '.join(f'{name}.reduce_zero_label' for name in first),
            f'is {next(iter(first.values()))}, but ' + ', '.join(
                f'{name}.reduce_zero_label is {value}' for other in differing for name, value in other.items()) +
            ': the same value of a label is another class in each. If the labels are of one kind, set all to the same')
