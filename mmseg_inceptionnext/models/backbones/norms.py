"""The norms of the backbones."""
from mmcv.cnn import build_norm_layer
from timm.layers import LayerNorm2d
from torch import nn


def build_norm(norm_cfg: dict, channels: int) -> nn.Module:
    """A norm for maps of (N, channels, H, W) by MMCV's ``norm_cfg``; ``LN`` normalises over the channels of each pixel.

    MMCV's own LN would normalise over the last dimension, which is W in a map. ``eps`` is 1e-5 unless given; ConvNeXt's
    is 1e-6.
    """
    if norm_cfg.get('type') == 'LN':
        norm_cfg = dict(norm_cfg, type=LayerNorm2d)
    return build_norm_layer(norm_cfg, channels)[1]
