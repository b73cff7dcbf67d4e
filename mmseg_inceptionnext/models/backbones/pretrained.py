"""Loads pretrained weights into the backbone, all of them or none."""
import logging
import os.path as osp
import re
from collections import Counter
from typing import Dict, List, NamedTuple, Tuple

from mmengine.logging import print_log
from mmseg.registry import MODELS
from timm.models import adapt_input_conv
from torch import Tensor, nn

from mmseg_inceptionnext.checkpoints.compare import (
    WRAPPERS,
    Comparison,
    check_finite,
    compare,
    describe,
    first_names,
    tensors_in,
)
from mmseg_inceptionnext.checkpoints.download import PUBLISHED
from mmseg_inceptionnext.checkpoints.sources import load_source
from mmseg_inceptionnext.errors import CheckpointError
from mmseg_inceptionnext.parts import type_name

WHOLE_PREFIXES = ('module.', '_orig_mod.', 'model.', 'timm_model.')  # before every name, or before none
PART_PREFIXES = ('backbone.', 'encoder.')  # before the names of the backbone in a whole segmentor
CONVNEXT_NAMES = ('conv_dw.', 'pwconv1.', 'pointwise_conv1.', 'downsample_layers.')  # of timm, its authors, mmpretrain
RENAMED = tuple((re.compile(theirs), ours) for theirs, ours in (  # from ConvNeXt's names to MetaNeXt's, in this order
    (r'^downsample_layers\.0\.', 'stem.'),
    (r'^downsample_layers\.(\d+)\.', r'stages.\1.downsample.'),
    (r'^stages\.(\d+)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'\.(dwconv\.conv|dwconv|conv_dw|depthwise_conv)\.', '.token_mixer.dwconv.'),
    (r'\.(?:pwconv|pointwise_conv)(\d)\.', r'.mlp.fc\1.'),
    (r'^stem\.(weight|bias)$', r'stem.0.\1'),  # of isotropic models
    (r'^norm3?\.', 'head.norm.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1')))


class Trunk(NamedTuple):
    """The backbone's part of a checkpoint, under the published names.

    Attributes:
        tensors: name to tensor, without the classifier.
        ignored: names of the classifier's tensors that were left out.
    """
    tensors: Dict[str, Tensor]
    ignored: List[str]


def extract_trunk(checkpoint: dict, source: str) -> Trunk:
    """Finds the backbone in any of the forms in which it circulates.

    A bare state dict, or one under ``state_dict``, ``model``, ``state_dict_ema`` or ``model_ema``; with prefixes such
    as ``module.`` or ``backbone.``; with timm's flat names (``stages_0``), or a ConvNeXt's; a whole segmentor.

    Raises:
        CheckpointError: if there are no tensors in it, or those of two backbones.
    """
    tensors = published_weights(checkpoint, source)
    trunk = {key: value for key, value in tensors.items() if not key.startswith('head.')}
    return Trunk(trunk, [key for key in tensors if key not in trunk])


def published_weights(checkpoint: dict, source: str) -> Dict[str, Tensor]:
    """The tensors of a classifier, or of a segmentor's backbone, under the published names; see :func:`extract_trunk`.

    In ConvNeXt's files the 1x1 convolutions are linear layers, with weights of two dimensions.
    """
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), dict) and checkpoint[wrapper]:
            checkpoint = checkpoint[wrapper]
    tensors = _without_prefixes(tensors_in(checkpoint, source), source)
    tensors = {re.sub(r'^(stem|stages)_(\d+)\.', r'\1.\2.', key): value for key, value in tensors.items()}
    if not any(name in key for key in tensors for name in CONVNEXT_NAMES):
        return tensors
    for theirs, ours in RENAMED:
        tensors = {theirs.sub(ours, key): value for key, value in tensors.items()}
    return {key: value[..., None, None] if '.mlp.' in key and value.ndim == 2 else value
            for key, value in tensors.items()}


def _without_prefixes(tensors: Dict[str, Tensor], source: str) -> Dict[str, Tensor]:
    while True:
        whole = [p for p in WHOLE_PREFIXES if all(key.startswith(p) for key in tensors)]
        part = [p for p in PART_PREFIXES if any(key.startswith(p) for key in tensors)]
        if not whole and not part:
            return tensors
        prefix = (whole or part)[0]
        beside = [key for key in tensors if key.startswith(('stem.', 'stages.')) and not whole]
        if beside:
            raise CheckpointError(f'{source} holds more than one trunk: beside {prefix}* there are '
                                  f'{first_names(beside)}; which one is meant cannot be known, so nothing was loaded')
        tensors = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}


def recognise_arch(tensors: Dict[str, Tensor]) -> str:
    """Name of the published size that has these tensors, ``ConvNeXt`` if it looks like one, or an empty string."""
    if any('.token_mixer.dwconv.' in key for key in tensors):
        return 'ConvNeXt'
    blocks = {match.groups() for match in map(re.compile(r'stages\.(\d+)\.blocks\.(\d+)\.').match, tensors) if match}
    counts = Counter(int(stage) for stage, _ in blocks)
    depths = tuple(counts[stage] for stage in sorted(counts))
    convs = [tensors.get('stem.0.weight'), *(tensors.get(f'stages.{i}.downsample.1.weight') for i in range(1, 10))]
    dims = tuple(len(conv) for conv in convs if conv is not None and conv.ndim)
    fitting = [name for name, settings in MODELS.get('InceptionNeXt').arch_settings.items()
               if depths and depths == settings['depths'][:len(depths)] and dims == settings['dims'][:len(dims)]]
    return fitting[0] if len(fitting) == 1 else ''  # tiny and small differ from the third stage on


def _likely_cause(own: Dict[str, Tensor], trunk: Dict[str, Tensor]) -> str:
    """One line on what the file seems to be, if that explains why it does not fit."""
    theirs, ours = recognise_arch(trunk), recognise_arch(own)
    if theirs == 'ConvNeXt' != ours:
        return 'This looks like ConvNeXt, not InceptionNeXt.'
    if theirs and theirs != ours:
        return f"This is arch '{theirs}', the model is {repr(ours) if ours else 'another one'}."
    return ''


def check_backbone(backbone: nn.Module, tensors: Dict[str, Tensor], source: str, allow_partial: bool = False
                   ) -> Tuple[Comparison, Dict[str, Tensor]]:
    """Compares a trunk with a MetaNeXt, and returns it as that backbone takes it.

    Stages and output norms that the backbone was built without are left out, since its ``out_indices`` do not need
    them, and the first convolution is adapted to its ``in_channels``.

    Raises:
        CheckpointError: unless every tensor of the trunk is there with its shape, and no other; with ``allow_partial``,
            if none is; or if a number is NaN or infinite.
    """
    own = backbone.state_dict()
    unbuilt = tuple(f'{name}.' for name in backbone.unbuilt_names)
    trunk = {key: value for key, value in tensors.items() if not key.startswith(unbuilt)}
    channels = own['stem.0.weight'].shape[1]
    if _needs_adapted_stem(trunk, channels):
        trunk['stem.0.weight'] = adapt_input_conv(channels, trunk['stem.0.weight'])
    given = {key.split('.')[0] for key in trunk}
    new = [key for key in own if key.startswith('norm') and key.split('.')[0] not in given]
    result = compare(own, trunk, may_be_new=new)
    if not result.fits and not (allow_partial and result.loaded):
        raise CheckpointError(
            f'{source} does not fit the backbone, so nothing was loaded. {_likely_cause(own, tensors)}\n'
            f'{describe(result, own, trunk)}\nGive the checkpoint of the same arch, set allow_partial=True beside it '
            'to load what fits, or init_cfg=None to train from scratch.')
    check_finite({key: own[key] for key in result.loaded}, trunk, source)
    return result, trunk


def _needs_adapted_stem(trunk: Dict[str, Tensor], channels: int) -> bool:
    stem = trunk.get('stem.0.weight')
    return stem is not None and stem.ndim == 4 and stem.shape[1] == 3 != channels


def load_pretrained(backbone: nn.Module, source: str, allow_partial: bool = False) -> None:
    """Loads a checkpoint into a MetaNeXt backbone, all of it or nothing.

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
    if '://' not in source and not osp.exists(osp.expanduser(source)):
        raise CheckpointError(
            f'{source}: no such file of pretrained weights. Put it there, or name another by --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE: a path, '
            f'{PUBLISHED}inceptionnext_tiny.pth (or _atto, _small, _base), timm://inception_next_tiny.sail_in1k')
    checkpoint = load_source(source)
    checkpoint.refuse_fused()
    found = extract_trunk(checkpoint, source)
    result, trunk = check_backbone(backbone, found.tensors, source, allow_partial)
    own = backbone.state_dict()
    backbone.load_state_dict({**own, **{key: trunk[key] for key in result.loaded}})
    new = ', '.join(dict.fromkeys(key.split('.')[0] for key in result.new)) or 'none'
    line = (f'pretrained: {len(result.loaded)}/{len(own) - len(result.new)} tensors from {source}; '
            f'ignored head.* ({len(found.ignored)}); new: {new}')
    channels = own['stem.0.weight'].shape[1]
    if _needs_adapted_stem(found.tensors, channels):
        line += (f'; stem adapted from 3 to {channels} channels '
                 f'({"summed" if channels == 1 else "repeated and rescaled"})')
    print_log(line, logger='current')
    if not result.fits:
        print_log(f'pretrained: only part of {source} fits.\n{describe(result, own, trunk)}', logger='current',
                  level=logging.WARNING)


def load_classifier(model: nn.Module, init_cfg: dict) -> None:
    """Loads a whole classifier, head included, or nothing, by a ``Pretrained`` in ``init_cfg``.

    Raises:
        CheckpointError: if the file cannot be had or read, or does not match.
    """
    settings = {key: value for key, value in init_cfg.items() if key != 'type'}
    if type_name(init_cfg) not in ('Pretrained', 'PretrainedInit') or set(settings) != {'checkpoint'}:
        raise CheckpointError(f"model.init_cfg={init_cfg!r}: a classifier takes dict(type='Pretrained', "
                              'checkpoint=FILE), which loads all of it; for its trunk set model.backbone.init_cfg')
    source = settings['checkpoint']
    own, tensors = model.state_dict(), published_weights(load_source(source), source)
    result = compare(own, tensors)
    if not result.fits:
        raise CheckpointError(
            f'{source} does not fit the classifier, so nothing was loaded. {_likely_cause(own, tensors)}\n'
            f'{describe(result, own, tensors)}\nFor other classes load its trunk alone, by model.backbone.init_cfg')
    check_finite(own, tensors, source)
    model.load_state_dict(tensors)
    print_log(f'pretrained: {len(result.loaded)}/{len(own)} tensors from {source}', logger='current')
