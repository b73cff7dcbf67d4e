"""Checks that the parts of a config agree before a run."""
import logging
import re
from typing import Any, Dict

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmseg_inceptionnext.config import dataset_metainfo, metainfo_of
from mmseg_inceptionnext.datasets.check.settings import compare_classes, compare_ignore_index, refuse_skipping
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.evaluation import find_measured, is_known
from mmseg_inceptionnext.parts import class_of, find_datasets, is_a, numbered, type_name

from .signatures import is_stock, nearest


def check_datasets(cfg: Config, *splits: str) -> None:
    """Stops before losses and metrics that would fail at a label, or count it wrongly, without a file's name.

    A dataset that says no ``ignore_index`` is taken to have MMSegmentation's default, 255.

    Args:
        cfg: a full config.
        splits: of ``train``, ``val`` and ``test``; those without a dataloader are left out.

    Raises:
        ConfigError: if a head of the model has another ``ignore_index`` or number of classes than the training set, a
            dataset of an evaluation skips broken samples, or a dataloader has no dataset.
    """
    for split in splits:
        _refuse_one_name_twice(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))
        for name, dataset in find_datasets(cfg, split) if cfg.get(f'{split}_dataloader') else ():
            problems = [*refuse_skipping(split, name, dataset)]
            classes = dataset_metainfo(name, dataset).get('classes')
            if split == 'train':
                problems += compare_ignore_index(cfg, split, name, dataset.get('ignore_index', 255))
                problems += compare_classes(cfg, len(classes or ()) or None)
            elif not classes and _counts_classes(cfg.get(f'{split}_evaluator')):
                raise ConfigError(f'{name}, {type_name(dataset)}, names no classes, and {split}_evaluator measures '
                                  "each: add metainfo=dict(classes=('road', 'tree', ...)) to it")
            for problem in problems:
                raise ConfigError(f'{problem.path} {problem.message}')


def _counts_classes(evaluator: Any) -> bool:
    metrics = [metric for _, given in numbered('', evaluator) if isinstance(given, dict)
               for _, metric in numbered('', given.get('metrics', given))]
    return any(isinstance(metric, dict) and is_a(metric, METRICS, IoUMetric) for metric in metrics)


def _refuse_one_name_twice(name: str, evaluator: Any) -> None:
    """MMEngine would, after all of the images."""
    taken: Dict[Any, str] = {}
    found = evaluator.get('metrics', evaluator) if isinstance(evaluator, dict) else evaluator
    for place, metric in numbered(name, found):
        if is_a(metric, METRICS, IoUMetric) and isinstance(metric, dict) and not metric.get('format_only'):
            other = taken.setdefault(metric.get('prefix'), place)
            if other != place:
                raise ConfigError(f'{other} and {place} both give aAcc under one name: set {place}.prefix to a name '
                                  f"of its own, such as 'second', or take one of them out")


def check_custom_keys(model: nn.Module, optim_wrapper: dict) -> None:
    """Looks for the keys of ``paramwise_cfg.custom_keys`` that no parameter's name holds, and so change nothing.

    Raises:
        ConfigError: if such a key looks like a misspelt name. Of others, which recipes for several models have, only a
            warning is given.
    """
    constructor = class_of(dict(type=optim_wrapper.get('constructor') or DefaultOptimWrapperConstructor),
                           OPTIM_WRAPPER_CONSTRUCTORS)
    keys = (optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys')
    names = [name for name, _ in model.named_parameters()]
    known = sorted({part for name in names for part in re.split('[._]', name) if part.isalpha()})
    for key in keys if isinstance(keys, dict) and is_stock(constructor) else ():
        if not any(key in name for name in names):
            near = nearest(key, known, 0.75)
            text = f'optim_wrapper.paramwise_cfg.custom_keys.{key} is in no name of a parameter{near}'
            if near:
                raise ConfigError(f'{text}, so it would change nothing: take it out, or name one of {", ".join(known)}')
            print_log(f'{text}, so it changes nothing', logger='current', level=logging.WARNING)


def check_save_best(cfg: Config) -> None:
    """Says at the start what ``save_best`` names and nothing measures; MMEngine would after the first validation.

    Puts the dataset's own names into keys such as ``IoU/screen door``: ``--cfg-options`` takes spaces out of what it is
    given.
    """
    hook, evaluator = cfg.get('default_hooks', {}).get('checkpoint') or {}, cfg.get('val_evaluator')
    best = hook.get('save_best')
    if best and isinstance(evaluator, dict) and is_known(evaluator):
        classes = metainfo_of(cfg, 'val').get('classes', ())
        found = [find_measured(key, evaluator, classes) for key in ([best] if isinstance(best, str) else best)]
        hook['save_best'] = found[0] if isinstance(best, str) else found
