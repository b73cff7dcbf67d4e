"""Which setting makes the loss of a segmentor fail."""
from typing import Any, Callable, List, Optional

import torch
from torch import nn


def why_not(model: nn.Module, batch: dict, split: str) -> Optional[str]:
    """The setting by which a batch of ``train`` or ``val`` fails: labels that are missing, channels that do not fit."""
    if split == 'train' and any('gt_sem_seg' not in sample for sample in batch.get('data_samples') or ()):
        return no_label('train')
    if not hasattr(model, 'backbone') or not hasattr(model, 'decode_head'):
        return None
    model.eval()
    with torch.no_grad():
        maps = _maps(lambda given: model.backbone(model.data_preprocessor(given, split == 'train')['inputs']), batch)
        neck = getattr(model, 'neck', None)
        if neck is not None and maps is not None:
            wanted, given = getattr(neck, 'in_channels', None), [one.shape[1] for one in maps]
            if isinstance(wanted, (list, tuple)) and list(wanted) != given:
                return f'model.neck.in_channels is {list(wanted)}, and the backbone gives maps of {given} channels'
            maps = _maps(neck, maps)
    if maps is None:
        return None
    given = [one.shape[1] for one in maps]
    heads = [(f'model.{name}' + f'.{i}' * isinstance(found, nn.ModuleList), head)
             for name in ('decode_head', 'auxiliary_head') for found in [getattr(model, name, None)]
             for i, head in enumerate(found if isinstance(found, nn.ModuleList) else [found])]
    return next(filter(None, (_why_not(name, head, given) for name, head in heads)), None)


def _maps(module: Callable, inputs: Any) -> Optional[List[torch.Tensor]]:
    try:
        maps = module(inputs)
    except Exception:  # it fails by itself: what it says, the caller tells
        return None
    maps = [maps] if isinstance(maps, torch.Tensor) else maps
    fits = isinstance(maps, (list, tuple)) and all(isinstance(one, torch.Tensor) and one.dim() == 4 for one in maps)
    return list(maps) if fits else None


def _why_not(name: str, head: nn.Module, given: List[int]) -> Optional[str]:
    """Says in which way a head takes other maps than those of so many channels."""
    index, wanted = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
    if index is None or wanted is None:
        return None
    indices = list(index) if isinstance(index, (list, tuple)) else [index]
    if not all(isinstance(i, int) and -len(given) <= i < len(given) for i in indices):
        return f'{name}.in_index is {index!r}, and there are {len(given)} maps: allowed are 0 to {len(given) - 1}'
    there = [given[i] for i in indices]
    joined = getattr(head, 'input_transform', None) == 'resize_concat'
    expected = sum(there) if joined else there if isinstance(wanted, (list, tuple)) else there[0]
    if (list(wanted) if isinstance(wanted, (list, tuple)) else wanted) == expected:
        return None
    return (f'{name}.in_channels is {wanted!r}, and the maps that it takes by in_index={index!r} have '
            f'{expected!r} channels: set it to that')


def no_label(split: str) -> str:
    return (f"a sample of {split}_dataloader.dataset has no label: add dict(type='LoadAnnotations') to its pipeline "
            'before PackSegInputs, and its folder as data_prefix.seg_map_path')
