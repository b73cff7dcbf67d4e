"""Checks that the settings of a config agree: of its datasets, its model and its metrics."""
import inspect
from typing import Iterator, List, Optional, Sequence, Tuple

from mmseg.models.decode_heads import STDCHead
from mmseg.registry import DATASETS, METRICS, MODELS

from mmseg_inceptionnext.parts import class_of, find_datasets, is_a, numbered

from .report import Problem


def _heads(cfg: dict) -> List[Tuple[str, dict]]:
    model = cfg.get('model') or {}
    return [head for name in ('decode_head', 'auxiliary_head') for head in numbered(f'model.{name}', model.get(name))]


def compare_classes(cfg: dict, num_classes: Optional[int]) -> Iterator[Problem]:
    """Compares the number of classes of a dataset, if it is known, with that of the heads of the model."""
    for name, head in _heads(cfg):
        found = num_classes if is_a(head, MODELS, STDCHead) else head.get('num_classes', num_classes)  # it finds edges
        if num_classes is not None and found != num_classes:
            yield Problem('error', 'classes of the model', f'{name}.num_classes',
                          f'is {found!r}, but the dataset names {num_classes} classes')


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


def compare_reduce_zero_label(cfg: dict, splits: Sequence[str]) -> Iterator[Problem]:
    """Compares how the data sets of an evaluation count their labels with those that the model is trained on."""
    trained = list(find_datasets(cfg, 'train')) if cfg.get('train_dataloader') else []
    for split in splits:
        for name, dataset in find_datasets(cfg, split) if split != 'train' and trained else ():
            own, theirs = _reduces(dataset), {_reduces(other) for _, other in trained}
            if own is None or None in theirs or own in theirs:
                continue
            same = any(class_of(other, DATASETS) is class_of(dataset, DATASETS)
                       and other.get('data_root') == dataset.get('data_root') for _, other in trained)
            yield Problem('error' if same else 'warning', 'reduce_zero_label', f'{name}.reduce_zero_label', (
                f'is {own}, but {trained[0][0]}.reduce_zero_label is {not own}: the same value of a label is another '
                'class in each. If the labels are of one kind, set both to the same'))


def _reduces(dataset: dict) -> Optional[bool]:
    """What a data set does, or None if that cannot be known without its files."""
    try:
        return DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).reduce_zero_label
    except Exception:  # what cannot be built is told where it is built in earnest, with its cause
        return None
