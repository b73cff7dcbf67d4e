"""The same network the stock way, to compare with."""
import copy

from mmengine.config import ConfigDict
from torch import nn

from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models import InceptionNeXt
from mmseg_inceptionnext.models.backbones.pretrained import extract_trunk

STOCK_TYPES = {'FastUPerHead': 'UPerHead', 'MemoryEfficientEncoderDecoder': 'EncoderDecoder'}


def stock_model_cfg(model_cfg: ConfigDict) -> ConfigDict:
    """The config of a segmentor with MMSegmentation's own head and segmentor in the place of ours.

    Parameters and their names stay what they are.
    """
    cfg = copy.deepcopy(model_cfg)
    cfg.type = STOCK_TYPES.get(cfg.type, cfg.type)
    cfg.decode_head.type = STOCK_TYPES.get(cfg.decode_head.type, cfg.decode_head.type)
    return cfg


def timm_model_cfg(model_cfg: ConfigDict) -> ConfigDict:
    """:func:`stock_model_cfg` with timm's backbone through MMSegmentation's TIMMBackbone; without output norms.

    Raises:
        ValueError: if timm has no such backbone.
    """
    cfg = stock_model_cfg(model_cfg)
    backbone = cfg.backbone
    arch = InceptionNeXt.short_names.get(backbone.get('arch'), backbone.get('arch'))
    if backbone.type != 'InceptionNeXt' or arch not in InceptionNeXt.arch_settings:
        raise InputError(f'timm has no counterpart of backbone type={backbone.type!r}, arch={arch!r}; allowed are '
                         f'InceptionNeXt and {", ".join(InceptionNeXt.arch_settings)}')
    cfg.backbone = ConfigDict(
        type='TIMMBackbone', model_name=f'inception_next_{arch}', features_only=True, pretrained=False,
        in_channels=backbone.get('in_channels', 3), drop_path_rate=backbone.get('drop_path_rate', 0.))
    return cfg


def copy_weights(stock: nn.Module, ours: nn.Module) -> None:
    """Copies every tensor of a segmentor by :func:`timm_model_cfg` to ours, strictly."""
    state = stock.state_dict()
    trunk = extract_trunk(state, 'the stock model').tensors
    others = {key: value for key, value in state.items() if not key.startswith('backbone.')}
    ours.load_state_dict({**others, **{f'backbone.{key}': value for key, value in trunk.items()}})
