"""Where checkpoints come from: a path, ``file://``, ``http(s)://``, ``timm://`` or ``hf://``."""
import os.path as osp
from typing import Any, List, Optional, Tuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import timm
from timm.models import get_pretrained_cfg, load_state_dict_from_hf

from mmseg_inceptionnext.errors import CheckpointError

from .download import download
from .hub import HUB, fetch_folder
from .model_folder import read_folder
from .safe_reading import read_checkpoint

TIMM = 'timm://'
MAX_CLASSES = 2**16
MAX_NAME = 200  # characters of a class


def load_source(source: str) -> 'LoadedCheckpoint':
    """Reads a checkpoint from wherever it is, as data, into the CPU's memory.

    Args:
        source: a path, also of a folder as :meth:`mmseg_inceptionnext.Segmenter.save_pretrained` writes it;
            ``file://PATH``; ``http(s)://...``; ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION``, such a folder on the
            hub of Hugging Face; or ``timm://TAG`` such as ``timm://inception_next_tiny.sail_in1k``, which goes through
            timm's own hub code, cache and settings.

    Raises:
        CheckpointError: if the file cannot be had, is damaged, or holds more than data.
    """
    if source.startswith(TIMM):
        state = _load_from_timm(source[len(TIMM):])
        return LoadedCheckpoint(dict(state_dict=state), source)
    if source.startswith(HUB):
        return LoadedCheckpoint(read_folder(fetch_folder(source), may_link=True), source)
    path = source
    if source.lower().startswith(('http://', 'https://')):
        path = download(source)
    elif source.startswith('file://'):
        path = url2pathname(urlsplit(source).netloc + urlsplit(source).path)
    path = osp.expanduser(path)
    checkpoint = read_folder(path) if osp.isdir(path) else read_checkpoint(path)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'{source} is no checkpoint: it holds {type(checkpoint).__name__}, not a dict')
    return LoadedCheckpoint(checkpoint, source)


class LoadedCheckpoint(dict):
    """A checkpoint as it was saved, with ``source``, where it came from, and ``meta``, what it says of itself."""

    def __init__(self, checkpoint: dict, source: str) -> None:
        super().__init__(checkpoint)
        self.source, self.meta = source, checkpoint.get('meta') or {}
        if not isinstance(self.meta, dict) or not isinstance(self.meta.get('dataset_meta') or {}, dict):
            raise CheckpointError(f'{source} is no checkpoint: its meta, or the dataset_meta in it, is no dict')

    @property
    def is_fused(self) -> bool:
        """Whether the weights are those of :func:`mmseg_inceptionnext.fuse`, which can only predict."""
        return self.meta.get('fused') is True

    def refuse_fused(self) -> None:
        """Raises CheckpointError if the weights are fused, for who trains or resumes or evaluates by a runner."""
        if self.is_fused:
            raise CheckpointError(
                f'{self.source} holds a fused model, whose norms are folded into its convolutions: it can only '
                'predict, by Segmenter, tools/infer.py and tools/app.py. Take the checkpoint that it was made from, or '
                'the folder that is written without --fuse')

    def classes(self, metainfo: Optional[dict] = None) -> Tuple[Tuple[str, ...], List[List[int]]]:
        """Names of the classes, printable, and their colours, of ``metainfo`` or else of the checkpoint.

        Both are empty if they are not named; raises CheckpointError if they are something else.
        """
        metainfo = self.meta.get('dataset_meta') or {} if metainfo is None else metainfo
        names, colors = (value.tolist() if isinstance(value, np.ndarray) else value or ()
                         for value in (metainfo.get('classes'), metainfo.get('palette')))
        if not isinstance(names, (list, tuple)) or len(names) > MAX_CLASSES or not all(
                isinstance(name, str) and len(name) <= MAX_NAME for name in names):
            raise CheckpointError(f'{self.source}: its classes are no list of up to {MAX_CLASSES} names, each a text '
                                  f'of up to {MAX_NAME} characters')
        if not isinstance(colors, (list, tuple)) or not all(map(_is_color, colors)):
            raise CheckpointError(f'{self.source}: its palette is no list of colours, each three whole numbers from 0 '
                                  'to 255')
        return (tuple(''.join(c if c.isprintable() else '?' for c in name) for name in names),
                [[int(value) for value in color] for color in colors])


def _is_color(color: Any) -> bool:
    return isinstance(color, (list, tuple, np.ndarray)) and len(color) == 3 and all(
        isinstance(value, (int, np.integer)) and 0 <= value <= 255 for value in color)


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
