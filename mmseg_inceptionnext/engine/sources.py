"""Where checkpoints come from: a path, ``file://``, ``http(s)://`` or ``timm://``."""
import os.path as osp
from contextlib import contextmanager
from typing import Iterator, Optional
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mmengine.runner.checkpoint as mmengine_checkpoint
import timm
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from timm.models import get_pretrained_cfg, load_state_dict_from_hf

from .download import download
from .embedded_config import allowing_imports, check_embedded_configs
from .safe_reading import CheckpointError, is_trusting, read_checkpoint, trusting

TIMM = 'timm://'


def load_source(source: str, map_location='cpu') -> dict:
    """Reads a checkpoint from wherever it is, as data.

    Args:
        source: a path, ``file://PATH``, ``http(s)://...``, or ``timm://TAG`` such as
            ``timm://inception_next_tiny.sail_in1k``, which goes through timm's own hub code, cache and settings.
        map_location: device for the tensors, as in ``torch.load``.

    Raises:
        CheckpointError: if the file cannot be had, is damaged, or holds more than data.
    """
    if source.startswith(TIMM):
        return dict(state_dict=_load_from_timm(source[len(TIMM):]))
    path = source
    if source.startswith(('http://', 'https://')):
        path = download(source)
    elif source.startswith('file://'):
        path = url2pathname(urlsplit(source).netloc + urlsplit(source).path)
    checkpoint = read_checkpoint(osp.expanduser(path), map_location)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('meta', {}), dict):
        raise CheckpointError(f'{source} is no checkpoint: it holds no dict, or a meta that is none')
    check_embedded_configs(checkpoint.get('meta', {}), source)
    return checkpoint


def _load_from_timm(tag: str) -> dict:
    try:
        hub_id = get_pretrained_cfg(tag, allow_unregistered=False).hf_hub_id
    except (RuntimeError, AttributeError) as error:  # a name without that tag, a name that timm has not (None)
        known = ', '.join(timm.list_models('inception_next*', pretrained=True))
        raise CheckpointError(f'{TIMM}{tag} is not known to timm {timm.__version__}; it has {known}') from error
    try:
        return load_state_dict_from_hf(hub_id, weights_only=True)
    except Exception as error:  # the hub's client has dozens of errors: network, offline, gated, missing
        raise CheckpointError(
            f'{TIMM}{tag} cannot be had from the hub: {error}\nDownload model.safetensors of {hub_id} elsewhere and '
            'give its path: --cfg-options model.backbone.init_cfg.checkpoint=model.safetensors') from error


@contextmanager
def safe_checkpoints(trust: bool = False, cfg: Optional[Config] = None) -> Iterator[None]:
    """Within it, MMEngine reads every checkpoint through :func:`load_source`: as data, unless ``trust`` is true.

    MMEngine's runner, hooks and pretrained models all read through its table of loaders; that table is exchanged and
    put back.

    Args:
        trust: read full pickles, and run the configs inside checkpoints.
        cfg: the user's own config, whose ``custom_imports`` the configs inside checkpoints may name too.
    """
    loaders, load_from_http = dict(CheckpointLoader._schemes), mmengine_checkpoint.load_from_http
    ours = {prefix: load_from_source for prefix in ('', 'file://', 'http://', 'https://', TIMM)}
    others = {prefix: _refuse for prefix in loaders if any(word in prefix for word in ('s3', 'petrel', 'pavi'))}
    CheckpointLoader._schemes = dict(sorted({**loaders, **others, **ours}.items(), reverse=True))
    mmengine_checkpoint.load_from_http = load_from_source  # what torchvision:// and open-mmlab:// come down to
    imports = (cfg or {}).get('custom_imports') or {}
    try:
        with trusting(trust), allowing_imports(imports.get('imports') or ()):
            yield
    finally:
        CheckpointLoader._schemes, mmengine_checkpoint.load_from_http = loaders, load_from_http


def load_from_source(filename: str, map_location=None, **kwargs) -> dict:
    """:func:`load_source` as one of MMEngine's loaders, which it names in its log by what follows ``load_from_``."""
    checkpoint = load_source(filename, map_location)
    if not is_trusting():
        checkpoint.get('meta', {}).pop('config', None)  # MMEngine would run it
    return checkpoint


def _refuse(filename: str, map_location=None, **kwargs) -> dict:
    raise CheckpointError(f'{filename}: this storage is not read here; copy the file to a disk and give its path')
