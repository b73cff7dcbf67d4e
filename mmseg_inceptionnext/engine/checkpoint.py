"""Loads pretrained weights whole or not at all."""
from typing import Dict, Iterable

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

MAX_KEYS_SHOWN = 10


class PretrainedError(RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message says what to do."""


def load_pretrained(backbone: nn.Module, filename: str) -> None:
    """Loads a classifier's checkpoint into a MetaNeXt backbone.

    The file is a state dict, bare or under ``state_dict`` or ``model``. The classifier (``head.*``) and the stages
    that the backbone was built without are left out; the norms on the outputs may be missing, since a classifier has
    none. Everything else must match, name by name and shape by shape.

    Args:
        backbone: the module that takes the weights.
        filename: a path or URL that MMEngine can read.

    Raises:
        PretrainedError: if the file is missing, or a tensor is missing, left over or of another shape;
            nothing is loaded then.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location='cpu', logger='current')
    except OSError as error:  # a missing file, a broken network
        raise PretrainedError(f'{filename} cannot be had ({error}); download it elsewhere and name its path: '
                              '--cfg-options model.backbone.init_cfg.checkpoint=FILE') from error
    for wrapper in ('state_dict', 'model'):
        checkpoint = checkpoint.get(wrapper, checkpoint)
    own = backbone.state_dict()
    new = {key for key in own if key.startswith('norm')}
    unbuilt = tuple(f'stages.{i}.' for i in range(len(backbone.stages), 10))
    trunk = {key: value for key, value in checkpoint.items() if not key.startswith(('head.', *unbuilt))}
    _check_match(own, trunk, new, filename)
    backbone.load_state_dict({**own, **trunk})
    print_log(
        f'pretrained: {len(own.keys() & trunk.keys())}/{len(own) - len(new - trunk.keys())} tensors from {filename}; '
        f'ignored head.* ({sum(key.startswith("head.") for key in checkpoint)}); '
        f'new: {_list(sorted({key.split(".")[0] for key in new - trunk.keys()})) or "none"}',
        logger='current')


def _check_match(own: Dict[str, Tensor], trunk: Dict[str, Tensor], new: Iterable[str], filename: str) -> None:
    missing = [key for key in own if key not in trunk and key not in new]
    unexpected = [key for key in trunk if key not in own]
    shapes = [f'{key} {tuple(trunk[key].shape)}, the model has {tuple(own[key].shape)}' for key in own
              if key in trunk and trunk[key].shape != own[key].shape]
    problems = [
        f'{len(keys)} {what}: {_list(keys)}'
        for what, keys in (('missing', missing), ('unexpected', unexpected), ('of another shape', shapes)) if keys
    ]
    if problems:
        lines = '\n  '.join([f'{filename} does not fit the backbone, so nothing was loaded.', *problems])
        raise PretrainedError(
            f'{lines}\nGive the checkpoint of the same arch, or set init_cfg=None to train from scratch.')


def _list(keys: list) -> str:
    return ', '.join(keys[:MAX_KEYS_SHOWN]) + (', ...' if len(keys) > MAX_KEYS_SHOWN else '')
