"""What stands in a config: classes, named or given; data sets within those that join or repeat them."""
from typing import Any, Iterator, List, Optional, Tuple

from mmengine.registry import Registry
from torch.utils.data import Dataset

from .errors import ConfigError

SPLITS = ('train', 'val', 'test')


def type_name(part: Any) -> str:
    """The bare name of what ``type`` names or is: ``Resize`` of ``'Resize'``, ``'mmseg.Resize'`` and the class.

    A part may be built already, here and below.
    """
    kind = part.get('type') if isinstance(part, dict) else type(part)
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def class_of(part: Any, registry: Registry, default: Any = None) -> Any:
    """The class or function that ``type`` names or is, ``default`` if there is no ``type``; None if none has its name.
    """
    kind = part.get('type', default) if isinstance(part, dict) else type(part)
    return registry.get(kind) if isinstance(kind, str) else kind


def is_a(part: Any, registry: Registry, *kinds: type) -> bool:
    """Whether ``type`` names or is one of some classes, or a subclass of one."""
    kind = class_of(part, registry)
    return isinstance(kind, type) and issubclass(kind, kinds)


def numbered(name: str, found: Any) -> List[Tuple[str, Any]]:
    """What stands under a name, one part or several, each with its own name; nothing if there is none."""
    if isinstance(found, (list, tuple)):
        return [(f'{name}.{i}', one) for i, one in enumerate(found)]
    return [(name, found)] if found else []


def find_datasets(cfg: dict, split: str) -> Iterator[Tuple[str, dict]]:
    """The data sets of a split that read files, within those that join or repeat them.

    Yields:
        The name of each, as ``--cfg-options`` takes it, and its config.

    Raises:
        ConfigError: if there is no such dataloader, or it has no dataset.
    """
    loader, name = cfg.get(f'{split}_dataloader'), f'{split}_dataloader'
    if not loader:
        raise ConfigError(f'the config has no {name}; those of configs/_base_ stand in its datasets/')
    if not isinstance(loader, dict) or 'dataset' not in loader:
        raise ConfigError(f'{name} has no dataset: add dataset=dict(type=..., data_root=...) to it')
    yield from _leaves(f'{name}.dataset', loader['dataset'])


def _leaves(name: str, cfg: Any) -> Iterator[Tuple[str, dict]]:
    if not isinstance(cfg, dict):
        raise ConfigError(f'{name} is {cfg!r}: give the settings of a dataset, dict(type=..., data_root=...)')
    if cfg.get('datasets'):
        for part, inner in numbered(f'{name}.datasets', cfg['datasets']):
            yield from _leaves(part, inner)
    elif 'dataset' in cfg:
        yield from _leaves(f'{name}.dataset', cfg['dataset'])
    else:
        yield name, cfg


def first_dataset(cfg: dict, split: str) -> Optional[dict]:
    """The first of :func:`find_datasets`, whose pipeline and classes stand for all; None if there is no dataloader."""
    return next((dataset for _, dataset in find_datasets(cfg, split)), None) if cfg.get(f'{split}_dataloader') else None


def built_datasets(dataset: Dataset) -> Iterator[Dataset]:
    """A data set, or those within it that it joins or repeats."""
    inner = [one for one in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)) if one is not None]
    for one in inner:
        yield from built_datasets(one)
    if not inner:
        yield dataset
