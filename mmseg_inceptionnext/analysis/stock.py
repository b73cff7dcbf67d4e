"""The same network the stock way, to compare with, and random weights for both."""
import copy
from typing import Tuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models import InceptionNeXt
from mmseg_inceptionnext.models.backbones.pretrained import extract_trunk
from mmseg_inceptionnext.models.sync_bn import without_sync_bn
from mmseg_inceptionnext.parts import numbered, type_name

STOCK_TYPES = {'FastUPerHead': 'UPerHead', 'MemoryEfficientEncoderDecoder': 'EncoderDecoder'}


def stock_model_cfg(model_cfg: ConfigDict) -> ConfigDict:
    """A segmentor's config with MMSegmentation's own head and segmentor in place of ours; all parameters keep their
    names.

    Raises:
        InputError: if it has no decode head.
    """
    if not isinstance(model_cfg, dict) or not model_cfg.get('decode_head'):
        raise InputError('the model of the config has no decode_head of its own, model.decode_head=dict(type=..., '
                         '...); allowed are segmentors with one')
    cfg = copy.deepcopy(model_cfg)
    for part in (cfg, *(head for _, head in numbered('', cfg.decode_head))):
        part.type = STOCK_TYPES.get(type_name(part), part.get('type'))
    return cfg


def timm_model_cfg(model_cfg: ConfigDict) -> ConfigDict:
    """:func:`stock_model_cfg` with timm's backbone through MMSegmentation's TIMMBackbone; without output norms.

    Raises:
        InputError: if timm has no such backbone, it is a cascade of heads, or as :func:`stock_model_cfg`.
    """
    cfg = stock_model_cfg(model_cfg)
    if not isinstance(cfg.decode_head, dict):
        raise InputError(f'the model of the config has {len(cfg.decode_head)} decode heads; compared are segmentors '
                         'with one')
    backbone = cfg.get('backbone') or {}
    arch = backbone.get('arch')
    arch = InceptionNeXt.short_names.get(arch, arch) if isinstance(arch, str) else arch
    if type_name(backbone) != 'InceptionNeXt' or not isinstance(arch, str) or arch not in InceptionNeXt.arch_settings:
        raise InputError(f'timm has no counterpart of backbone type={type_name(backbone)!r}, arch={arch!r}; allowed '
                         f'are InceptionNeXt and {", ".join(InceptionNeXt.arch_settings)}')
    cfg.backbone = ConfigDict(
        type='TIMMBackbone', model_name=f'inception_next_{arch}', features_only=True, pretrained=False,
        in_channels=backbone.get('in_channels', 3), drop_path_rate=backbone.get('drop_path_rate', 0.))
    return cfg


def build_pair(cfg: Config, seed: int = 0) -> Tuple[nn.Module, nn.Module]:
    """The stock model and ours with the same random weights, see :func:`randomise`.

    Ours has no output norms here, since timm's backbone has none; nothing is dropped at random. ``cfg`` is changed.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.model.backbone.update(out_norm_cfg=None, init_cfg=None, drop_path_rate=0.)
    for _, head in [('', cfg.model.decode_head), *numbered('', cfg.model.get('auxiliary_head'))]:
        head.dropout_ratio = 0
    torch.manual_seed(seed)
    stock = randomise(without_sync_bn(MODELS.build(timm_model_cfg(cfg.model))))
    ours = without_sync_bn(MODELS.build(cfg.model))
    state = stock.state_dict()
    trunk = {f'backbone.{key}': value for key, value in extract_trunk(state, 'the stock model').tensors.items()}
    ours.load_state_dict({**{key: value for key, value in state.items() if not key.startswith('backbone.')}, **trunk})
    return stock, ours


def randomise(model: nn.Module) -> nn.Module:
    """Gives every convolution, BatchNorm (its statistics too) and ``gamma`` values that no shortcut could survive."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel()**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.uniform_(parameter, 0.3, 1)
    return model
