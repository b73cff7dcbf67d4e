"""Checks that the parts of a config agree before a run."""
from typing import Optional

from mmengine.config import Config

from mmseg_inceptionnext.config import metainfo_of
from mmseg_inceptionnext.datasets.check.settings import (
    compare_classes,
    compare_ignore_index,
    find_datasets,
    refuse_skipping,
)
from mmseg_inceptionnext.errors import ConfigError


def check_datasets(cfg: Config, *splits: str) -> None:
    """Stops before losses and metrics that would die of a label, or count it wrongly, without a file's name.

    A dataset that says no ``ignore_index`` is taken to have MMSegmentation's default, 255.

    Args:
        cfg: a full config.
        splits: of ``train``, ``val`` and ``test``; those without a dataloader are left out.

    Raises:
        ConfigError: if a head of the model has another ``ignore_index`` or number of classes than the training set, a
            dataset of an evaluation skips broken samples, or a dataloader has no dataset.
    """
    found = [(split, *named) for split in splits if cfg.get(f'{split}_dataloader')
             for named in find_datasets(cfg, split)]
    for split, name, dataset in found:
        problems = [*refuse_skipping(split, name, dataset)]
        if split == 'train':
            problems += [*compare_ignore_index(cfg, split, name, dataset.get('ignore_index', 255)),
                         *compare_classes(cfg, _number_of_classes(cfg, dataset))]
        for problem in problems:
            raise ConfigError(f'{problem.path} {problem.message}')


def _number_of_classes(cfg: Config, dataset: dict) -> Optional[int]:
    try:
        return len(metainfo_of(cfg, dataset)['classes'])
    except Exception:  # what cannot be built, or names no classes, has its own error where it is used
        return None
