"""Says what a checkpoint holds, and writes the lean one that is shared."""
import hashlib
import io
import json
import os.path as osp
from contextlib import nullcontext, suppress
from typing import Optional, Tuple

import safetensors.torch
import torch
from mmengine.config import Config
from mmseg.models.segmentors import BaseSegmentor
from prettytable import PrettyTable
from torch import nn

from mmseg_inceptionnext.checkpoints import (
    check_segmentor,
    embedded_config,
    guarded_build,
    load_source,
    safe_checkpoints,
)
from mmseg_inceptionnext.checkpoints.compare import segmentor_weights
from mmseg_inceptionnext.checkpoints.embedded_config import PUBLISHED, holds_config, inference_config, to_json
from mmseg_inceptionnext.checkpoints.files import AtomicBackend
from mmseg_inceptionnext.checkpoints.hub import check_hub_name, push_folder
from mmseg_inceptionnext.config import build_model, load_config
from mmseg_inceptionnext.errors import CheckpointError, InputError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.models import InceptionNeXt, fuse
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
        trunk, is_segmentor = extract_trunk(checkpoint, source).tensors, False
        arch = recognise_arch(trunk)
        with suppress(CheckpointError):  # a classifier may stand under another name
            state = segmentor_weights(checkpoint, source)
            is_segmentor = any(key.startswith('decode_head.') for key in state)
        tensors = state if is_segmentor else trunk
        with nullcontext() if config else guarded_build(tensors):
            model = _build(cfg, arch, is_segmentor, config or f'the config inside {source}')
    if checkpoint.is_fused and isinstance(model, BaseSegmentor):
        fuse(model, inplace=True)
    classes = checkpoint.classes()[0]
    table = PrettyTable(header=False, align='l', max_width=90)
    table.add_rows([
        ['holds', f'a {"whole segmentor" if is_segmentor else "backbone"}, arch {arch or "not recognised"}'],
        ['tensors', f'{len(tensors)}, {sum(value.numel() for value in tensors.values()) / 1e6:.2f} M numbers'],
        ['classes', f'{len(classes)}: {", ".join(classes)}' if classes else 'not named'],
        ['config inside', 'yes' if holds_config(checkpoint.meta) else 'no']])
    problem = ''
    try:
        if model is None:
            problem = f'nothing to compare {source} with: name the config it is meant for by --config'
        elif is_segmentor:
            check_segmentor(model, checkpoint, source)
        else:
            check_backbone(model, trunk, source)
    except CheckpointError as error:
        problem = str(error)
    return table.get_string(), problem


def _build(cfg: Optional[Config], arch: str, is_segmentor: bool, source: str) -> Optional[nn.Module]:
    """What the checkpoint is compared with: the segmentor, its backbone, or None if neither is known."""
    if cfg is None:
        return InceptionNeXt(arch) if arch in InceptionNeXt.arch_settings and not is_segmentor else None
    model = build_model(cfg, source)
    model = model if is_segmentor else getattr(model, 'backbone', None)
    return model if is_segmentor or isinstance(model, MetaNeXtBase) else None


def publish_checkpoint(source: str, out: str, trust_checkpoint: bool = False) -> str:
    """Writes a lean checkpoint for sharing: weights, classes and palette, config, version.

    Args:
        source: a segmentor's checkpoint as MMEngine's runner wrote it. Where training averaged the weights, it holds
            the averaged ones.
        out: file to write, ``.pth`` or ``.safetensors``; the first eight digits of its SHA-256 come into its name.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Returns:
        The path written, such as ``NAME-1a2b3c4d.pth``.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, holds more than data, no config or no classes, or does
            not fit its own config.
        InputError: if ``out`` ends in anything else.
        ConfigError: if the model of the config cannot be built here.
    """
    stem, suffix = osp.splitext(out)
    if suffix not in FORMATS:
        raise InputError(f'{out}: allowed are files that end in {", ".join(FORMATS)}')
    with safe_checkpoints(trust_checkpoint):
        checkpoint = load_source(source)
        checkpoint.refuse_fused()
        classes, palette = checkpoint.classes()
        if not holds_config(checkpoint.meta) or not classes:
            raise CheckpointError(f'{source} holds no config or no classes, so it would be of no use alone; publish '
                                  "one that MMEngine's runner wrote")
        weights = segmentor_weights(checkpoint, source)
        cfg = inference_config(embedded_config(checkpoint.meta, source).to_dict(), source)
    meta = {PUBLISHED: to_json(cfg.to_dict()), 'mmseg_inceptionnext_version': __version__,
            'dataset_meta': dict(classes=list(classes), palette=palette)}
    with guarded_build(weights):  # from what is written
        check_segmentor(build_model(embedded_config(meta, source), f'the config inside {source}'), checkpoint, source)
    weights = {key: value.detach().clone().contiguous() for key, value in weights.items()}
    if suffix == '.safetensors':
        content = safetensors.torch.save(weights, metadata=dict(meta=json.dumps(meta)))
    else:
        buffer = io.BytesIO()
        torch.save(dict(state_dict=weights, meta=meta), buffer)
        content = buffer.getvalue()
    path = f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}'
    AtomicBackend().put(content, path)
    return path


def publish_folder(source: str, folder: str, fused: bool = False, push: Optional[str] = None,
                   trust_checkpoint: bool = False) -> str:
    """Writes a checkpoint as a folder that loads anywhere, see :meth:`mmseg_inceptionnext.Segmenter.save_pretrained`.

    Args:
        source: what :func:`load_source` takes.
        folder: where it is written.
        fused: write the fused form, which can only predict.
        push: ``USER/NAME`` on the hub of Hugging Face, to which the folder is then uploaded.
        trust_checkpoint: run what is inside the checkpoint, if it holds more than data.

    Returns:
        The folder, or the ``hf://`` name.

    Raises:
        CheckpointError, ConfigError, InputError: if the checkpoint cannot be used, or the folder not be written or
            uploaded.
    """
    name = check_hub_name(push) if push else None
    segmenter = Segmenter(source, device='cpu', fuse_model=fused, trust_checkpoint=trust_checkpoint)
    segmenter.save_pretrained(folder, name)
    return push_folder(folder, push) if push else folder
