"""Where checkpoints come from: a path, ``file://``, ``http(s)://`` or ``timm://``."""
import os.path as osp
from contextlib import contextmanager
from typing import Iterator, Optional
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import timm
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from timm.models import get_pretrained_cfg, load_state_dict_from_hf

from .download import download
from .embedded_config import allowing_imports, check_embedded_configs
from .safe_reading import CheckpointError, is_trusting, read_checkpoint, trusting

TIMM = 'timm://'


def load_source(source: str, map_location='cpu') -> 'LoadedCheckpoint':
    """Reads a checkpoint from wherever it is, as data.

    Args:
        source: a path, ``file://PATH``, ``http(s)://...``, or ``timm://TAG`` such as
            ``timm://inception_next_tiny.sail_in1k``, which goes through timm's own hub code, cache and settings.
        map_location: device for the tensors, as in ``torch.load``.

    Raises:
        CheckpointError: if the file cannot be had, is damaged, or holds more than data.
    """
    if source.startswith(TIMM):
        state = _load_from_timm(source[len(TIMM):])
        return LoadedCheckpoint(dict(state_dict=state), source, _checked_meta({}, source))
    path = source
    if source.lower().startswith(('http://', 'https://')):
        path = download(source)
    elif source.startswith('file://'):
        path = url2pathname(urlsplit(source).netloc + urlsplit(source).path)
    checkpoint = read_checkpoint(osp.expanduser(path), map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'{source} is no checkpoint: it holds {type(checkpoint).__name__}, not a dict')
    meta = _checked_meta(checkpoint.get('meta') or {}, source)
    check_embedded_configs(meta, source)
    return LoadedCheckpoint(checkpoint, source, meta)


class LoadedCheckpoint(dict):
    """A checkpoint as it was saved.

    Attributes:
        source: where it came from.
        meta: what it says of itself, with a ``dataset_meta`` in any case, whose ``classes`` and ``palette`` are lists
            or tuples.
    """

    def __init__(self, checkpoint: dict, source: str, meta: dict) -> None:
        super().__init__(checkpoint)
        self.source, self.meta = source, meta


def _checked_meta(meta: dict, source: str) -> dict:
    if not isinstance(meta, dict) or not isinstance(meta.get('dataset_meta') or {}, dict):
        raise CheckpointError(f'{source} is no checkpoint: its meta, or the dataset_meta in it, is no dict')
    dataset_meta = dict(meta.get('dataset_meta') or {})
    for key in ('classes', 'palette'):
        value = dataset_meta.get(key)
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(value or (), (list, tuple)):
            raise CheckpointError(f'{source} is no checkpoint: {key} in its dataset_meta is {type(value).__name__}, '
                                  'not a list')
        dataset_meta[key] = value or ()
    return {**meta, 'dataset_meta': dataset_meta}


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
    imports = (cfg or {}).get('custom_imports') or ()
    names = imports.get('imports') or () if isinstance(imports, dict) else imports
    try:
        with trusting(trust), allowing_imports(names):
            yield
    finally:
        CheckpointLoader._schemes, mmengine_checkpoint.load_from_http = loaders, load_from_http


def load_from_source(filename: str, map_location=None, **kwargs) -> LoadedCheckpoint:
    """:func:`load_source` as one of MMEngine's loaders, which it names in its log by what follows ``load_from_``."""
    checkpoint = load_source(filename, map_location)
    if not is_trusting():
        (checkpoint.get('meta') or {}).pop('config', None)  # MMEngine would run it
    return checkpoint


def _refuse(filename: str, map_location=None, **kwargs) -> dict:
    raise CheckpointError(f'{filename}: this storage is not read here; copy the file to a disk and give its path')
