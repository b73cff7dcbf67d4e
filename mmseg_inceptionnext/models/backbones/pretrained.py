"""Loads pretrained weights into the backbone, whole or not at all."""
import logging
import os.path as osp
import re
from typing import Dict, List, NamedTuple, Sequence, Set, Tuple

from mmengine.logging import print_log
from timm.models import adapt_input_conv
from torch import Tensor, nn

from mmseg_inceptionnext.checkpoints.compare import (
    WRAPPERS,
    Comparison,
    check_finite,
    compare,
    describe,
    listed,
    tensors_in,
)
from mmseg_inceptionnext.checkpoints.download import PUBLISHED
from mmseg_inceptionnext.checkpoints.sources import load_source
from mmseg_inceptionnext.errors import CheckpointError

WHOLE_PREFIXES = ('module.', '_orig_mod.', 'model.', 'timm_model.')  # before every name, or before none
PART_PREFIXES = ('backbone.', 'encoder.')  # before the names of the backbone in a whole segmentor
CONVNEXT_NAMES = ('conv_dw.', '.dwconv.', 'pwconv1.', 'downsample_layers.', 'depthwise_conv.')


class Trunk(NamedTuple):
    """The backbone's part of a checkpoint, under the published names.

    Attributes:
        tensors: name to tensor, without the classifier.
        form: how it was wrapped, such as ``state_dict / backbone.``.
        ignored: names of the classifier's tensors that were left out.
    """
    tensors: Dict[str, Tensor]
    form: str
    ignored: List[str]


def extract_trunk(checkpoint: dict, source: str) -> Trunk:
    """Finds the backbone in any of the forms in which it goes round.

    A bare state dict, or one under ``state_dict``, ``model``, ``state_dict_ema`` or ``model_ema``; with prefixes such
    as ``module.`` or ``backbone.``; with timm's flat names (``stages_0``); a whole segmentor.

    Raises:
        CheckpointError: if there are no tensors in it.
    """
    form = []
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), dict) and checkpoint[wrapper]:
            checkpoint = checkpoint[wrapper]
            form.append(wrapper)
    tensors, prefixes = _without_prefixes(tensors_in(checkpoint, source), source)
    flat = re.compile(r'^(stem|stages)_(\d+)\.')
    if any(flat.match(key) for key in tensors):
        form.append('timm features_only')
        tensors = {flat.sub(r'\1.\2.', key): value for key, value in tensors.items()}
    ignored = [key for key in tensors if key.startswith('head.')]
    trunk = {key: value for key, value in tensors.items() if not key.startswith('head.')}
    return Trunk(trunk, ' / '.join([*form, *prefixes]) or 'bare state dict', ignored)


def _without_prefixes(tensors: Dict[str, Tensor], source: str) -> Tuple[Dict[str, Tensor], List[str]]:
    prefixes = []
    while True:
        whole = [p for p in WHOLE_PREFIXES if all(key.startswith(p) for key in tensors)]
        part = [p for p in PART_PREFIXES if any(key.startswith(p) for key in tensors)]
        if not whole and not part:
            return tensors, prefixes
        prefix = (whole or part)[0]
        prefixes.append(prefix)
        beside = [key for key in tensors if key.startswith(('stem.', 'stages.')) and not whole]
        if beside:
            raise CheckpointError(f'{source} holds more than one trunk: beside {prefix}* there are {listed(beside)}; '
                                  'which one is meant cannot be known, so nothing was loaded')
        tensors = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}


def recognise_arch(tensors: Dict[str, Tensor]) -> str:
    """Name of the published size that has these tensors, ``ConvNeXt`` if it looks like one, or an empty string."""
    from mmseg_inceptionnext.models.backbones.inceptionnext import InceptionNeXt  # which loads through this module
    if any(name in key for key in tensors for name in CONVNEXT_NAMES):
        return 'ConvNeXt'
    depths, dims = _depths(tensors), _dims(tensors)
    for name, settings in InceptionNeXt.arch_settings.items():
        if depths and depths == settings['depths'][:len(depths)] and dims == settings['dims'][:len(dims)]:
            if len(depths) > 2 or name == 'atto' or dims[0] == 128:  # tiny and small part at the third stage
                return name
    return ''


def _depths(tensors: Dict[str, Tensor]) -> Tuple[int, ...]:
    blocks: Dict[int, Set[int]] = {}
    for key in tensors:
        found = re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', key)
        if found:
            blocks.setdefault(int(found.group(1)), set()).add(int(found.group(2)))
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _dims(tensors: Dict[str, Tensor]) -> Tuple[int, ...]:
    convs = [tensors.get('stem.0.weight')] + [tensors.get(f'stages.{i}.downsample.1.weight') for i in range(1, 10)]
    return tuple(len(conv) for conv in convs if conv is not None and conv.ndim)


def likely_cause(own: Dict[str, Tensor], trunk: Dict[str, Tensor]) -> str:
    """One line on what the file seems to be, if that explains the mismatch."""
    theirs, ours = recognise_arch(trunk), recognise_arch(own)
    if theirs == 'ConvNeXt':
        return 'This looks like ConvNeXt, not InceptionNeXt.'
    if theirs and theirs != ours:
        return f"This is arch '{theirs}', the model is {repr(ours) if ours else 'another one'}."
    return ''


def compare_with_backbone(backbone: nn.Module, trunk: Dict[str, Tensor]) -> Tuple[Comparison, Dict[str, Tensor]]:
    """Compares a trunk with a MetaNeXt, and returns it as that backbone takes it.

    Stages and output norms that the backbone was built without are left out, since its ``out_indices`` do not need
    them, and the first convolution is adapted to its ``in_channels``.
    """
    own = backbone.state_dict()
    unbuilt = tuple(f'{name}.' for name in backbone.unbuilt_names)
    trunk = {key: value for key, value in trunk.items() if not key.startswith(unbuilt)}
    channels = own['stem.0.weight'].shape[1]
    if _needs_adapted_stem(trunk, channels):
        trunk['stem.0.weight'] = adapt_input_conv(channels, trunk['stem.0.weight'])
    given = {key.split('.')[0] for key in trunk}
    new = [key for key in own if key.startswith('norm') and key.split('.')[0] not in given]
    return compare(own, trunk, may_be_new=new), trunk


def _needs_adapted_stem(trunk: Dict[str, Tensor], channels: int) -> bool:
    stem = trunk.get('stem.0.weight')
    return stem is not None and stem.ndim == 4 and stem.shape[1] == 3 != channels


def check_backbone(backbone: nn.Module, tensors: Dict[str, Tensor], source: str, allow_partial: bool = False
                   ) -> Tuple[Comparison, Dict[str, Tensor]]:
    """:func:`compare_with_backbone`, with an error for what does not fit.

    Raises:
        CheckpointError: unless every tensor of the trunk is there with its shape, and no other; with ``allow_partial``,
            if none is.
    """
    result, trunk = compare_with_backbone(backbone, tensors)
    if not result.fits and not (allow_partial and result.loaded):
        own = backbone.state_dict()
        raise CheckpointError(
            f'{source} does not fit the backbone, so nothing was loaded. {likely_cause(own, tensors)}\n'
            f'{describe(result, own, trunk)}\nGive the checkpoint of the same arch, set allow_partial=True beside it '
            'to load what fits, or init_cfg=None to train from scratch.')
    check_finite({key: backbone.state_dict()[key] for key in result.loaded}, trunk, source)
    return result, trunk


def load_pretrained(backbone: nn.Module, source: str, allow_partial: bool = False) -> None:
    """Loads a checkpoint into a MetaNeXt backbone, whole or not at all.

    The classifier and the stages that the backbone was built without are left out, the norms on the outputs may be
    missing, since a classifier has none, and the first convolution is adapted to ``in_channels``: summed for one
    channel, repeated and rescaled for others. Everything else must match, name by name and shape by shape.

    Args:
        backbone: the module that takes the weights.
        source: see :func:`load_source`; forms as in :func:`extract_trunk`.
        allow_partial: load what matches and warn of the rest.

    Raises:
        CheckpointError: if the file cannot be had or read, or does not match; nothing is loaded then.
    """
    if '://' not in source and not osp.isfile(osp.expanduser(source)):
        raise CheckpointError(
            f'{source}: no such file of pretrained weights. Put it there, or name another by --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE: a path, '
            f'{PUBLISHED}inceptionnext_tiny.pth (or _atto, _small, _base), timm://inception_next_tiny.sail_in1k')
    found = extract_trunk(load_source(source), source)
    result, trunk = check_backbone(backbone, found.tensors, source, allow_partial)
    own = backbone.state_dict()
    backbone.load_state_dict({**own, **{key: trunk[key] for key in result.loaded}})
    print_log(_summary(found, result, own, source), logger='current')
    if not result.fits:
        print_log(f'pretrained: only part of {source} fits.\n{describe(result, own, trunk)}', logger='current',
                  level=logging.WARNING)


def _summary(found: Trunk, result: Comparison, own: Dict[str, Tensor], source: str) -> str:
    line = (f'pretrained: {len(result.loaded)}/{len(own) - len(result.new)} tensors from {source}; '
            f'ignored head.* ({len(found.ignored)}); new: {_range([key.split(".")[0] for key in result.new])}')
    channels = own['stem.0.weight'].shape[1]
    if _needs_adapted_stem(found.tensors, channels):
        how = 'summed' if channels == 1 else 'repeated and rescaled'
        line += f'; stem adapted from 3 to {channels} channels ({how})'
    return line


def _range(norms: Sequence[str]) -> str:
    """``norm0..norm3`` for norms of neighbouring stages, else each by name."""
    names = sorted(set(norms))
    neighbours = [f'norm{int(names[0][4:]) + i}' for i in range(len(names))] if names else []
    if len(names) > 2 and names == neighbours:
        return f'{names[0]}..{names[-1]}'
    return ', '.join(names) or 'none'
