"""Checks that the settings of a config agree: of its datasets, its model and its metrics."""
import inspect
from typing import Iterator, List, Optional, Tuple

from mmseg.registry import METRICS

from mmseg_inceptionnext.parts import class_of, numbered

from .report import Problem


def _heads(cfg: dict) -> List[Tuple[str, dict]]:
    model = cfg.get('model') or {}
    return [head for name in ('decode_head', 'auxiliary_head') for head in numbered(f'model.{name}', model.get(name))]


def compare_classes(cfg: dict, num_classes: Optional[int]) -> Iterator[Problem]:
    """Compares the number of classes of a dataset, if it is known, with that of the heads of the model."""
    for name, head in _heads(cfg):
        found = head.get('num_classes', num_classes)
        if num_classes is not None and found != num_classes:
            yield Problem('error', 'classes of the model', f'{name}.num_classes',
                          f'is {found}, but the dataset names {num_classes} classes')


def compare_ignore_index(cfg: dict, split: str, name: str, ignore_index: int) -> Iterator[Problem]:
    """Compares what a dataset ignores with what those ignore that get its labels: in training heads, else metrics."""
    readers = _heads(cfg) if split == 'train' else [
        (metric, settings) for metric, settings in numbered(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))
        if _compares_labels(settings)]
    padding = ', and model.data_preprocessor.seg_pad_val,' if split == 'train' else ''
    for reader, settings in readers:
        found = settings.get('ignore_index', 255)
        if found not in (ignore_index, None):  # None: the masked binary cross-entropy, which has no such value
            yield Problem('error', 'ignore_index', f'{reader}.ignore_index', (
                f'is {found}, but {name}.ignore_index is {ignore_index}, so a pixel that the dataset ignores is taken '
                f'for a class: set both{padding} to the value of such pixels after reduce_zero_label and label_map '
                '(MMSegmentation makes them 255)'))


def _compares_labels(metric: dict) -> bool:
    """Whether a metric compares labels with classes, and leaves out an index of them."""
    kind = class_of(metric, METRICS)
    return kind is not None and 'ignore_index' in inspect.signature(kind).parameters


def refuse_skipping(split: str, name: str, dataset: dict) -> Iterator[Problem]:
    """An evaluation that replaces broken samples would count others twice."""
    if split != 'train' and dataset.get('on_error') == 'skip':
        yield Problem('error', 'on_error', f'{name}.on_error',
                      "is 'skip', which is for training: an evaluation must see each image once; set it to 'raise'")
