from .backbones import InceptionDWConv2d, InceptionNeXt, IsotropicMetaNeXt, MetaNeXt, PartialDWConv2d, SelfAttention2d
from .classifiers import ClassifierDataPreprocessor, ImageClassifier
from .decode_heads import FastUPerHead
from .fuse import fuse
from .segmentors import MemoryEfficientEncoderDecoder, RunningSumTTAModel

__all__ = [
    'ClassifierDataPreprocessor', 'FastUPerHead', 'ImageClassifier', 'InceptionDWConv2d', 'InceptionNeXt',
    'IsotropicMetaNeXt', 'MemoryEfficientEncoderDecoder', 'MetaNeXt', 'PartialDWConv2d', 'RunningSumTTAModel',
    'SelfAttention2d', 'fuse'
]
