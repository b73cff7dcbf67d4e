"""All that is put into MMEngine and PyTorch to read checkpoints as data.

It is installed once, when this package is imported, and asks the context variables of :func:`safe_checkpoints` and
:func:`guarded_build`: outside of them everything is as it was, also in other threads. What these hold on to is checked
by ``tests/test_checkpoints/test_patches.py``.
"""
from functools import wraps
from typing import Any, Callable

import mmengine.registry.registry as registry_module
import mmengine.runner.checkpoint as mmengine_checkpoint
from mmengine.runner import CheckpointLoader
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from mmseg_inceptionnext.errors import CheckpointError

from .embedded_config import count_part, find_registered, is_guarded_build
from .safe_reading import is_guarding, is_trusting
from .sources import LoadedCheckpoint, load_source


def _load(filename: str) -> LoadedCheckpoint:
    checkpoint = load_source(filename)
    checkpoint.refuse_fused()
    if not is_trusting():
        checkpoint.meta.pop('config', None)  # MMEngine would run it
    return checkpoint


def _refuse(filename: str) -> LoadedCheckpoint:
    raise CheckpointError(f'{filename}: this storage is not read here; copy the file to a disk and give its path')


def _guarded(load: Callable, instead: Callable = _load) -> Callable:
    """One of MMEngine's loaders, with another in its place within :func:`safe_checkpoints`."""
    @wraps(load)  # MMEngine logs its name
    def loader(filename: str, *args, **kwargs) -> dict:
        return instead(filename) if is_guarding() else load(filename, *args, **kwargs)
    return loader


def _find_object(name: str, find: Callable = registry_module.get_object_from_string) -> Any:
    return find_registered(name) if is_guarded_build() else find(name)


# MMEngine unpickles what it reads. '' stands for all paths without a scheme of their own, such as file:// and timm://.
CheckpointLoader.register_scheme('', _guarded(mmengine_checkpoint.load_from_local), force=True)
_load_from_http = _guarded(mmengine_checkpoint.load_from_http)
CheckpointLoader.register_scheme(['http://', 'https://'], _load_from_http, force=True)
CheckpointLoader.register_scheme('pavi://', _guarded(mmengine_checkpoint.load_from_pavi, _refuse), force=True)
CheckpointLoader.register_scheme([r'(\S+\:)?s3://', r'(\S+\:)?petrel://'],
                                 _guarded(mmengine_checkpoint.load_from_ceph, _refuse), force=True)
# torchvision://, open-mmlab:// and mmcls:// look up a URL, which they fetch by this function. There is no other way in.
mmengine_checkpoint.load_from_http = _load_from_http
# A registry imports the module of a name that it does not know, and takes what it finds there, such as os.system.
registry_module.get_object_from_string = _find_object
# A config could name a model of any size. PyTorch offers these hooks, for all modules of the process.
register_module_parameter_registration_hook(count_part)
register_module_buffer_registration_hook(count_part)
register_module_module_registration_hook(count_part)
