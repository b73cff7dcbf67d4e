from .backbones import InceptionDWConv2d, InceptionNeXt, MetaNeXt
from .decode_heads import FastUPerHead
from .fuse import fuse
from .segmentors import MemoryEfficientEncoderDecoder, RunningSumTTAModel

__all__ = [
    'FastUPerHead', 'InceptionDWConv2d', 'InceptionNeXt', 'MemoryEfficientEncoderDecoder', 'MetaNeXt',
    'RunningSumTTAModel', 'fuse'
]
