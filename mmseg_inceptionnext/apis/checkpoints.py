"""Says what a checkpoint holds, and writes the lean one that is shared."""
import hashlib
import io
import json
import os
import os.path as osp
from collections import Counter
from contextlib import nullcontext
from typing import Dict, Optional, Tuple

import safetensors.torch
import torch
from mmengine.config import Config
from prettytable import PrettyTable
from torch import Tensor, nn

from mmseg_inceptionnext.checkpoints import embedded_config, guarded_build, load_source, safe_checkpoints
from mmseg_inceptionnext.checkpoints.compare import AVERAGED, check_segmentor, segmentor_weights
from mmseg_inceptionnext.checkpoints.embedded_config import PUBLISHED, holds_config, inference_config, to_json
from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.checkpoints.sources import LoadedCheckpoint
from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.errors import CheckpointError, InputError
from mmseg_inceptionnext.models import InceptionNeXt
from mmseg_inceptionnext.models.backbones import MetaNeXtBase
from mmseg_inceptionnext.models.backbones.pretrained import check_backbone, extract_trunk, recognise_arch
from mmseg_inceptionnext.version import __version__

FORMATS = ('.pth', '.pt', '.safetensors')


def check_checkpoint(source: str, config: Optional[str] = None, trust_checkpoint: bool = False) -> Tuple[str, str]:
    """Says what a checkpoint holds and whether it would load.

    A whole segmentor is compared with the model of the config, any other file with its backbone. Without a config the
    one inside the checkpoint is taken, and where there is none, the backbone of the recognised arch.

    Args:
        source: a path or what else :func:`load_source` takes.
        config: config file.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Returns:
        A table to print, and why it would not load: empty if it would.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, or holds more than data or no weights.
        ConfigError: if there is no such config, or its model cannot be built here.
    """
    cfg = load_config(config) if config else None
    with safe_checkpoints(trust_checkpoint):
        checkpoint = load_source(source)
        if config is None and holds_config(checkpoint.meta):
            cfg = embedded_config(checkpoint.meta, source)
        trunk = extract_trunk(checkpoint, source)
        arch = recognise_arch(trunk.tensors)
        state = _whole_state(checkpoint, source)
        is_segmentor = any(key.startswith('decode_head.') for key in state)
        with nullcontext() if config else guarded_build(state):
            model = _build(cfg, arch, is_segmentor, config or f'the config inside {source}')
    table = _table(checkpoint, trunk.form, arch, is_segmentor, state if is_segmentor else trunk.tensors)
    if model is None:
        return table, f'nothing to compare {source} with: name the config it is meant for by --config'
    try:
        if is_segmentor:
            check_segmentor(model, checkpoint, source)
        else:
            check_backbone(model, trunk.tensors, source)
    except CheckpointError as error:
        return table, str(error)
    return table, ''


def _whole_state(checkpoint: dict, source: str) -> Dict[str, Tensor]:
    try:
        return segmentor_weights(checkpoint, source)
    except CheckpointError:  # a classifier under another name
        return {}


def _build(cfg: Optional[Config], arch: str, is_segmentor: bool, source: str) -> Optional[nn.Module]:
    """What the checkpoint is compared with: the segmentor, its backbone, or None if neither is known."""
    if cfg is not None:
        model = build_model(cfg, source)
        if is_segmentor:
            return model
        backbone = getattr(model, 'backbone', None)
        return backbone if isinstance(backbone, MetaNeXtBase) else None
    return InceptionNeXt(arch) if arch in InceptionNeXt.arch_settings and not is_segmentor else None


def _table(checkpoint: LoadedCheckpoint, form: str, arch: str, is_segmentor: bool, tensors: Dict[str, Tensor]
           ) -> str:
    classes, iteration = checkpoint.classes()[0], checkpoint.meta.get('iter')
    dtypes = Counter(str(value.dtype).replace('torch.', '') for value in tensors.values())
    table = PrettyTable(header=False, align='l', max_width=90)
    table.add_rows([
        ['file', checkpoint.source],
        ['format', 'safetensors' if checkpoint.source.endswith('.safetensors') else f'PyTorch ({form})'],
        ['holds', 'a whole segmentor' if is_segmentor else 'a backbone'],
        ['arch', arch or 'not recognised'],
        ['tensors', f'{len(tensors)}, {sum(value.numel() for value in tensors.values()) / 1e6:.2f} M numbers'],
        ['dtype', ', '.join(f'{dtype} ({count})' for dtype, count in dtypes.most_common())],
        ['classes', f'{len(classes)}: {", ".join(classes)}' if classes else 'not named'],
        ['iteration', iteration if isinstance(iteration, int) else 'not named'],
        ['config inside', 'yes' if holds_config(checkpoint.meta) else 'no'],
    ])
    return table.get_string()


def publish_checkpoint(source: str, out: str, ema: bool = False, trust_checkpoint: bool = False) -> str:
    """Writes a lean checkpoint for sharing: weights, classes and palette, config, version.

    Args:
        source: a segmentor's checkpoint as MMEngine's runner wrote it.
        out: file to write, ``.pth`` or ``.safetensors``; the first eight digits of its SHA-256 come into its name.
        ema: take the weights that were averaged in training. MMEngine's EMAHook keeps those where the others
            would be, so for its checkpoints this makes no difference.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Returns:
        The path written, such as ``NAME-1a2b3c4d.pth``.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, no config or no classes, or,
            with ``ema``, no averaged weights, or does not fit its own config.
        ValueError: if ``out`` ends in anything else, or the model of the config cannot be built here.
    """
    stem, suffix = osp.splitext(out)
    if suffix not in FORMATS:
        raise InputError(f'{out}: allowed are files that end in {", ".join(FORMATS)}')
    with safe_checkpoints(trust_checkpoint):
        checkpoint = load_source(source)
        classes, palette = checkpoint.classes()
        if not holds_config(checkpoint.meta) or not classes:
            raise CheckpointError(f'{source} holds no config or no classes, so it would be of no use alone; publish '
                                  "one that MMEngine's runner wrote")
        chosen = dict(state_dict=_averaged(checkpoint, source)) if ema else checkpoint
        weights = segmentor_weights(chosen, source)
        cfg = inference_config(embedded_config(checkpoint.meta, source).to_dict(), source)
    meta = {PUBLISHED: to_json(cfg.to_dict()), 'mmseg_inceptionnext_version': __version__,
            'dataset_meta': dict(classes=list(classes), palette=palette)}
    with guarded_build(weights):  # from what is written
        check_segmentor(build_model(embedded_config(meta, source), f'the config inside {source}'), chosen, source)
    return _write(weights, meta, stem, suffix)


def _write(weights: Dict[str, Tensor], meta: dict, stem: str, suffix: str) -> str:
    content = _serialise({key: value.detach().clone().contiguous() for key, value in weights.items()}, meta, suffix)
    path = f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}'
    make_folder(path)
    with open(path + '.part', 'wb') as file:
        file.write(content)
    os.replace(path + '.part', path)
    return path


def _averaged(checkpoint: dict, source: str) -> dict:
    for name in AVERAGED:
        if name in checkpoint:
            return checkpoint[name]
    if 'ema_state_dict' in checkpoint:
        return checkpoint['state_dict']  # MMEngine has exchanged the two
    raise CheckpointError(f'{source} holds no averaged weights: looked for {", ".join(AVERAGED)} and ema_state_dict; '
                          'publish it without --ema')


def _serialise(weights: Dict[str, Tensor], meta: dict, suffix: str) -> bytes:
    if suffix == '.safetensors':
        return safetensors.torch.save(weights, metadata=dict(meta=json.dumps(meta)))
    buffer = io.BytesIO()
    torch.save(dict(state_dict=weights, meta=meta), buffer)
    return buffer.getvalue()
